# SPDX-License-Identifier: BSD-3-Clause
"""clang-format would change nothing. Put right by scripts/format."""

import os
import subprocess
import sys

import tree


def main():
    top, clang_format = tree.root(), sys.argv[2]
    paths = tree.files(top, (".c", ".h", ".cc", ".hpp"))
    findings = []
    for path in paths:
        full = os.path.join(top, path)
        done = subprocess.run([clang_format, "--style=file", full], capture_output=True, text=True, check=True)
        have = open(full, encoding="utf-8").read()
        if done.stdout != have:
            pairs = enumerate(zip(have.split("\n"), done.stdout.split("\n")), 1)
            line = next((number for number, (a, b) in pairs if a != b), 1)
            findings.append(f"{path}:{line}: not formatted; run scripts/format")
    tree.finish(findings, len(paths))


if __name__ == "__main__":
    main()
