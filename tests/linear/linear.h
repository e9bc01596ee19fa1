/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * linear.h -- is a concurrent history of a map linearizable: is there an order of its calls, in which no call comes before one that
 * had returned before it was invoked, and in which each call gives what it gave?
 *
 * Keys are independent objects, so each key's history is judged alone. Calls that see several keys at one instant need one
 * object that has them all; an object here has at most LINEAR_KEYS keys.
 *
 * The search follows the history from event to event and keeps every configuration that is still possible: the object's state, and
 * which of the calls in progress have taken effect already. A call needs to take effect no earlier than at the next return of any
 * call, so at each return all orders of the calls in progress are tried that end with the one that returns (Lowe, "Testing for
 * linearizability", 2017: just-in-time linearization; Wing and Gong's search with memory). Equal configurations are kept once, so
 * the effort is linear in the history's length, whatever it is in the number of threads.
 */
#ifndef TESTS_LINEAR_LINEAR_H
#define TESTS_LINEAR_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define LINEAR_KEYS    4u  /* of one object */
#define LINEAR_THREADS 32u /* calls in progress at once */

enum linear_op {
    LINEAR_INSERT, /* done: the key was absent and has value now; else it was there */
    LINEAR_UPSERT,
    LINEAR_FIND,   /* done: it had value; else it was absent */
    LINEAR_REMOVE, /* done: it was there and is absent now; else it was absent */
    LINEAR_SCAN    /* all keys had these values at one instant; 0 = absent */
};

struct linear_call {
    uint64_t invoked, returned;  /* numbers that grow; no two of a history are equal */
    uint64_t value[LINEAR_KEYS]; /* [0] unless SCAN; not 0 where a value is meant, and no value is written twice */
    uint8_t op, thread, key;     /* a thread's calls do not overlap; key < LINEAR_KEYS */
    bool done;
};

/** NULL if the n calls on one object, whose keys are absent at first, are linearizable. Else the call at whose return every order
 *  had turned out to be impossible. Sorts the calls by their invocation. ret_most: if not NULL, how many configurations were kept at most. */
const struct linear_call *linear_check(struct linear_call *calls, size_t n, size_t *ret_most);
/** The calls about the failed one, for people. */
void linear_print(FILE *to, const struct linear_call *calls, size_t n, const struct linear_call *failed);

#endif
