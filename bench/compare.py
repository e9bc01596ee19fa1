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

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The subject that ratios refer to, by program.
BASELINES = {"alloc": "pmemobj", "fptree": "lmdb"}
NAME = re.compile(r"^(?P<subject>[^/]+)/(?P<case>.+?)(?:/iterations:\d+)?/real_time/threads:(?P<threads>\d+)$")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", default="alloc")
    parser.add_argument("--dir", default="/dev/shm", help="where pools are made (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each case (default %(default)s)")
    parser.add_argument("--min-time", default="0.2", help="seconds per case and round (default %(default)s)")
    parser.add_argument("--filter", default="", help="only cases whose name matches this regular expression")
    parser.add_argument("--baseline", help="the subject that ratios refer to")
    parser.add_argument("--real", action="store_true", help="no emulation: what the directory reports")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--build", default=os.path.join(TOP, "build", "bench"), help="build directory")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="passed to the program")
    return parser.parse_args()


def quiet(command):
    done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        sys.exit(2)


def build(arguments):
    fresh = not os.path.isdir(os.path.join(arguments.build, "meson-private"))
    quiet(["meson", "setup"] + ([] if fresh else ["--reconfigure"]) +
          [arguments.build, "-Dbuildtype=release", "-Dbench=true", "-Dtests=false", "-Dexamples=false", "-Dtools=false"])
    program = f"bench/bench_{arguments.program}"
    quiet(["ninja", "-C", arguments.build, program])
    return os.path.join(arguments.build, program)


def run(arguments, program):
    environment = dict(os.environ)
    if not arguments.real:
        environment.update(PMEM2_FORCE_GRANULARITY="CACHE_LINE", PMEM_IS_PMEM_FORCE="1")
    # Room to load jemalloc, which wants static thread-local storage, beside the subjects.
    environment.setdefault("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=32768")
    command = [program, f"--dir={arguments.dir}", f"--benchmark_repetitions={arguments.rounds}",
               "--benchmark_enable_random_interleaving=true", f"--benchmark_min_time={arguments.min_time}",
               "--benchmark_format=json"] + [f"--{option}" for option in arguments.option]
    if arguments.filter:
        command.append(f"--benchmark_filter={arguments.filter}")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout[done.stdout.index("{"):])


def fold(report):
    """{(case, threads): {subject: row}}: the minimum over the rounds for times, the last round's counters."""
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
        for name in set(row) - usual:
            cell["counters"][name] = row[name]
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


def show(table, baseline):
    subjects = list(dict.fromkeys(s for cells in table.values() for s in cells))
    ours = "pallocator"
    others = [s for s in subjects if s not in (ours, baseline)]
    counters = sorted({name for cells in table.values() for name in cells.get(ours, {}).get("counters", {})})
    rows = [["CPU ns per operation", "threads", ours, baseline, "ratio"] + others + counters +
            [f"{ours} M/s", f"{baseline} M/s"]]
    for (case, threads), cells in table.items():
        cpu = {s: cells.get(s, {}).get("cpu_ns") for s in subjects + [baseline]}
        wall = {s: cells.get(s, {}).get("wall_ns") for s in subjects + [baseline]}
        ratio = cpu[ours] / cpu[baseline] if cpu.get(ours) and cpu.get(baseline) else None
        rows.append([case, str(threads), number(cpu.get(ours), 1), number(cpu.get(baseline), 1), number(ratio, 3)] +
                    [number(cpu.get(s), 1) for s in others] +
                    [number(cells.get(ours, {}).get("counters", {}).get(name), 3) for name in counters] +
                    [number(1e3 / wall[s] if wall.get(s) else None, 3) for s in (ours, baseline)])
    print_grid(rows)
    for (case, threads), cells in table.items():
        for subject, cell in cells.items():
            if "error" in cell:
                print(f"{subject}/{case}, {threads} threads: {cell['error']}")
    for case in dict.fromkeys(case for case, _ in table):
        two, eight = (table.get((case, n), {}).get(ours, {}).get("wall_ns") for n in (2, 8))
        if two and eight:
            print(f"{case}: throughput of 8 threads / 2 threads = {two / eight:.2f}")


def main():
    arguments = parse_arguments()
    report = run(arguments, build(arguments))
    table = fold(report)
    baseline = arguments.baseline or BASELINES.get(arguments.program, "")
    if arguments.json:
        rows = [{"case": case, "threads": threads, "subject": subject, **cell}
                for (case, threads), cells in table.items() for subject, cell in cells.items()]
        print(json.dumps({"program": arguments.program, "baseline": baseline, "emulated": not arguments.real,
                          "machine": platform.machine(), "cpus": os.cpu_count(), "results": rows}, indent=1))
        return
    mode = "as the directory reports" if arguments.real else "emulated cache-line media"
    print(f"{os.cpu_count()} cpus, {arguments.dir}, {mode}, minimum of {arguments.rounds} rounds")
    show(table, baseline)


if __name__ == "__main__":
    main()
