# SPDX-License-Identifier: BSD-3-Clause
"""A folder includes itself and the layers above it, and includes carry the folder."""

import os

import tree


def refusal(folder, target):
    """Why a file in folder may not include target, or None."""
    if folder in tree.INSIDERS:
        return None
    target_folder = target.split("/")[0] if "/" in target else "include"
    if folder in tree.USERS:
        return None if target_folder in ("include", folder) else f"{folder}/ uses the public headers only"
    if target_folder not in tree.LAYERS:
        return f"{target_folder}/ is not a layer of the library"
    if {folder, target_folder} in tree.SIBLINGS:
        return f"{folder}/ and {target_folder}/ are siblings"
    if tree.LAYERS.index(target_folder) > tree.LAYERS.index(folder):
        return f"{target_folder}/ is a higher layer than {folder}/"
    return None


def main():
    top = tree.root()
    findings, checked = [], 0
    for path in tree.files(top, (".c", ".h", ".cc", ".hpp")):
        folder = path.split("/")[0]
        if folder not in tree.LAYERS + tree.USERS + tree.INSIDERS:
            findings.append(f"{path}: {folder}/ is missing in the layer table of tests/style/tree.py")
            continue
        checked += 1
        for number, target in tree.includes(top, path):
            if target.endswith(".c"):
                findings.append(f"{path}:{number}: includes a source file")
            if folder not in tree.INSIDERS + tree.USERS and "/" not in target:
                findings.append(f'{path}:{number}: "{target}" lacks its folder; public headers take <>')
            elif "/" in target and not os.path.exists(os.path.join(top, target)):
                findings.append(f'{path}:{number}: "{target}" is not relative to the top of the tree')
            reason = refusal(folder, target)
            if reason:
                findings.append(f'{path}:{number}: may not include "{target}": {reason}')
    tree.finish(findings, checked)


if __name__ == "__main__":
    main()
