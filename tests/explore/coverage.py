#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""How often the explorer cut each step of each protocol in docs/PROTOCOLS.md, and each place that changes media.

usage: coverage.py --run EXPLORE        all points, few states at each
       explore --json FILE && coverage.py FILE
       explore --mutate --json FILE && coverage.py --mutants FILE...        the table of mutants, of all parts of a run
Exit status 1 if a step was never cut, a step and steps.txt do not fit, or a place was never passed.
"""

import fnmatch
import json
import pathlib
import re
import subprocess
import sys
import tempfile

CALLS = re.compile(r"\b(media_(?:store64|write|set|flush|drain|persist|copy_line)|"
                   r"(?:file|dir)_(?:create|sync|unlink|rename|punch|allocate|write))\s*\(")
FOLDERS = ["log", "segment", "fptree", "small", "big", "huge", "recovery", "pool"]
# Functions with a place that no scenario passes, and why, or who does.
ELSEWHERE = {
    "abandon_growth": "a file operation fails: suite fault",
    "create_in": "a file operation fails: suite fault",
    "uncreate": "a file operation fails: suite fault",
    "superblock_create": "a file operation fails: suite fault",
    "uncreate_one": "a creation fails: test_dirs",
    "repair_patch": "into a private mapping",
    "restore_leaf": "into a private mapping",
    "find_bit": "into a private mapping",
    "provider_make_file": "a stray file is in the way",
    "lane_touch": "more lines in a quarter of the ring than the scenarios touch",
    "redo_change": "in the pool tree_refill comes first: test_fptree_crash",
}


def functions(text):
    """(name, first line, last line) of each function of a C file."""
    found, name, first = [], None, 0
    for number, line in enumerate(text.split("\n"), 1):
        plain = re.sub(r"__attribute__\s*\(\(.*?\)\)+", "", line)
        head = re.search(r"(\w+)\s*\(", plain)
        if head and re.match(r"[a-zA-Z_]", line) and not line.startswith("typedef") and not line.rstrip().endswith(";"):
            candidate, begin = head.group(1), number
        if line == "{":
            name, first = candidate, begin
        elif line == "}" and name:
            found.append((name, first, number))
            name = None
    return found


class Source:
    """The library's files, and which function a line belongs to."""

    def __init__(self, root):
        self.root = root
        self.paths = [p for folder in FOLDERS for p in sorted((root / folder).glob("*.[ch]"))]
        files = self.paths + sorted((root / "pmem").glob("*.c"))
        self.functions = {p.name: functions(p.read_text(encoding="utf-8")) for p in files}

    def function(self, file, line):
        for name, first, last in self.functions.get(file, []):
            if first <= line <= last:
                return name
        return "?"

    def places(self):
        """(file name, first line, last line, call, path) of every statement that changes media."""
        for path in self.paths:
            lines = path.read_text(encoding="utf-8").split("\n")
            for number, line in enumerate(lines, 1):
                code = re.sub(r"/\*.*?\*/|\".*?\"", "", line)
                if code.lstrip().startswith(("*", "/*")):
                    continue
                for call in CALLS.finditer(code):
                    last = number
                    while last < len(lines) and not re.search(r"[;{]\s*(/\*.*)?$", lines[last - 1]):
                        last += 1
                    yield path.name, number, last, call.group(1), path.relative_to(self.root)


def table_steps(root):
    """(protocol, step, text) of each row of the step tables; a table is one whose rows begin with numbers or "word:"."""
    yield from table_rows(root / "docs" / "PROTOCOLS.md", r"(?:([a-z][a-z ]*): ?)?(\d+)?(?= |$)")
    yield from table_rows(root / "docs" / "REPAIR.md", r"()(\d+)(?= )")


def table_rows(path, pattern):
    """As table_steps, of one document."""
    chapter = section = ""
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("#"):
            title = re.split(r"[:(,`]| on a ", line.lstrip("# "))[0].strip()
            chapter, section = (title, "") if line.startswith("## ") else (chapter, title)
        if not line.startswith("|") or chapter == "Protocols":
            continue
        cell = line.split("|")[1].strip()
        row = re.match(pattern, cell)
        if row and (row.group(2) or row.group(1)):
            yield (f"{chapter} / {section}" if section else chapter), row.group(2) or row.group(1), cell


def named_steps(path):
    """{(protocol, step): selectors} of steps.txt."""
    result, protocol = {}, ""
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("["):
            protocol = line.strip("[]")
        elif "|" in line and not line.startswith("#"):
            step, selectors = (part.strip() for part in line.split("|", 1))
            result[protocol, step] = selectors
    return result


def selected(selector, events):
    """The points and states of the events that a selector of steps.txt names."""
    judged = selector.endswith("!")
    place, _, context = selector.rstrip("!").partition("@")
    place, _, kind = place.partition("/")
    file, function = place.split(":")
    points = states = 0
    for e in events:
        if (fnmatch.fnmatchcase(e["file"], file) and fnmatch.fnmatchcase(e["function"], function) and
                (not kind or e["kind"] == kind) and (not judged or e["judged"]) and
                (not context or fnmatch.fnmatchcase(e["entry"], context) or fnmatch.fnmatchcase(e["word"], context))):
            points += e["points"]
            states += e["states"]
    return points, states


