#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# memcheck.sh BLOCKS [MODE...]: each mistake that BLOCKS makes with a block is reported by memcheck, once and as what it is; a program
# without mistakes, and the library itself, give no report. Skipped (exit code 77) without valgrind.
set -u
blocks=$1
shift
command -v valgrind >/dev/null || { echo "skipped: there is no valgrind"; exit 77; }
dir=$(mktemp -d "${PA_TEST_DIR:-/dev/shm}/valgrind-test.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0

# run NAME MODE: memcheck's report is in $dir/NAME.
run()
{
    rm -rf "$dir/pool"
    valgrind --tool=memcheck --leak-check=full --log-file="$dir/$1" "$blocks" "$2" "$dir/pool"
}

fail()
{
    echo "FAILED $1: $2"
    cat "$dir/$1"
    failed=1
}

# clean NAME: no report, and nothing lost.
clean()
{
    run "$1" clean || fail "$1" "exit code $?"
    if grep -q 'ERROR SUMMARY: 0 errors' "$dir/$1" && ! grep -q 'definitely lost: [1-9]' "$dir/$1"; then
        echo "passed $1"
    else
        fail "$1" "memcheck has complaints"
    fi
}

# mistake MODE WHAT FUNCTION: just one report, WHAT, made in FUNCTION.
mistake()
{
    run "$1" "$1" || fail "$1" "exit code $?"
    if grep -q 'ERROR SUMMARY: 1 errors' "$dir/$1" && grep -A 1 "$2" "$dir/$1" | grep -q "$3 (blocks.c"; then
        echo "passed $1"
    else
        fail "$1" "not the one report of '$2' in $3"
    fi
}

# lost MODE BLOCKS: that many blocks are reported as lost when the pool is closed.
lost()
{
    run "$1" "$1" || fail "$1" "exit code $?"
    if grep -q "ERROR SUMMARY: $2 errors from 1 contexts" "$dir/$1" && grep -q "bytes in $2 blocks are lost in the pool" "$dir/$1" &&
        [ "$(grep -c 'nothing in the pool points to it' "$dir/$1")" = "$2" ]; then
        echo "passed $1"
    else
        fail "$1" "not $2 lost blocks"
    fi
}

unset PMEM2_FORCE_GRANULARITY
PMEM2_FORCE_GRANULARITY=CACHE_LINE clean clean
PMEM2_FORCE_GRANULARITY=PAGE clean clean-msync
mistake use-after-free 'Invalid read of size' use_after_free
mistake use-after-free-big 'Invalid read of size' use_after_free
mistake overrun 'Invalid write of size' overrun
mistake overrun-big 'Invalid write of size' overrun_into_freed
mistake overrun-asked 'Invalid write of size' overrun_asked
mistake overrun-asked-after-resize 'Invalid write of size' overrun_asked_after_resize
lost lose-list 3
lost lose-child 1
mistake use-after-move 'Invalid read of size' use_after_move
mistake use-after-shrink 'Invalid read of size' use_after_shrink
mistake uninitialised 'depends on uninitialised value' uninitialised
exit $failed
