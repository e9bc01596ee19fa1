# SPDX-License-Identifier: BSD-3-Clause
"""Every .c file of the library is in the build directory's compile commands: no file is forgotten in meson.build."""

import json
import os

import tree


def main():
    top = tree.root()
    build = os.environ.get("MESON_BUILD_ROOT", ".")
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        commands = json.load(f)
    built = {os.path.relpath(os.path.realpath(os.path.join(c["directory"], c["file"])), os.path.realpath(top))
             for c in commands}
    sources = [p for p in tree.files(top, (".c",)) if p.split("/")[0] in tree.LAYERS + ["tests"]]
    findings = [f"{path}: not built; add it to meson.build (or configure again)" for path in sources if path not in built]
    tree.finish(findings, len(sources))


if __name__ == "__main__":
    main()