def report_step(protocol, step, text, selectors, events):
    """Print a step; True if it was cut wherever it must be."""
    if selectors is None:
        print(f"  {step:<16} {'':>8} {'':>10}  {text[:60]}   not in steps.txt")
        return False
    if selectors.startswith("-"):
        print(f"  {step:<16} {'-':>8} {'-':>10}  {text[:60]} ({selectors[1:].strip()})")
        return True
    found = {s.strip(): selected(s.strip(), events) for s in selectors.split(",")}
    never = [s for s, (points, _) in found.items() if points == 0]
    points, states = (sum(column) for column in zip(*found.values()))
    note = "   NEVER CUT at " + ", ".join(never) if never else ""
    print(f"  {step:<16} {points:>8} {states:>10}  {text[:60]}{note}")
    return not never


def report_steps(source, steps):
    """Print all protocols; the number of steps that are wrong."""
    events = []
    for s in steps:
        file, line = s["site"].rsplit(":", 1)
        events.append(dict(s, file=file, function=source.function(file, int(line))))
    named = named_steps(pathlib.Path(__file__).parent / "steps.txt")
    bad, last, count, seen = 0, None, 0, set()
    print(f"  {'step':<16} {'points':>8} {'states':>10}")
    for protocol, step, text in table_steps(source.root):
        if protocol != last:
            print(protocol)
        last = protocol
        count += 1
        seen.add((protocol, step))
        bad += not report_step(protocol, step, text, named.get((protocol, step)), events)
    for protocol, step in named.keys() - seen:
        print(f"steps.txt has step {step} of {protocol}, which docs/PROTOCOLS.md has not")
        bad += 1
    print(f"{count} steps of {len({p for p, _ in seen})} protocols, {bad} of them not as they should be\n")
    return bad


def report_places(source, sites):
    """Print all places; the number of those that were never passed."""
    cut = {}
    for site in sites:
        name, line = site["site"].rsplit(":", 1)
        cut.setdefault(name, []).append((int(line), site["points"], site["states"]))
    count = missing = 0
    print(f"{'place':<34} {'call':<18} {'points':>8} {'states':>10}")
    for name, first, last, call, path in source.places():
        hits = [c for c in cut.get(name, []) if first <= c[0] <= last]
        elsewhere = "" if hits else ELSEWHERE.get(source.function(name, first), "")
        count += 1
        missing += not hits and not elsewhere
        note = "" if hits else f"  never passed ({elsewhere})" if elsewhere else "  NEVER PASSED"
        print(f"{str(path) + ':' + str(first):<34} {call:<18} {sum(c[1] for c in hits):>8} "
              f"{sum(c[2] for c in hits):>10}{note}")
    print(f"{count} places, {missing} of them not as they should be")
    return missing


def figures(arguments):
    """The explorer's figures, from a file or from a run."""
    if arguments[0] != "--run":
        return json.loads(pathlib.Path(arguments[0]).read_text(encoding="utf-8"))
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        command = [arguments[1], "--brief", "--rounds", "1", "--quiet", "--json", f.name]
        run = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
        if run.returncode != 0:
            sys.exit(f"{run.stdout}\n{' '.join(command)} gives {run.returncode}")
        return json.load(f)


def mutant_rows(source, mutants):
    """{(file, function, kind and which): {is it late: mutant}}, in the order of the sources."""
    lines = {}
    for m in mutants:
        file, line = m["site"].rsplit(":", 1)
        key = (file, source.function(file, int(line)), m["kind"])
        lines.setdefault(key, set()).add(int(line))
        m["key"], m["line"] = key, int(line)
    rows = {}
    for m in sorted(mutants, key=lambda m: (m["site"].rsplit(":", 1)[0], m["line"], m["kind"])):
        of_kind = sorted(lines[m["key"]])
        which = f" {of_kind.index(m['line']) + 1}" if len(of_kind) > 1 else ""
        rows.setdefault((*m["key"][:2], m["kind"] + which), {})[m["late"] > 0] = m
    return rows


def print_mutants(source, paths):
    """The table of mutants; the number of survivors."""
    every = [m for path in paths for m in json.loads(pathlib.Path(path).read_text(encoding="utf-8"))]
    # One that was tried again is as the later file has it.
    mutants = list({(m["site"], m["kind"], m["late"] > 0): m for m in every}.values())
    print("| file, function | what | left out: caught by | states | late by | caught by | states |")
    print("|---|---|---|---|---|---|---|")
    for (file, function, what), row in mutant_rows(source, mutants).items():
        cells = []
        for late in (False, True):
            m = row.get(late, {"late": "-", "caught_by": "-", "states": 0})
            cells += ([m["late"]] if late else []) + [m["caught_by"] or "nobody", f"{m['states']:,}"]
        print(f"| {file} `{function}` | {what} | {' | '.join(map(str, cells))} |")
    survivors = sum(not m["caught_by"] for m in mutants)
    print(f"{len(mutants)} mutants, {survivors} survivors", file=sys.stderr)
    return survivors


def main():
    if len(sys.argv) < 2 or (sys.argv[1] == "--run" and len(sys.argv) < 3):
        sys.exit(__doc__)
    source = Source(pathlib.Path(__file__).resolve().parents[2])
    if sys.argv[1] == "--mutants":
        sys.exit(1 if print_mutants(source, sys.argv[2:]) else 0)
    result = figures(sys.argv[1:])
    bad = report_steps(source, result["steps"])
    bad += report_places(source, result["sites"])
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
