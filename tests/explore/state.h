/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * state.h -- which crash states of an image are looked at, and their names.
 *
 * A code names one choice of an image. The lines are numbered in the order of image.lines:
 *   n        nothing that is pending was kept          a        everything
 *   lI       line I alone, wholly                      bI       all but line I
 *   pI.K     K stores of line I, nothing else          qI.K     K stores of line I, all of the others
 *   dI.J     lines I and J                             eI.J     all but I and J
 *   xN.O     combination N of the recent lines' prefixes (mixed radix), the older lines none (O = 0), all (1) or random (2..)
 *   k        everything, because only the process died; the next crash may still lose what was pending
 *   rN       random, seeded by N                       vI=K,... line I with K stores, ..., nothing else
 * followed by fN: combination N of the file choices (mixed radix); absent = 0, "none happened".
 */
#ifndef TESTS_EXPLORE_STATE_H
#define TESTS_EXPLORE_STATE_H

#include "tests/explore/image.h"

#define STATE_TEXT_MAX 1024u

struct state_code {
    char kind;
    uint64_t a;
    uint32_t b;
    uint32_t files;
};

struct state_limits {
    uint32_t singles;    /* lines looked at one by one; sampled when there are more */
    uint32_t pairs;      /* all pairs while there are at most so many lines */
    uint32_t exhaustive; /* all combinations of recent lines' prefixes while there are at most so many */
    uint32_t random;     /* random subsets */
    uint32_t files;      /* all file combinations while there are at most so many */
    uint32_t kills;      /* at one point in so many the process alone dies; 0 = never */
    uint32_t name_kills; /* also at one in so many of those where names or sizes are pending; 0 = 1 */
};

/** Where the codes are used: the image, and what was touched by the operations in flight. */
struct state_space {
    const struct image *image;
    uint32_t recent_event; /* a line is recent if its last store is this event or later */
    uint64_t seed;         /* of the random choices at this point */
    struct state_limits limits;
    /* set by state_space_init */
    uint32_t *order; /* line indices, most recently stored first */
    size_t count, recent;
    uint64_t product; /* of the recent lines' prefix counts; saturated */
    uint64_t file_product;
};
void state_space_init(struct state_space *s, const struct image *image, uint32_t recent_event, uint64_t seed,
                      const struct state_limits *limits);
void state_space_fini(struct state_space *s);
/** Call visit for each code worth a look, with its choice; its non-zero value stops the walk and is returned. round selects
 *  the random ones: another round, other random subsets and nothing else. */
int state_space_walk(struct state_space *s, unsigned round,
                     int (*visit)(void *arg, const struct state_code *code, const struct choice *c), void *arg);
/** The choice that a code names. False if the code does not fit the image. */
bool state_decode(const struct state_space *s, const struct state_code *code, struct choice *ret);
void state_format(const struct state_code *code, char *text, size_t size);
bool state_is_kill(const char *text);
/** A choice written out line by line (kind v). */
void state_format_choice(const struct image *image, const struct choice *c, char *text, size_t size);
/** The choice named by a text of any kind, v included. */
bool state_parse(const struct state_space *s, const char *text, struct choice *ret);

uint64_t random_next(uint64_t *state);

#endif
