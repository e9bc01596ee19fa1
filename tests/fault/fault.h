/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fault.h -- one failure at a chosen moment: the n-th thing that can fail, between fault_arm and fault_disarm, fails.
 *
 * What can fail is asked for here by file hooks (fault_hooks), by stand-ins for system calls (wrap_calls.c) or for memory
 * allocation (wrap_memory.c). One source at a time is counted; which one a program uses it tells fault_source_set.
 */
#ifndef TESTS_FAULT_FAULT_H
#define TESTS_FAULT_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pmem/file.h"

enum fault_source { FAULT_FILE, FAULT_CALL, FAULT_MEMORY, FAULT_LIMIT };

/** Real limits of the process, for source FAULT_LIMIT: nothing is asked, the kernel refuses. */
enum fault_limit { LIMIT_DESCRIPTORS, LIMIT_FILE_SIZE, LIMIT_ADDRESS_SPACE, LIMIT_COUNT };

/** System calls, for fault_ask of FAULT_CALL; of FAULT_FILE the operation is an enum file_op, of FAULT_MEMORY 0. */
enum fault_call {
    CALL_MKDIR,
    CALL_OPEN,
    CALL_CREATE, /* open with O_CREAT */
    CALL_FLOCK,
    CALL_FSTAT,
    CALL_FSTATAT,
    CALL_FSTATFS,
    CALL_READDIR,
    CALL_PREAD,
    CALL_PWRITE,
    CALL_FSYNC,
    CALL_FALLOCATE,
    CALL_PUNCH,
    CALL_FTRUNCATE,
    CALL_UNLINK,
    CALL_RENAME,
    CALL_GETRANDOM,
    CALL_MAP,     /* pmem2_map_new */
    CALL_RESERVE, /* pmem2_vm_reservation_new */
    CALL_COUNT
};

/** What is to fail, and what did. */
struct fault {
    unsigned at;            /* the n-th since fault_arm, from 1; 0 = nothing fails, only counted */
    bool onwards;           /* and everything after it */
    unsigned pick;          /* which of the errno values that fit it, modulo their number */
    enum fault_limit limit; /* source FAULT_LIMIT: which one; at counts up from the strictest */
    bool interrupt;         /* instead: every interruptible call is interrupted twice, and transfers are short */
    /* found out: */
    unsigned seen, fired;
    int error_number;
    unsigned choices; /* errno values that fit */
    int op;           /* the first that failed */
    char name[64], site[64];
    bool removal; /* removing a file, or making that durable, failed */
};

/** The source that this program counts. */
void fault_source_set(enum fault_source source);
enum fault_source fault_source_now(void);
void fault_begin(const struct fault *f);
void fault_arm(void);
/** Nothing fails any more; what happened so far. */
const struct fault *fault_disarm(void);
/** Hooks of source FAULT_FILE, for pool_params. */
const struct file_hooks *fault_hooks(void);

/** Source FAULT_LIMIT: how many steps a limit has; 0 if it cannot be tried in this build. */
unsigned fault_limit_steps(enum fault_limit limit);
/** Source FAULT_LIMIT: the act failed, which is the limit's doing. */
void fault_note_limit(struct fault *f);

/** Called by what can fail: 0, or the errno value to fail with. */
int fault_ask(enum fault_source source, int op, const char *name, const char *site);
/** True if an interruptible call is to be interrupted now: twice before each success. */
bool fault_interrupts(enum fault_call call);
/** Under interruption, is a call for so many bytes of space interrupted however often it comes, as by a fast timer? */
bool fault_interrupts_always(uint64_t bytes);
/** Under interruption, how much of a read or write is done: less than was asked for. */
size_t fault_transfer_limit(size_t size);

/** Blocks of memory that the program and its static libraries have allocated and not freed; change that. */
long fault_live_memory(void);
void fault_count_memory(int change);

/** What the sentence about a failed file operation says; "" = do not look. */
const char *fault_verb(const struct fault *f);

/* Totals over all tests of the program, which run in processes of their own. */
void fault_totals_init(void);
void fault_totals_print(const char *name);
/** Has a fault of this operation been injected? */
bool fault_was_seen(int op);

#endif
