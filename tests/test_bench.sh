#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# test_bench.sh COMPARE BUILD PROGRAM...: each benchmark runs, briefly, on every subject, and reports what its table shows.
set -eu
compare=$1 build=$2
shift 2
base=/dev/shm
[ -w $base ] || base=${TMPDIR:-/tmp}
dir=$(mktemp -d "$base/pallocator-test.XXXXXX")
trap 'rm -rf "$dir"' EXIT

fail()
{
    cat "$dir/out"
    echo "$*"
    exit 1
}

for program; do
    python3 "$compare" "$program" --build "$build" --no-build --smoke --dir "$dir" --json \
        --plot "$dir/figures" --option keys=3000 >"$dir/out" || fail "$program failed"
    case $program in
    alloc | mixed) fields=(pallocator pmemobj jemalloc glibc fences lines) ;;
    fptree) fields=(pallocator lmdb fences lines) ;;
    sweep) fields=(pallocator pmemobj jemalloc fences 'window 64 KiB' 'pair 16 MiB') ;;
    tail) fields=('median ns' '99 ns' 'maximum ns' 'clock ns') ;;
    fragmentation) fields=('returned %' 'held / live after' 'new segments') ;;
    open) fields=('total ms' 'bare ms' 'total / bare') ;;
    *) fail "no expectations for $program" ;;
    esac
    for field in "${fields[@]}"; do
        grep -q "\"$field\"" "$dir/out" || fail "$program: no $field"
    done
    case $program in
    sweep | tail) grep -q '</svg>' "$dir/figures/$program"*.svg || fail "$program: no figure" ;;
    esac
    ! grep -q '"error"' "$dir/out" || fail "$program: a case failed"
done
