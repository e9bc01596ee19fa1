#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# test_tool.sh PALLOCATOR LIBRARY: the command-line tool: every subcommand, exit codes, JSON, a broken and a busy pool.
set -eu
tool=$1 library=$2
base=/dev/shm # where a persist costs nothing
[ -w $base ] || base=${TMPDIR:-/tmp}
dir=$(mktemp -d "$base/pallocator-test.XXXXXX")
trap 'rm -rf "$dir"' EXIT
unset PMEM2_FORCE_GRANULARITY
export LC_ALL=C

# expect CODE COMMAND...: runs it, output to $dir/out and $dir/err; shows both if the exit code is another.
expect()
{
    local wanted=$1 code=0
    shift
    "$@" >"$dir/out" 2>"$dir/err" || code=$?
    [ "$code" -eq "$wanted" ] || {
        echo "exit code $code, not $wanted: $*"
        cat "$dir/out" "$dir/err"
        exit 1
    }
}
# has FILE TEXT
has()
{
    grep -qF -- "$2" "$dir/$1" || {
        echo "$1 lacks \"$2\":"
        cat "$dir/$1"
        exit 1
    }
}
# json EXPRESSION: the output is one JSON value, r, for which the expression holds.
json()
{
    python3 -m json.tool <"$dir/out" >/dev/null
    python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))
sys.exit(0 if eval(sys.argv[2]) else f"not so: {sys.argv[2]}: {r}")' "$dir/out" "$1"
}
# use POOL CODE: run Python with the pool open; allocate(i, size) and free(i) use owner i of 1,000 in the root.
use()
{
    python3 - "$library" "$1" "$2" <<'PYTHON'
import ctypes, subprocess, sys

lib = ctypes.CDLL(sys.argv[1])


class Pptr(ctypes.Structure):
    _fields_ = [("segment", ctypes.c_uint64), ("offset", ctypes.c_uint64)]


lib.pa_errormsg.restype = ctypes.c_char_p
lib.pa_direct.restype = ctypes.c_void_p
lib.pa_direct.argtypes = [ctypes.c_void_p, Pptr]
lib.pa_root.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
lib.pa_allocate.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
lib.pa_deallocate.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
lib.pa_close.argtypes = [ctypes.c_void_p]


def good(code):
    if code != 0:
        sys.exit(lib.pa_errormsg().decode())


pool, root = ctypes.c_void_p(), Pptr()
good(lib.pa_open(sys.argv[2].encode(), None, ctypes.byref(pool)))
good(lib.pa_root(pool, 16000, ctypes.byref(root)))
owners = lib.pa_direct(pool, root)


def allocate(i, size):
    good(lib.pa_allocate(pool, owners + 16 * i, size))
    ctypes.memset(lib.pa_direct(pool, Pptr.from_address(owners + 16 * i)), 1, size)


def free(i):
    good(lib.pa_deallocate(pool, owners + 16 * i))


exec(sys.argv[3])
good(lib.pa_close(pool))
PYTHON
}

# The program itself.
expect 2 "$tool"
expect 0 "$tool" --help
expect 0 "$tool" --version
expect 2 "$tool" frobnicate
has err frobnicate
for command in create info check stats map defrag bench; do
    expect 0 "$tool" $command --help
    has out "pallocator $command"
    expect 0 "$tool" help $command
    expect 2 "$tool" $command --frobnicate
    expect 2 "$tool" $command --json "$dir/none" too many
    json 'r["ok"] is False and r["error"]'
done
for command in create info check stats map defrag; do
    expect 2 "$tool" $command
    has err "directory is missing"
done
for command in info check stats map "defrag --target 1"; do
    # shellcheck disable=SC2086
    expect 2 "$tool" $command "$dir/none" --json
    json 'r["ok"] is False and "none" in r["error"]'
done
expect 2 "$tool" info /dev/null

# create, and the suffixes of sizes
pool=$dir/pool
expect 2 "$tool" create "$pool" --segment-size 3M
has err "power of two"
for size in 1Q K -1 1Kx 99999999999999999999 17179869184G; do
    expect 2 "$tool" create "$pool" --segment-size=$size
    has err "is not a size"
