# SPDX-License-Identifier: BSD-3-Clause
"""scripts/bench [PROGRAM] [options] -- run a benchmark beside its rivals in one process and print a table.

PROGRAM is a name from bench/ without "bench_" (default: alloc). The release build is made in build/bench. Cases are repeated
in random order and the lowest CPU time of each counts, so that noise of other processes drops out. Cache-line write-back
is emulated for all subjects alike (PMEM2_FORCE_GRANULARITY=CACHE_LINE, PMEM_IS_PMEM_FORCE=1), unless --real is given.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile

import plot

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The subject that ratios refer to, by program.
BASELINES = {"alloc": "pmemobj", "mixed": "pmemobj", "sweep": "pmemobj", "fptree": "lmdb"}
# Rounds and seconds per round that a program wants unless told otherwise.
PACE = {"mixed": (9, "0.3"), "sweep": (5, "0.05"), "fragmentation": (1, "0"), "tail": (1, "0")}
# Programs that report values instead of times beside each other; True: a column per case, False: a row.
MEASURES = {"fragmentation": True, "open": False, "tail": False}
# Columns made of two others.
RATIOS = {"open": [("total / bare", "total ms", "bare ms"), ("CPU / bare CPU", "total CPU ms", "bare CPU ms")]}
OURS = "pallocator"
NAME = re.compile(r"^(?P<subject>[^/]+)/(?P<case>.+?)(?:/iterations:\d+)?/real_time/threads:(?P<threads>\d+)$")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", default="alloc")
    parser.add_argument("--dir", default="/dev/shm", help="where pools are made (default %(default)s)")
    parser.add_argument("--rounds", type=int, help="repetitions of each case (default 5; mixed: 9)")
    parser.add_argument("--min-time", help="seconds per case and round (default 0.2; mixed: 0.3)")
    parser.add_argument("--filter", default="", help="only cases whose name matches this regular expression")
    parser.add_argument("--baseline", help="the subject that ratios refer to")
    parser.add_argument("--real", action="store_true", help="no emulation: what the directory reports")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table, as in docs/BENCH.md")
    parser.add_argument("--plot", metavar="FOLDER", help="draw figures into this folder (sweep, tail)")
    parser.add_argument("--build", default=os.path.join(TOP, "build", "bench"), help="build directory")
    parser.add_argument("--no-build", action="store_true", help="take what is in the build directory")
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes: does it run at all?")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
                        help="passed to the program; --NAME VALUE does the same for names that are not here")
    arguments, others = parser.parse_known_args()
    for i in range(0, len(others), 2):
        if not others[i].startswith("--") or i + 1 == len(others):
            parser.error(f"unrecognized argument: {others[i]}")
        arguments.option.append(f"{others[i][2:]}={others[i + 1]}")
    rounds, min_time = PACE.get(arguments.program, (5, "0.2"))
    if arguments.smoke:
        rounds, min_time = 1, "0.001"
        arguments.option.append("smoke=1")
    arguments.rounds = arguments.rounds or rounds
    arguments.min_time = arguments.min_time or min_time
    return arguments


def quiet(command):
    done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        sys.exit(2)


def build(arguments, program):
    fresh = not os.path.isdir(os.path.join(arguments.build, "meson-private"))
    quiet(["meson", "setup"] + ([] if fresh else ["--reconfigure"]) +
          [arguments.build, "-Dbuildtype=release", "-Dbench=true", "-Dtests=false", "-Dexamples=false", "-Dtools=false"])
    quiet(["ninja", "-C", arguments.build, os.path.relpath(program, arguments.build), "bench/bench_count.so"])


def run(arguments, program, rounds, min_time, options, preload=None):
    environment = dict(os.environ)
    if not arguments.real:
        environment.update(PMEM2_FORCE_GRANULARITY="CACHE_LINE", PMEM_IS_PMEM_FORCE="1")
    if preload:
        environment["LD_PRELOAD"] = preload
    # Room to load jemalloc, which wants static thread-local storage, beside the subjects.
    environment.setdefault("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=32768")
    command = [program, f"--dir={arguments.dir}", f"--benchmark_repetitions={rounds}",
               "--benchmark_enable_random_interleaving=true", f"--benchmark_min_time={min_time}",
               "--benchmark_format=json"] + [f"--{option}" for option in options]
    if arguments.filter:
        command.append(f"--benchmark_filter={arguments.filter}")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return fold(json.loads(done.stdout[done.stdout.index("{"):]))


def count_baseline(arguments, program, table):
    """libpmemobj's fences and lines, from a run of their own: counting costs time."""
    counted = run(arguments, program, 1, "0.02", arguments.option + ["subjects=pmemobj"],
                  os.path.join(arguments.build, "bench", "bench_count.so"))
    for key, cells in counted.items():
        if "pmemobj" in cells and "pmemobj" in table.get(key, {}):
            table[key]["pmemobj"]["counters"] = cells["pmemobj"]["counters"]


