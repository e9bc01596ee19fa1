# SPDX-License-Identifier: BSD-3-Clause
"""The files of the source tree, for the checks beside this file."""

import os
import re
import subprocess
import sys

# A folder may include itself and those before it, except where two are siblings.
LAYERS = ["include", "base", "pmem", "log", "segment", "fptree", "small", "big", "huge", "recovery", "pool"]
SIBLINGS = [{"small", "huge"}, {"small", "big"}, {"big", "huge"}]
# Users of the library: the public headers and their own folder.
USERS = ["tools", "examples"]
# May include everything.
INSIDERS = ["tests", "bench"]

SKIPPED = {".git", "build", "__pycache__", ".cache"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def root():
    """The tree to check: the first argument, or where this file lies."""
    here = os.path.dirname(os.path.abspath(__file__))
    return os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(here))


def files(top, suffixes=None):
    """Paths relative to top of the files that belong to the project, sorted."""
    found = []
    for folder, folders, names in os.walk(top):
        folders[:] = [f for f in folders if f not in SKIPPED and not f.startswith("build-")]
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), top)
            if suffixes is None or path.endswith(tuple(suffixes)):
                found.append(path)
    return sorted(without_ignored(top, found))


def without_ignored(top, paths):
    """Drop what git ignores; without git (a release archive), keep all."""
    try:
        done = subprocess.run(["git", "-C", top, "check-ignore", "--stdin"], input="\n".join(paths), text=True,
                              capture_output=True, check=False)
    except OSError:
        return paths
    ignored = set(done.stdout.split("\n")) if done.returncode in (0, 1) else set()
    return [p for p in paths if p not in ignored]


def lines(top, path):
    with open(os.path.join(top, path), encoding="utf-8") as f:
        return f.read().split("\n")


def includes(top, path):
    """(line number, included path) of each #include "..."."""
    for number, line in enumerate(lines(top, path), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1)


def code_lines(top, path):
    """(line number, text) with comments and string literals blanked."""
    text = "\n".join(lines(top, path))
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)

    def blank(match):
        token = match.group(0)
        return '""' if token.startswith('"') else re.sub(r"[^\n]", " ", token)

    return enumerate(pattern.sub(blank, text).split("\n"), 1)


def finish(findings, checked):
    """Print findings, or what was checked, and leave with the matching exit code."""
    for finding in findings:
        print(finding)
    print(f"{checked} files checked, {len(findings)} findings")
    sys.exit(1 if findings else 0)