done
expect 2 "$tool" create "$pool" --durability sometimes
[ ! -e "$pool" ]
expect 0 "$tool" create "$pool" --segment-size 1M --max-size 64MiB --layout test --durability process --json
json 'r["ok"] is True'
expect 2 "$tool" create "$pool"
has err "holds a pool already"
expect 0 "$tool" create "$dir/sparse" --segment-size 1024k --sparse
has out created

# info
expect 0 "$tool" info "$pool"
has out "1.0 MiB"
expect 0 "$tool" info --json "$pool" --layout test
json 'r["segment_size"] == 1 << 20 and [f["name"] for f in r["files"]] == ["pool.pa"]'
json 'r["format_version"] >= 1 and r["layout"] == "test" and r["max_size"] == 64 << 20 and r["guarantee"] == "strict"'
json 'r["persistence"] == "process" and len(r["uuid"]) == 36 and r["sparse"] is False and r["lanes"] >= 8'
expect 0 "$tool" info --json "$dir/sparse"
json 'r["sparse"] is True and r["layout"] == "" and r["max_size"] == 0'
expect 2 "$tool" info --json "$pool" --layout other
json 'r["code"] == "PA_ELAYOUT"'

# stats: 600 small blocks of 1 KiB, 4 of 200 KiB, one of 20 MiB in a file of its own, and the root
use "$pool" 'for i in range(600): allocate(i, 1024)
for i in range(600, 604): allocate(i, 200 << 10)
allocate(604, 20 << 20)'
expect 0 "$tool" stats "$pool"
has out "allocated blocks"
expect 0 "$tool" stats --json "$pool"
json 'r["stats"]["allocated_blocks"] == 606 and r["stats"]["segment_files"] >= 2 and r["stats"]["huge_files"] == 1'

# map
expect 0 "$tool" map "$pool"
has out segment-
has out huge-
has out "#"
[ "$(grep -c $'\033' "$dir/out")" -eq 0 ]
expect 0 "$tool" map "$pool" --json --cells 64
json 'all(len(f["cells"]) == len(f["cell_used_bytes"]) == 64 for f in r["files"])'
json 'sum(f["blocks"] for f in r["files"]) == r["stats"]["allocated_blocks"]'
json 'sum(sum(f["cell_used_bytes"]) for f in r["files"]) == r["stats"]["allocated_bytes"]'
json 'all(f["cells"][0] == "mfu"[["pool", "segment", "huge"].index(f["name"][:-3].split("-")[0])] for f in r["files"])'
expect 0 "$tool" map "$pool" --svg "$dir/map.svg"
python3 -c 'import sys, xml.dom.minidom as m; sys.exit(len(m.parse(sys.argv[1]).getElementsByTagName("rect")) < 20)' "$dir/map.svg"
expect 2 "$tool" map "$pool" --svg "$dir/none/map.svg"
has err "cannot write"
expect 2 "$tool" map "$pool" --cells 99999
expect 2 "$tool" map "$pool" --cells 0
if command -v script >/dev/null; then
    TERM=xterm script -qec "$tool map $pool" /dev/null </dev/null >"$dir/out"
    has out $'\033[36m'
    NO_COLOR=1 TERM=xterm script -qec "$tool map $pool" /dev/null </dev/null >"$dir/out"
    [ "$(grep -c $'\033' "$dir/out")" -eq 0 ]
fi

# defrag
expect 2 "$tool" defrag "$pool"
has err "--target"
use "$pool" 'for i in range(600, 604): free(i)'
expect 0 "$tool" defrag "$pool" --target 1 --json
json 'r["released_bytes"] >= 1'
expect 0 "$tool" defrag "$pool" --target all
has out "gave"
expect 0 "$tool" stats --json "$pool"
json 'r["stats"]["allocated_blocks"] == 602'

# check
expect 0 "$tool" check "$pool"
has out sound
expect 0 "$tool" check "$pool" --json
json 'r["sound"] is True and r["findings"] == [] and r["notes"] == []'
cp -r "$pool" "$dir/stray"
cp "$(find "$dir/stray" -name 'segment-*' | head -n 1)" "$dir/stray/segment-0000002f.pa"
expect 0 "$tool" check "$dir/stray" --json
json 'r["sound"] is True and "0000002f" in r["notes"][0]'

