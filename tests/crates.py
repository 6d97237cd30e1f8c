#!/usr/bin/env python3
"""What the crates that we build upon may be: from crates.io, freely licensed, mostly in one version.

These are the checks `bans licenses sources` of cargo-deny, which takes longer to compile than all of the
workspace; here they are forty lines over `cargo metadata`.
"""

import collections
import json
import re
import subprocess
import sys

LICENCES = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CC0-1.0", "ISC", "MIT", "MIT-0", "OpenSSL", "Unicode-3.0", "Unlicense", "Zlib",
}
SOURCE = "registry+https://github.com/rust-lang/crates.io-index"
# Crates that may be there in several versions, because we cannot change who asks for them.
SEVERAL = {"syn", "getrandom", "rand_core", "windows-sys", "windows-targets", "windows-link", "r-efi", "wasip2", "hashbrown"}
# Crates that are replaced by what std or the workspace has.
BANNED = {"openssl", "openssl-sys", "native-tls", "lazy_static", "once_cell_serde"}


def free(expression):
    """Whether a licence expression (SPDX) leaves us a choice that is on the list."""
    expression = expression.replace("/", " OR ")
    terms = re.findall(r"\(|\)|\bAND\b|\bOR\b|[^\s()]+(?: WITH [^\s()]+)?", expression)
    words = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    return eval(" ".join(words.get(term, str(term in LICENCES)) for term in terms))


def cargo(*arguments):
    """What a cargo command prints."""
    command = ["cargo", *arguments, "--locked"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    platform = re.search("^host: (.*)$", subprocess.check_output(["rustc", "-vV"], text=True), re.MULTILINE)[1]
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", platform))
    # The metadata name optional crates that nobody has asked for, too; the tree does not.
    lines = cargo("tree", "--workspace", "--prefix", "none", "--format", "{p}").splitlines()
    used = {tuple(line.split(" ")[:2]) for line in lines if line}
    crates = [crate for crate in metadata["packages"] if (crate["name"], "v" + crate["version"]) in used]
    versions = collections.defaultdict(set)
    faults = []
    for crate in crates:
        name = f"{crate['name']} {crate['version']}"
        versions[crate["name"]].add(crate["version"])
        if crate["id"] not in metadata["workspace_members"] and crate["source"] != SOURCE:
            faults.append(f"{name} comes from {crate['source']}")
        if not free(crate["license"] or "nothing"):
            faults.append(f"{name} has the licence {crate['license']}")
        if crate["name"] in BANNED:
            faults.append(f"{name} is banned")
    for name, several in versions.items():
        if len(several) > 1 and name not in SEVERAL:
            faults.append(f"{name} is there {len(several)} times: {', '.join(sorted(several))}")
    for fault in faults:
        print(fault)
    print(f"{len(crates)} crates, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