def fold(report):
    """{(case, threads): {subject: row}}: the minimum over the rounds for times, also those among the counters; the last round's
    other counters. A number before a counter's name is there for the order only."""
    usual = {"name", "run_name", "run_type", "repetitions", "repetition_index", "threads", "iterations", "real_time",
             "cpu_time", "time_unit", "family_index", "per_family_instance_index", "error_occurred", "error_message"}
    table = {}
    for row in sorted(report["benchmarks"], key=lambda row: row.get("family_index", 0)):
        match = NAME.match(row["run_name"])
        if row["run_type"] != "iteration" or not match:
            continue
        key = (match["case"], int(match["threads"]))
        cell = table.setdefault(key, {}).setdefault(match["subject"], {"cpu_ns": [], "wall_ns": [], "counters": {}})
        if row.get("error_occurred"):
            cell["error"] = row.get("error_message", "failed")
            continue
        cell["cpu_ns"].append(row["cpu_time"])
        cell["wall_ns"].append(row["real_time"])
        for name in sorted(set(row) - usual):
            value, name = row[name], re.sub(r"^\d+ ", "", name)
            if name.endswith((" ms", " us", " ns")):
                value = min(value, cell["counters"].get(name, value))
            cell["counters"][name] = value
    for cells in table.values():
        for cell in cells.values():
            for clock in ("cpu_ns", "wall_ns"):
                rounds = sorted(cell[clock])
                cell[clock] = rounds[0] if rounds else None
                cell[clock.replace("_ns", "_median_ns")] = rounds[len(rounds) // 2] if rounds else None
    return table


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def print_grid(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for index, row in enumerate(rows):
        print("  ".join(text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths))))
        if index == 0:
            print("  ".join("-" * w for w in widths))


def print_markdown(rows):
    """Rows of one case, which differ in the number of threads, become one: "1 / 2 / 8"."""
    merged = {}
    for row in rows[1:]:
        merged.setdefault(row[0], []).append(row)
    print("| " + " | ".join(rows[0]) + " |")
    print("|---" * len(rows[0]) + "|")
    for case, group in merged.items():
        print("| " + " | ".join([case] + [" / ".join(row[i] for row in group) for i in range(1, len(rows[0]))]) + " |")


def cell_counters(cells, subject):
    return cells.get(subject, {}).get("counters", {})


def comparison(table, baseline):
    """The table's rows: one per case and number of threads."""
    subjects = list(dict.fromkeys(s for cells in table.values() for s in cells))
    others = [s for s in subjects if s not in (OURS, baseline)]
    counters = [(s, name) for s in (OURS, baseline)
                for name in sorted({name for cells in table.values() for name in cell_counters(cells, s)})]
    rows = [["CPU ns per operation", "threads", OURS, baseline, "ratio"] + others +
            [name if s == OURS else f"{s} {name}" for s, name in counters] + [f"{OURS} M/s", f"{baseline} M/s"]]
    for (case, threads), cells in table.items():
        cpu = {s: cells.get(s, {}).get("cpu_ns") for s in subjects + [baseline]}
        wall = {s: cells.get(s, {}).get("wall_ns") for s in subjects + [baseline]}
        ratio = cpu[OURS] / cpu[baseline] if cpu.get(OURS) and cpu.get(baseline) else None
        rows.append([case, str(threads), number(cpu.get(OURS), 1), number(cpu.get(baseline), 1), number(ratio, 3)] +
                    [number(cpu.get(s), 1) for s in others] +
                    [number(cell_counters(cells, s).get(name), 3) for s, name in counters] +
                    [number(1e3 / wall[s] if wall.get(s) else None, 3) for s in (OURS, baseline)])
    return rows


