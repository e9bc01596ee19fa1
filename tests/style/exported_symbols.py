# SPDX-License-Identifier: BSD-3-Clause
"""The shared and the static library define exactly the functions that the public headers declare."""

import os
import re
import subprocess
import sys

import tree

DECLARATION = re.compile(r"^(?!static|typedef|#|\s|/|\*)[\w\s*]*?\b((?:pa|fptree|fpstree)_\w+)\(", re.M)


def declared(top):
    names = set()
    for header in ("pallocator.h", "fptree.h"):
        text = "\n".join(line for _, line in tree.code_lines(top, os.path.join("include", header)))
        names |= set(DECLARATION.findall(text))
    return names


def defined(library, dynamic):
    """Global names that the library defines, without their version."""
    arguments = ["nm", "--defined-only", "--extern-only", "--format=posix"] + (["--dynamic"] if dynamic else [])
    output = subprocess.run(arguments + [library], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in output.split("\n")]
    return {row[0].split("@")[0]: row[0] for row in rows if len(row) >= 2 and row[1] in "TDBRVWi"}


def main():
    top, shared, archive = tree.root(), sys.argv[2], sys.argv[3]
    wanted, findings = declared(top), []
    for library, dynamic in ((shared, True), (archive, False)):
        found, name = defined(library, dynamic), os.path.basename(library)
        findings += [f"{name}: {symbol} is exported but not declared" for symbol in sorted(set(found) - wanted)]
        findings += [f"{name}: {symbol} is declared but not defined" for symbol in sorted(wanted - set(found))]
        if dynamic:
            findings += [f"{name}: {symbol} has no version" for symbol in sorted(found) if "@" not in found[symbol]]
    tree.finish(findings, 2)


if __name__ == "__main__":
    main()
