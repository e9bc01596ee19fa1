# SPDX-License-Identifier: BSD-3-Clause
"""Figures of the benchmarks, drawn by gnuplot as SVG."""

import os
import subprocess

HEAD = """set terminal svg size 760,440 dynamic background rgb 'white' font 'sans-serif,13'
set output '{path}'
set title '{title}'
set xlabel '{x}'
set ylabel '{y}'
set logscale xy
set grid lc rgb '#dddddd'
set key {key}
"""
SIZE_TICS = ("set xtics ('64 B' 64, '256 B' 256, '1 KiB' 1024, '4 KiB' 4096, '16 KiB' 16384, '64 KiB' 65536, '256 KiB' 262144, "
             "'1 MiB' 1048576, '4 MiB' 4194304, '16 MiB' 16777216)\n")


def draw(path, title, x, y, lines, key="top left", more="", style="linespoints pt 7 ps 0.5 lw 2"):
    """lines: {name: [(x, y), ...]}."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    lines = {name: points for name, points in lines.items() if points}
    script = HEAD.format(path=path, title=title, x=x, y=y, key=key) + more
    script += "plot " + ", ".join(f"'-' with {style} title '{name}'" for name in lines) + "\n"
    for points in lines.values():
        script += "".join(f"{a} {b}\n" for a, b in points) + "e\n"
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def sweep(folder, table):
    """CPU time of a window pair by size, up to 16 MiB."""
    lines = {}
    for (case, _), cells in table.items():
        pattern, size = case.split("/")
        for subject, cell in cells.items():
            if pattern == "window" and int(size) <= 1 << 24 and cell.get("cpu_ns"):
                lines.setdefault(subject, []).append((int(size), cell["cpu_ns"]))
    draw(os.path.join(folder, "sweep.svg"), "One free and one allocation", "size", "CPU ns", lines, more=SIZE_TICS)


def tail(folder, histograms):
    """Calls by latency; histograms: {case: [(ns, calls), ...]}."""
    for media in dict.fromkeys(case.split(",")[0] for case in histograms):
        lines = {case: points for case, points in histograms.items() if case.split(",")[0] == media}
        draw(os.path.join(folder, f"tail-{media}.svg"), f"Latency of pa\\_allocate in a growing pool, {media}", "ns", "calls",
             lines, key="top right", style="steps lw 1.5")
