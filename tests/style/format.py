# SPDX-License-Identifier: BSD-3-Clause
"""clang-format would change nothing. Put right by scripts/format."""

import concurrent.futures
import os
import subprocess
import sys

import tree


def finding(clang_format, top, path):
    """What is wrong with one file, or None."""
    full = os.path.join(top, path)
    done = subprocess.run([clang_format, "--style=file", full], capture_output=True, text=True, check=True)
    with open(full, encoding="utf-8") as f:
        have = f.read()
    if done.stdout == have:
        return None
    pairs = enumerate(zip(have.split("\n"), done.stdout.split("\n")), 1)
    line = next((number for number, (a, b) in pairs if a != b), 1)
    return f"{path}:{line}: not formatted; run scripts/format"


def main():
    top, clang_format = tree.root(), sys.argv[2]
    paths = tree.files(top, (".c", ".h", ".cc", ".hpp"))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = list(pool.map(lambda path: finding(clang_format, top, path), paths))
    tree.finish([f for f in findings if f], len(paths))


if __name__ == "__main__":
    main()
