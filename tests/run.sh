#!/usr/bin/env bash
# Everything that CI runs, the cheap first. Needs Rust, a C compiler, Python 3, and the programs that
# .ci/run installs. Ends with one line, `run: PASSED …` or `run: FAILED …`.
#
#   tests/run.sh                everything
#   tests/run.sh fmt clippy     only these steps: fmt unsafe clippy crates build test demo bench docs

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

start=$SECONDS
only=" $* "
steps=0

# Runs a step, unless others were asked for; ends the script if it fails.
step() {
    local name=$1 begun=$SECONDS
    shift
    [[ $only == "  " || $only == *" $name "* ]] || return 0
    printf '\n── %s: %s\n' "$name" "$*"
    if ! "$@"; then
        printf '\nrun: FAILED at %s, after %d s\n' "$name" $((SECONDS - start))
        exit 1
    fi
    printf '── %s: ok, %d s\n' "$name" $((SECONDS - begun))
    steps=$((steps + 1))
}

documents() { RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --quiet; }
demo() { ANCHORAGE_PROFILE=dev tests/demo.sh; }

# `unsafe` stands under anchor/src/sys, and at the one call of the SHA instructions; the compiler denies it elsewhere,
# this finds who allows it there.
no_unsafe() {
    local found
    found=$(grep -rnE '\bunsafe(_code)?\b' --include='*.rs' manifest peer anchor tests \
        | grep -vE '^(anchor/src/sys(\.rs|/)|peer/src/sha256/pair\.rs:)' | grep -vE '^[^:]+:[0-9]+:\s*//')
    [[ -z $found ]] || { printf '%s\n' "$found"; return 1; }
}

step fmt cargo fmt --all --check
step unsafe no_unsafe
step clippy cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
step crates tests/crates.py
step build cargo build --workspace --bins --locked
step test cargo test --workspace --locked --quiet
step demo demo
step bench tests/bench/smoke
step docs documents

[[ $steps -gt 0 ]] || { printf 'run: FAILED: no such step:%s\n' "$only"; exit 1; }
printf '\nrun: PASSED, %d steps in %d s\n' "$steps" $((SECONDS - start))
