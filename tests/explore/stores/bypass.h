/* SPDX-License-Identifier: BSD-3-Clause */
/* bypass.h -- stores past the helpers, compiled as the library is: each must be seen. */
#ifndef TESTS_EXPLORE_STORES_BYPASS_H
#define TESTS_EXPLORE_STORES_BYPASS_H

#include "pmem/media.h"

struct bypass {
    const char *what;
    void (*store)(const struct media *m, void *line); /* 64 bytes that nobody uses */
    bool allowed;                                     /* it goes through the helpers after all */
};
extern const struct bypass bypasses[];
extern const unsigned bypasses_count;

#endif
