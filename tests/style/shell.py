# SPDX-License-Identifier: BSD-3-Clause
"""shellcheck finds nothing in the shell scripts."""

import os
import subprocess
import sys

import tree


def is_shell(top, path):
    full = os.path.join(top, path)
    if not os.path.isfile(full) or not os.access(full, os.X_OK):
        return False
    with open(full, "rb") as f:
        first = f.readline()
    return first.startswith(b"#!") and first.rstrip().endswith((b"sh", b"bash"))


def main():
    top, shellcheck = tree.root(), sys.argv[2]
    paths = [path for path in tree.files(top) if is_shell(top, path)]
    done = subprocess.run([shellcheck, "--severity=warning", "--format=gcc"] + [os.path.join(top, p) for p in paths],
                          capture_output=True, text=True, check=False)
    tree.finish([line for line in done.stdout.split("\n") if line], len(paths))


if __name__ == "__main__":
    main()
