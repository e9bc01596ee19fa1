# SPDX-License-Identifier: BSD-3-Clause
"""Only pmem/ writes back, fences, stores around the caches, calls libpmem2 or makes file system calls."""

import re

import tree

INSTRUCTIONS = re.compile(
    r"\b(_mm_clwb|_mm_clflush\w*|_mm_sfence|_mm_mfence|_mm\d*_stream_\w+|__builtin_nontemporal_store|"
    r"__builtin_ia32_(?:sfence|mfence|clwb|clflush\w*|movnt\w+)|pmem2?_\w+|PMEM2_\w+)\b")
ASSEMBLY = re.compile(r"\b(clwb|clflush|clflushopt|sfence|mfence|movnt\w*|dc\s+cv\w+)\b")
FILE_CALLS = re.compile(
    r"\b(open|openat|creat|mmap|munmap|msync|fsync|fdatasync|fallocate|posix_fallocate|ftruncate|truncate|unlink|"
    r"unlinkat|rename|renameat|mkdir|mkdirat|flock|fopen|pread|pwrite|opendir|fdopendir)\s*\(")
# The inside of the library. Tests drive the seam from outside, examples and benchmarks also use libpmemobj.
GUARDED = [folder for folder in tree.LAYERS if folder != "pmem"]


def main():
    top = tree.root()
    findings, checked = [], 0
    for path in tree.files(top, (".c", ".h", ".hpp")):
        if path.split("/")[0] not in GUARDED:
            continue
        checked += 1
        raw = tree.lines(top, path)
        for number, line in tree.code_lines(top, path):
            found = INSTRUCTIONS.search(line) or FILE_CALLS.search(line)
            if not found and "asm" in line:
                found = ASSEMBLY.search(raw[number - 1])
            if found:
                findings.append(f"{path}:{number}: {found.group(1)} belongs behind pmem/media.h or pmem/file.h")
            if "libpmem2.h" in raw[number - 1] and "#include" in line:
                findings.append(f"{path}:{number}: libpmem2.h is included by pmem/ only")
    tree.finish(findings, checked)


if __name__ == "__main__":
    main()
