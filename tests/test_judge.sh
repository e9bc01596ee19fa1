#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# test_judge.sh POWER_CUT: the judge of scripts/daxvm, natively: it passes what a killed process leaves, and sees what it must see: a
# promise that is not kept, a lost block, a leaked one, a changed byte, a stray file, a pool that is gone.
set -u
power_cut=$1
dir=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)")
trap 'rm -rf "$dir"' EXIT
export PMEM2_FORCE_GRANULARITY=CACHE_LINE
pool=$dir/pool

fail()
{
    echo "FAILED: $*"
    cat "$dir/out"
    exit 1
}
# judge CODE ACKED TEXT: the judge ends with CODE and says TEXT.
judge()
{
    "$power_cut" --dir="$pool" --acked="$2" >"$dir/out" 2>&1
    local got=$?
    [ $got -eq "$1" ] || fail "exit code $got instead of $1 for --acked=$2"
    grep -q "$3" "$dir/out" || fail "not said: $3"
}

acked="make"
for seed in 1 2 3 4 5 6; do
    "$power_cut" --dir="$pool" --acked="$acked" --cut=outside --seed=$seed >"$dir/out" 2>&1 &
    victim=$!
    for ((i = 0; i < 200; i++)); do
        ! grep -q '^@@ work' "$dir/out" || break
        sleep 0.05
    done
    sleep 0.1
    kill -9 $victim
    wait $victim 2>/dev/null
    ! grep '^@@ failed' "$dir/out" || exit 1
    acked=$(sed -n 's/^@@ acked \([0-9]*,[0-9]*,[0-9]*\)$/\1/p' "$dir/out" | tail -n 1)
    judge 0 "$acked" '^@@ verified [1-9]'
done
acked=$(sed -n 's/^@@ acked //p' "$dir/out")

judge 1 "$((${acked%%,*} + 1)),0,0" 'finished operations are missing'
cp -r "$pool" "$dir/good"
# wrong HOW TEXT: with the pool spoilt by power_cut --spoil=HOW the judge says TEXT.
wrong()
{
    rm -rf "$pool" && cp -r "$dir/good" "$pool"
    "$power_cut" --dir="$pool" --acked="$acked" --spoil="$1" >"$dir/out" 2>&1 || fail "--spoil=$1"
    judge 1 "$acked" "$2"
}
wrong byte 'which is not the block of'
wrong lose 'which is not the block of'
wrong leak 'has no owner'
wrong key 'instead of'
rm -rf "$pool" && cp -r "$dir/good" "$pool" && : >"$pool/stray"
judge 1 "$acked" 'stray\|files instead of'
rm -rf "$pool"
judge 1 "$acked" '@@ failed: opening'
judge 0 none '@@ unfinished'
echo "the judge sees what it must see"