# A broken pool: 1 from everything that looks at it.
cp -r "$pool" "$dir/broken"
broken=$(find "$dir/broken" -name 'segment-*' | sort | head -n 1)
printf 'XXXXXXXX' | dd of="$broken" bs=1 seek=0 conv=notrunc status=none
expect 1 "$tool" check "$dir/broken"
has out "${broken##*/}"
expect 1 "$tool" check "$dir/broken" --json
json 'r["sound"] is False and "segment" in r["findings"][0]'
for command in info stats map "defrag --target 1M"; do
    # shellcheck disable=SC2086
    expect 1 "$tool" $command "$dir/broken" --json
    json 'r["code"] == "PA_ECORRUPT"'
done

# check --repair: the header of the broken one is rebuilt, and a copy kept; then a pool that nothing can be done for.
expect 2 "$tool" check "$dir/broken" --backup "$dir/kept"
has err "--repair"
expect 0 "$tool" check "$dir/broken" --repair --backup "$dir/kept" --json
json 'r["ok"] is True and r["sound"] is True and len(r["findings"]) == 1 and len(r["repaired"]) == 1 and r["refused"] == []'
json '"segment" in r["repaired"][0] and "kept" in r["notes"][0]'
[ "$(head -c 8 "$dir"/kept/repair-*/segment-*)" = XXXXXXXX ]
expect 0 "$tool" check "$dir/broken"
expect 0 "$tool" check "$dir/broken" --repair
[ "$(find "$dir/kept" "$dir/broken" -name 'repair-*' | wc -l)" -eq 1 ]
expect 0 "$tool" check "$dir/stray" --repair
has out "moved away"
[ -e "$(echo "$dir"/stray/repair-*/segment-0000002f.pa)" ]
cp -r "$pool" "$dir/hopeless"
rm "$(find "$dir/hopeless" -name 'segment-*' | sort | head -n 1)"
before=$(cat "$dir"/hopeless/* | cksum)
expect 1 "$tool" check "$dir/hopeless" --repair
has out "refused: segment-"
has err "nothing was changed"
expect 1 "$tool" check "$dir/hopeless" --repair --json
json 'r["sound"] is False and "missing" in r["refused"][0] and r["repaired"] == []'
[ "$(cat "$dir"/hopeless/* | cksum)" = "$before" ]
expect 2 "$tool" check "$dir/none" --repair --json
json 'r["ok"] is False'

# A busy pool: a clear sentence, and --wait.
use "$pool" "
for command in ['info', 'check', 'check --repair', 'stats', 'map', 'defrag --target 1']:
    run = subprocess.run(['$tool'] + command.split() + ['$pool', '--json'], capture_output=True, text=True)
    if run.returncode != 2 or 'PA_ELOCKED' not in run.stdout or 'open elsewhere' not in run.stderr:
        sys.exit(f'{command}: {run}')
waiting = subprocess.Popen(['$tool', 'stats', '--wait', '$pool'], stdout=subprocess.DEVNULL)
try:
    sys.exit(f'did not wait: {waiting.wait(0.3)}')
except subprocess.TimeoutExpired:
    good(lib.pa_close(pool))
    pool = None
if waiting.wait(30) != 0:
    sys.exit('--wait failed')
"

# bench takes its pool away again
mkdir "$dir/bench"
expect 0 "$tool" bench --dir "$dir/bench" --sizes 64,4K,100K --threads 1,2 --seconds 0.02
[ "$(wc -l <"$dir/out")" -eq 7 ]
expect 0 "$tool" bench --dir "$dir/bench" --sizes 64 --threads 1 --seconds 0.05 --emulate --json
json 'len(r["results"]) == 1 and 0 < r["results"][0]["fences_per_operation"] <= 2.6 and r["results"][0]["ns_per_pair"] > 0'
for wrong in "--sizes 0" "--sizes ," "--threads 1000000" "--seconds never" "--dir $dir/none"; do
    # shellcheck disable=SC2086
    expect 2 "$tool" bench $wrong
done
expect 2 "$tool" bench --dir "$dir/bench" --sizes 99999T --threads 1 --seconds 0.05
[ -z "$(ls "$dir/bench")" ]

# A result that cannot be written is a failure.
expect 2 sh -c "'$tool' stats '$pool' >/dev/full"
has err "cannot write the result"
