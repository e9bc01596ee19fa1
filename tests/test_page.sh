#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# test_page.sh DIR REAL_MEDIA MODEL KILL: the library on an ordinary directory, where libpmem2 reports page granularity and every
# write-back is an msync. Skipped (exit code 77) if DIR is on tmpfs, where nothing outlives the machine.
set -u
parent=$1 real_media=$2 model=$3 kill=$4
kind=$(stat -f -c %T "$parent")
case $kind in
tmpfs | ramfs)
    echo "skipped: $parent is on $kind; build elsewhere to test page granularity"
    exit 77
    ;;
esac
unset PMEM2_FORCE_GRANULARITY
dir=$(mktemp -d "$parent/page-test.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
export PA_TEST_DIR=$dir PA_TEST_EXPECTED=2 PA_TEST_REAL_MEDIA=1
failed=0
# A disk's msync takes from microseconds to many milliseconds, so there is little work, and much time for it.
export CK_TIMEOUT_MULTIPLIER=$((${CK_TIMEOUT_MULTIPLIER:-1} * 5))
"$real_media" || failed=1
CK_RUN_CASE=four_threads_agree_with_the_model "$model" --operations=600 || failed=1
CK_RUN_CASE=kill_9_loses_nothing_and_leaks_nothing "$kill" --cycles=6 --milliseconds=300 || failed=1
exit $failed
