#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# test_demo.sh KV-TABLE KV...: each engine of the demo, on a small list: loaded, killed, reopened, verified; bad input refused.
set -eu
table=$1
shift
dir=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)")
trap 'rm -rf "$dir"' EXIT
export PMEM2_FORCE_GRANULARITY=CACHE_LINE PMEM_IS_PMEM_FORCE=1

# 3,000 files' sums; some keys twice, where the last line counts; lines that are no sums.
for i in $(seq 3000); do
    printf '%08x%024x  a/path/to/file/%d\n' $((i * 2654435761 % 4294967296)) "$i" "$i"
done >"$dir/list"
head -n 200 "$dir/list" | sed 's|a/path|another/path|' >"$dir/more"
printf 'no sum\n\n0123  short\n\\00000000000000ffffffffffffffffff *a\\\\nb' >>"$dir/more"

expect()
{
    local status=$1 got=0
    shift
    "$@" >"$dir/out" 2>&1 || got=$?
    if [ $got -ne "$status" ]; then
        cat "$dir/out"
        echo "expected exit code $status, got $got: $*"
        exit 1
    fi
}

for kv; do
    "$kv" --dir "$dir" --data "$dir/list" --data "$dir/more" --threads 3 --kills 3 --json >"$dir/result.json"
    for field in '"ok": true' '"lines": 3201' '"records": 3001' '"kills": 3' '"leaked": 0' '"damaged": 0' '"skipped_lines": 2'; do
        grep -q "$field" "$dir/result.json" || { cat "$dir/result.json"; echo "$kv: no $field"; exit 1; }
    done
    expect 0 "$table" "$dir/result.json"
    grep -q verified "$dir/out"
    expect 2 "$kv" --data "$dir/missing"
    expect 2 "$kv" --data /dev/null
    expect 2 "$kv" --threads 0
    expect 2 "$kv" --dir "$dir/missing" --data "$dir/list"
    expect 0 "$kv" --help
done
# What the runs made they took away.
[ -z "$(find "$dir" -name 'kv-*')" ]

# A failed run fails the table.
sed 's/"ok": true/"ok": false/' "$dir/result.json" >"$dir/failed.json"
expect 1 "$table" "$dir/result.json" "$dir/failed.json"
expect 2 "$table" "$dir/list"
