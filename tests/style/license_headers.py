# SPDX-License-Identifier: BSD-3-Clause
"""Every source file, script and build file names the license in its first three lines."""

import os

import tree

SUFFIXES = (".c", ".h", ".cc", ".hpp", ".py", ".sh", ".map", ".supp", "meson.build", "meson_options.txt")


def is_script(top, path):
    full = os.path.join(top, path)
    return os.path.isfile(full) and os.access(full, os.X_OK)


def main():
    top = tree.root()
    findings, checked = [], 0
    for path in tree.files(top):
        if not path.endswith(SUFFIXES) and not is_script(top, path):
            continue
        checked += 1
        try:
            head = tree.lines(top, path)[:3]
        except UnicodeDecodeError:
            findings.append(f"{path}: an executable that is not a script")
            continue
        if not any("SPDX-License-Identifier: BSD-3-Clause" in line for line in head):
            findings.append(f"{path}:1: no SPDX-License-Identifier")
    tree.finish(findings, checked)


if __name__ == "__main__":
    main()
