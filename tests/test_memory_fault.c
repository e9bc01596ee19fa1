/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_memory_fault.c -- every allocation of memory fails in turn (tests/fault/run.h).
 *
 * Whatever the library answers, the answer is honest; what failed has changed nothing; the same again without the fault works, and
 * so does a crash at that moment.
 */
#include "tests/fault/run.h"

int main(int argc, char **argv)
{
    return fault_main(argc, argv, "memory_fault", FAULT_MEMORY);
}
