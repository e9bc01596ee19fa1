/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_limit_fault.c -- the process's real limits of descriptors, file size and address space, in every scenario
 * (tests/fault/run.h), from the strictest until all works.
 */
#include "tests/fault/run.h"

int main(int argc, char **argv)
{
    return fault_main(argc, argv, "limit_fault", FAULT_LIMIT);
}
