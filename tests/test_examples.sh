#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# test_examples.sh HELLO OWNER_LIST: the small examples do what their comments say, crash included.
set -eu
hello=$1 owner_list=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
ulimit -c 0

# hello dies in its first run and finds its block in the second.
if "$hello" "$dir/hello" 2>/dev/null; then
    echo "hello did not crash in its first run" && exit 1
fi
[ "$("$hello" "$dir/hello")" = "hello again" ]

# A push that dies in the middle leaves no word and no block behind.
"$owner_list" "$dir/list" push one
"$owner_list" "$dir/list" push two
if "$owner_list" "$dir/list" crash three 2>/dev/null; then
    echo "owner_list crash did not crash" && exit 1
fi
[ "$("$owner_list" "$dir/list" show)" = "two
one
3 blocks, the root included" ]
[ "$("$owner_list" "$dir/list" pop)" = two ]
[ "$("$owner_list" "$dir/list" pop)" = one ]
[ "$("$owner_list" "$dir/list" show)" = "1 blocks, the root included" ]