def read_histograms(folder):
    """{case: [(ns, calls), ...]} of the files that the program left."""
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            found[name] = [tuple(map(float, line.split())) for line in f]
    return found


def size_text(size):
    for unit, shift in (("MiB", 20), ("KiB", 10)):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size:,} B"


def name_sizes(table):
    """window/65536 -> window 64 KiB, window rows first."""
    rows = sorted(table.items(), key=lambda row: (row[0][0].split("/")[0] != "window", int(row[0][0].split("/")[1])))
    return {(f"{case.split('/')[0]} {size_text(int(case.split('/')[1]))}", threads): cells for (case, threads), cells in rows}


def add_ratio(table, ratio):
    name, above, below = ratio
    for cells in table.values():
        for cell in cells.values():
            values = cell["counters"]
            if values.get(below):
                values[name] = values[above] / values[below]


def digits(value):
    return number(value, 0 if value is None or abs(value) >= 1000 or value == int(value) else 1 if abs(value) >= 100 else 3)


def values(table, transposed):
    """The table's rows: one per case, a column per counter; or the other way round."""
    names = list(dict.fromkeys(name for cells in table.values() for cell in cells.values() for name in cell["counters"]))
    rows = [[""] + names]
    for (case, _), cells in table.items():
        for subject, cell in cells.items():
            label = case if len(cells) == 1 else f"{subject} {case}"
            rows.append([label] + [digits(cell["counters"].get(name)) for name in names])
    return [list(column) for column in zip(*rows)] if transposed else rows


def show_errors(table):
    for (case, threads), cells in table.items():
        for subject, cell in cells.items():
            if "error" in cell:
                print(f"{subject}/{case}, {threads} threads: {cell['error']}")


def show_scaling(table):
    for case in dict.fromkeys(case for case, _ in table):
        two, eight = (table.get((case, n), {}).get(OURS, {}).get("wall_ns") for n in (2, 8))
        if two and eight:
            print(f"{case}: throughput of 8 threads / 2 threads = {two / eight:.2f}")


def has_errors(table):
    return any("error" in cell for cells in table.values() for cell in cells.values())


def main():
    arguments = parse_arguments()
    program = os.path.join(arguments.build, f"bench/bench_{arguments.program}")
    if not arguments.no_build:
        build(arguments, program)
    with tempfile.TemporaryDirectory() as folder:
        table = run(arguments, program, arguments.rounds, arguments.min_time, arguments.option + [f"histograms={folder}"])
        if arguments.plot and arguments.program == "tail":
            plot.tail(arguments.plot, read_histograms(folder))
    if arguments.plot and arguments.program == "sweep":
        plot.sweep(arguments.plot, table)
    baseline = arguments.baseline or BASELINES.get(arguments.program, "")
    if baseline == "pmemobj" and any("pmemobj" in cells for cells in table.values()):
        count_baseline(arguments, program, table)
    if arguments.program == "sweep":
        table = name_sizes(table)
    if arguments.program in RATIOS:
        for ratio in RATIOS[arguments.program]:
            add_ratio(table, ratio)
    if arguments.json:
        rows = [{"case": case, "threads": threads, "subject": subject, **cell}
                for (case, threads), cells in table.items() for subject, cell in cells.items()]
        print(json.dumps({"program": arguments.program, "baseline": baseline, "emulated": not arguments.real,
                          "machine": platform.machine(), "cpus": os.cpu_count(), "results": rows}, indent=1))
    else:
        mode = "as the directory reports" if arguments.real else "emulated cache-line media"
        print(f"{os.cpu_count()} cpus, {arguments.dir}, {mode}, minimum of {arguments.rounds} rounds\n")
        measures = arguments.program in MEASURES
        rows = values(table, MEASURES[arguments.program]) if measures else comparison(table, baseline)
        (print_markdown if arguments.markdown else print_grid)(rows)
        print()
        show_errors(table)
        show_scaling(table)
    sys.exit(1 if has_errors(table) else 0)


if __name__ == "__main__":
    main()
