# SPDX-License-Identifier: BSD-3-Clause
"""No header reaches itself through the headers it includes."""

import os
import re

import tree

ANGLE = re.compile(r"^\s*#\s*include\s+<([^>]+)>")


def edges(top, path):
    for _, target in tree.includes(top, path):
        beside = os.path.join(os.path.dirname(path), target)
        yield target if os.path.exists(os.path.join(top, target)) else beside
    for line in tree.lines(top, path):
        match = ANGLE.match(line)
        if match and os.path.exists(os.path.join(top, "include", match.group(1))):
            yield os.path.join("include", match.group(1))


def find_cycle(graph):
    """One cycle as a list of paths, or an empty list."""
    state, stack = {}, []

    def visit(node):
        state[node] = "open"
        stack.append(node)
        for target in graph.get(node, []):
            if state.get(target) == "open":
                return stack[stack.index(target):] + [target]
            if target not in state:
                cycle = visit(target)
                if cycle:
                    return cycle
        state[node] = "done"
        stack.pop()
        return []

    for node in graph:
        if node not in state:
            cycle = visit(node)
            if cycle:
                return cycle
    return []


def main():
    top = tree.root()
    headers = tree.files(top, (".h", ".hpp"))
    cycle = find_cycle({path: list(edges(top, path)) for path in headers})
    tree.finish(["include cycle: " + " -> ".join(cycle)] if cycle else [], len(headers))


if __name__ == "__main__":
    main()
