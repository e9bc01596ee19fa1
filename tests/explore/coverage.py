#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Which places of the library that change media the explorer cut, and which it never passed.

usage: explore --json FILE && coverage.py FILE [SOURCE_ROOT]
Exit status 1 if a place was never passed.
"""

import json
import pathlib
import re
import sys

CALLS = re.compile(r"\b(media_(?:store64|store64_nt|write|set|flush|drain|persist|copy_line)|"
                   r"(?:file|dir)_(?:create|sync|unlink|rename|punch|allocate))\s*\(")
FOLDERS = ["log", "segment", "fptree", "small", "big", "huge", "recovery", "pool"]


def places(root):
    """(file name, first line, last line, call, path) of every statement that changes media."""
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.[ch]")):
            lines = path.read_text(encoding="utf-8").split("\n")
            for number, line in enumerate(lines, 1):
                code = re.sub(r"/\*.*?\*/|\".*?\"", "", line)
                if code.lstrip().startswith(("*", "/*")):
                    continue
                for call in CALLS.finditer(code):
                    last = number
                    while last < len(lines) and not re.search(r"[;{]\s*(/\*.*)?$", lines[last - 1]):
                        last += 1
                    yield path.name, number, last, call.group(1), path.relative_to(root)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent.parent.parent)
    with open(sys.argv[1], encoding="utf-8") as f:
        cut = {}
        for site in json.load(f)["sites"]:
            name, line = site["site"].rsplit(":", 1)
            cut.setdefault(name, []).append((int(line), site["kind"], site["points"], site["states"]))
    missing = 0
    print(f"{'place':<34} {'call':<18} {'points':>8} {'states':>10}")
    for name, first, last, call, path in places(root):
        hits = [c for c in cut.get(name, []) if first <= c[0] <= last]
        points, states = sum(c[2] for c in hits), sum(c[3] for c in hits)
        note = "" if hits else "  never passed"
        missing += not hits
        print(f"{str(path) + ':' + str(first):<34} {call:<18} {points:>8} {states:>10}{note}")
    print(f"{missing} places never passed")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
