#!/usr/bin/env bash
# The main job before your eyes: two anchors, a publisher, three peers, a murdered process, equal hashes.
# Needs cargo, bash and coreutils; uses a temporary directory and free ports of loopback, and leaves nothing.
#
#   tests/demo.sh                           a release build
#   ANCHORAGE_PROFILE=dev tests/demo.sh     whatever is built already for the tests

set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

profile=${ANCHORAGE_PROFILE:-release}
root=$PWD
work=
pids=()

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 && -z ${NO_COLOR:-} ]] || say() { printf '\n%s\n' "$*"; }

# Ends what this script started and nothing else, on every way out.
clean_up() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do
        for _ in {1..50}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    [[ -n $work ]] && rm -rf "$work"
}

fail() {
    printf '\n'
    for log in "$work"/*.err; do
        [[ -s $log ]] && printf -- '--- %s\n%s\n' "${log##*/}" "$(tail -n 15 "$log")"
    done
    printf '\ndemo: FAILED: %s\n' "$*"
    exit 1
}

trap clean_up EXIT
trap 'fail "interrupted"' INT TERM HUP

# Waits up to 30 s until a command succeeds.
await() {
    local what=$1
    shift
    for _ in {1..300}; do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "$what: not within 30 s"
}

# A free port of loopback, below those that the system picks by itself.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    return 1
}

hash_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# Who has the first chunk, one address a line; all chunks of a file go the same way here.
holders() { peer reader manifest music.txt --json | tr -d '\n ' | grep -o '"index":0,.*' | sed 's/}.*//; s/.*"peers":\[//; s/\].*//; s/[",]/\n/g' | grep . ; }

# A command of the peer that lives in home $1.
peer() {
    local home=$1
    shift
    (cd "$work" && mkdir -p "$home" && cd "$home" && "$bin/peer" "$@" --config "$work/config.json" --home "$work/$home/home")
}

say "1. Build (profile $profile)"
cargo build --quiet --bins --profile "$profile" || fail "the build"
target=${CARGO_TARGET_DIR:-$root/target}
bin=$target/$profile
[[ $profile == dev ]] && bin=$target/debug
work=$(mktemp -d "${TMPDIR:-/tmp}/anchorage-demo-XXXXXX") || fail "no temporary directory"
echo "   $bin/anchor, $bin/peer"

say "2. Anchors 1 and 2"
port1=$(free_port) && port2=$(free_port) || fail "no free port"
[[ $port1 != "$port2" ]] || port2=$((port1 + 1))
printf '{"anchors":[{"id":1,"address":"127.0.0.1:%s"},{"id":2,"address":"127.0.0.1:%s"}]}\n' "$port1" "$port2" >"$work/config.json"
for id in 1 2; do
    "$bin/anchor" serve $id --config "$work/config.json" --home "$work/anchors" >"$work/anchor-$id.out" 2>"$work/anchor-$id.err" &
    pids+=($!)
done
for id in 1 2; do
    await "anchor $id" grep -q serving "$work/anchor-$id.out"
    sed 's/^/   /' "$work/anchor-$id.out"
done

say "3. The processes of anchor 1"
supervisor=${pids[0]}
workers() { grep -l "^PPid:[[:space:]]*$supervisor$" /proc/[0-9]*/status 2>/dev/null | cut -d / -f 3 | sort -n; }
arguments() { tr '\0' ' ' <"/proc/$1/cmdline"; }
for pid in $supervisor $(workers); do printf '   %7d  %s\n' "$pid" "$(arguments "$pid")"; done

say "4. A publisher uploads data/music.txt and leaves"
peer publisher publish "$root/data/music.txt" || fail "publishing"

show_holders() { printf '   music1.txt is at: %s\n' "$(holders | tr '\n' ' ')"; }
say "5. The manifest before"
show_holders
before=$(holders | wc -l)
[[ $before -eq 2 ]] || fail "two anchors should hold the file, not $before"

# Kills a transfer process of anchor 1, while the third peer starts.
murder() {
    victim=
    count=$(workers | wc -l)
    for pid in $(workers); do [[ $(arguments "$pid") == "anchor: transfer"* ]] && victim=$pid; done
    [[ -n $victim ]] || fail "anchor 1 has no transfer process"
    echo "   kill -9 $victim  $(arguments "$victim")of anchor 1"
    kill -9 "$victim"
}
replaced() { [[ $(workers | wc -l) -eq $count ]] && ! workers | grep -qx "$victim"; }

say "6. Three peers get it, one after another; each serves it from then on"
wanted=$(hash_of "$root/data/music.txt")
for number in 1 2 3; do
    {
        mkdir -p "$work/peer-$number" && cd "$work/peer-$number" || exit
        exec "$bin/peer" get music.txt --serve --config "$work/config.json" --home "$work/peer-$number/home"
    } >"$work/peer-$number.out" 2>"$work/peer-$number.err" &
    pids+=($!)
    [[ $number -eq 3 ]] && murder
    await "peer $number" grep -q verified "$work/peer-$number.err"
    got=$(hash_of "$work/peer-$number/music.txt")
    [[ $got == "$wanted" ]] || fail "the file of peer $number has another hash"
    # Its final line, which says where the bytes came from.
    sed 's/^/   /' "$work/peer-$number.err"
    listed() { [[ $(holders | wc -l) -eq $((before + number)) ]]; }
    await "peer $number in the manifest" listed
done
await "a new transfer process" replaced
echo "   it is back: $(for pid in $(workers); do printf '%s %s· ' "$pid" "$(arguments "$pid")"; done)"

say "7. The manifest after"
show_holders
"$bin/anchor" status 1 --config "$work/config.json" --home "$work/anchors" | sed 's/^/   /' || fail "the status of anchor 1"

say "8. The hashes"
printf '   %s  published\n' "$wanted"
for number in 1 2 3; do printf '   %s  peer %s\n' "$(hash_of "$work/peer-$number/music.txt")" $number; done

say "9. Everybody goes home"
started=("${pids[@]}")
for pid in "${started[@]}"; do kill "$pid" 2>/dev/null; done
for pid in "${started[@]}"; do
    wait "$pid"
    code=$?
    [[ $code -eq 0 ]] || fail "process $pid ended with $code instead of 0"
done
pids=()
echo "   every process has ended by itself, with exit code 0"

printf '\ndemo: PASSED: one file, two anchors, three peers, one murdered process, equal hashes\n'
