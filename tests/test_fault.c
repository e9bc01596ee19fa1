/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fault.c -- every file operation of the library fails in turn (tests/fault/run.h).
 *
 * Whatever the library answers, the answer is honest; what failed has changed nothing; the same again without the fault works, and
 * so does a crash at that moment.
 */
#include "tests/fault/run.h"

int main(int argc, char **argv)
{
    return fault_main(argc, argv, "fault", FAULT_FILE);
}
