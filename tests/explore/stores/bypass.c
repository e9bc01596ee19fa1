/* SPDX-License-Identifier: BSD-3-Clause */
/* bypass.c -- see bypass.h. */
#include "tests/explore/stores/bypass.h"

static void store_word(const struct media *m, void *line)
{
    (void)m;
    *(volatile uint64_t *)line = 1;
}

static void store_byte(const struct media *m, void *line)
{
    (void)m;
    ((volatile char *)line)[17] = 1;
}

static void store_atomically(const struct media *m, void *line)
{
    (void)m;
    __atomic_fetch_add((uint64_t *)line, 1, __ATOMIC_RELAXED);
}

static void copy(const struct media *m, void *line)
{
    static const char source[40] = "some bytes";
    (void)m;
    memcpy((char *)line + 8, source, sizeof source);
}

static void set(const struct media *m, void *line)
{
    (void)m;
    memset(line, 0x5a, 64);
}

struct whole {
    uint64_t words[8];
};

static void assign(const struct media *m, void *line)
{
    struct whole w = {{(uint64_t)(uintptr_t)m, 2, 3}};
    *(struct whole *)line = w;
}

/* One word more than what is announced. */
static void store_beside(const struct media *m, void *line)
{
    uint64_t *words = line;
    words[3] = 7;
    media_store64(m, &words[2], 7);
}

static void store_rightly(const struct media *m, void *line)
{
    struct media_tally t = {0};
    uint64_t *words = line;
    media_store64(m, &words[0], 1);
    media_set(m, &words[1], 1, 16);
    media_write(m, &words[4], "0123456789", 10);
    media_persist(m, &t, line, 64);
}

const struct bypass bypasses[] = {
    {"a word", store_word, false},
    {"a byte", store_byte, false},
    {"an atomic addition", store_atomically, false},
    {"memcpy", copy, false},
    {"memset", set, false},
    {"a structure", assign, false},
    {"a word beside the announced one", store_beside, false},
    {"the helpers", store_rightly, true},
};
const unsigned bypasses_count = sizeof bypasses / sizeof *bypasses;
