/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * recorder.h -- records what a run of the library does to its media, as a trace of events.
 *
 * A recorder is the test's side of pmem/media.h's struct media_recorder and pmem/file.h's struct file_hooks. Every store,
 * write-back, fence, non-temporal store and file operation becomes one event with its thread, its site ("file.c:line") and,
 * for stores, the words that were stored. Addresses are turned into (inode, offset) by the mappings that were announced.
 * An inode is one created file: a name that is removed and created again is another inode.
 *
 * The recorder's world is one directory, "" in names; everything that is recorded happens below it. Names are paths from there:
 * "pool", "pool/pool.pa", "more-1/segment-00000001.pa". Links are followed where the library goes through them.
 */
#ifndef TESTS_EXPLORE_RECORDER_H
#define TESTS_EXPLORE_RECORDER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pmem/file.h"
#include "pmem/media.h"
#include "tests/explore/holes.h"

#define INODE_NONE      UINT32_MAX
#define INODE_DIRECTORY (UINT32_MAX - 1) /* a name that is one; so many as there are names */
#define INODE_LINK      (UINT32_MAX - 2) /* a symbolic link to a directory */
#define INODES_MAX      256u
#define NAMES_MAX       64u
#define NAME_BYTES      64u
#define PATH_BYTES      256u
#define SITES_MAX       1024u
#define SITE_NAME_BYTES 40u
#define INODE_MAX_BYTES (256u << 20)
#define WORD_BYTES      8u

enum trace_kind {
    TRACE_STORE,    /* words stored */
    TRACE_STORE_NT, /* words stored that need only a drain */
    TRACE_FLUSH,
    TRACE_DRAIN,
    TRACE_CREATE, /* name -> a new inode of 0 bytes */
    TRACE_RESIZE, /* the inode's size becomes `size` */
    TRACE_PUNCH,
    TRACE_SYNC,  /* the inode's size is durable, and what was written */
    TRACE_WRITE, /* words written that the file's sync makes durable */
    TRACE_MAKE_DIR,
    TRACE_LINK, /* name -> a symbolic link to name2 */
    TRACE_UNLINK,
    TRACE_RENAME,   /* name -> name2; if it is a link, to name3 */
    TRACE_SYNC_DIR, /* the names in a directory are durable */
    TRACE_SETTLE,   /* time has passed: everything is durable */
    TRACE_BEGIN,    /* operation number `offset` of the history begins */
    TRACE_END,
    TRACE_KINDS
};
const char *trace_kind_name(enum trace_kind kind);

struct trace_event {
    uint8_t kind;
    uint8_t thread; /* small number, in order of appearance */
    uint16_t site;  /* index in struct sites */
    uint16_t step;  /* index in struct sites */
    uint32_t inode;
    uint64_t offset, size; /* bytes; for stores, multiples of WORD_BYTES */
    size_t data;           /* stores: first word in trace.words; names: index in trace.names */
};

struct trace {
    struct trace_event *events;
    size_t count, capacity;
    uint64_t *words;
    size_t words_count, words_capacity;
    char (*names)[NAME_BYTES];
    size_t names_count, names_capacity;
    size_t *skips; /* events before which the mutant left one out */
    size_t skips_count, skips_capacity;
};
void trace_clear(struct trace *t);
void trace_fini(struct trace *t);

/** A (place, kind of event) of the library. */
struct site {
    char name[SITE_NAME_BYTES];
    uint32_t kind;
    uint32_t seen;      /* SITE_SEEN_... */
    uint64_t scenarios; /* bit per scenario that passed here */
    uint64_t points;    /* crash points at this site */
    uint64_t states;    /* states judged at them */
};
#define SITE_SEEN_HISTORY  1u
#define SITE_SEEN_RECOVERY 2u

/** A site in a context: what the same thread's last lane entry and last segment table word said. So the steps of different
 *  protocols that share code are told apart. */
struct step {
    uint16_t site;
    uint8_t entry; /* STEP_ENTRY_... */
    uint8_t word;  /* STEP_WORD_... */
    uint64_t points, states;
};
#define STEPS_MAX          4096u
#define STEP_ENTRY_OP      0x0fu /* enum lane_op; of a DONE entry, what is done */
#define STEP_ENTRY_REPLACE 0x10u
#define STEP_ENTRY_DONE    0x20u
#define STEP_ENTRY_JUDGED  0x40u /* not of the history, but of an opening after a crash */
#define STEP_WORD_STATE    0x0fu /* enum segment_state */
#define STEP_WORD_KIND     0x70u /* enum segment_kind << 4; of a FREE word, what was there */
#define STEP_WORD_SET      0x80u

/** All sites; in memory shared by the explorer's processes. */
struct sites {
    uint32_t lock;
    uint32_t count;
    int mutant; /* the site whose effect is left out, or -1 */
    int late;   /* not left out, but moved behind so many that follow; see recorder_is_swapped_with */
    struct site at[SITES_MAX];
    uint32_t steps_count;
    struct step steps[STEPS_MAX];
};
struct sites *sites_new(void);
/** The index of a site; added when new. */
unsigned site_intern(struct sites *s, const char *name, enum trace_kind kind);
/** The index of a site in a context; added when new. */
unsigned step_intern(struct sites *s, unsigned site, uint8_t entry, uint8_t word);
/** "file.c:12/flush" to an index, or -1. */
int site_find(const struct sites *s, const char *text);
/**
 * Mutants by exchange: an event of kind `held` is moved behind the n-th event of its thread that is of such a kind `next`, the end
 * of an operation and of the opening among them. A barrier is not exchanged with a barrier alone, which nothing could tell.
 *
 * held          | moved behind
 * --------------+----------------------------------------------------------------------------------------------
 * write-back    | a fence: the one that should cover it
 * log write     | a fence: the one that commits it
 * fence         | a write-back, a log write, a change of a file or its name: what must come after it
 * sync (both)   | a fence, a rename, a removal: the commit that relies on it
 */
bool recorder_is_swapped_with(enum trace_kind held, enum trace_kind next);

struct name_entry {
    char name[NAME_BYTES];
    uint32_t inode;
    char target[NAME_BYTES]; /* of a link */
};
static inline bool is_file(uint32_t inode)
{
    return inode < INODES_MAX;
}
/** Does a name lie in a directory? (Not deeper.) */
bool name_is_in(const char *name, const char *directory);

struct recorder {
    struct media_recorder media; /* hand these two to the library */
    struct file_hooks hooks;
    char root[PATH_BYTES]; /* the world */
    struct trace *trace;
    struct sites *sites;
    unsigned scenario;   /* bit number for site.scenarios */
    unsigned seen;       /* SITE_SEEN_... */
    bool off;            /* nothing is recorded, and no mutant acts */
    bool dying;          /* what is stored from here on stays in the cache: the process dies before it flushes */
    void (*pause)(void); /* after an event; where another thread may come in. May be NULL. */
    /* A copy of what the announced stores make of each file; a line that differs from it when it is flushed was stored to by
     * other means. NULL = not kept. Only for histories of one thread. */
    unsigned char **shadow;
    struct {
        uint8_t entry, word;
    } contexts[256]; /* by thread */
    /* The swapped mutant's events that wait for what they are moved behind. */
    struct held_event {
        struct trace_event event;
        int left; /* so many more are to pass by */
    } * held;
    size_t held_count, held_capacity;
    char problem[256]; /* first thing that was wrong with the trace itself; empty = none */

    pthread_mutex_t lock;
    /* What is mapped. A file that grew while it was mapped has several ranges. A range goes when its file loses its name, is
     * mapped anew, or its addresses are used again. */
    struct range {
        char *start;
        uint64_t size;
        uint64_t offset; /* of start in the file */
        uint32_t inode;
    } ranges[INODES_MAX];
    unsigned ranges_count, range_hit;
    struct name_entry names[NAMES_MAX];
    unsigned names_count;
    uint32_t next_inode;
    struct holes holes; /* as the run of the library sees them */
};
/** Told of everything first, in the thread that does it: stores, flushes and drains, and address ranges of pools. Either may be NULL. */
struct recorder_observer {
    void (*event)(enum media_event event, const void *address, size_t size);
    void (*reserved)(const void *address, uint64_t size);
};
extern struct recorder_observer recorder_observer;

/** root: of the world, without links. */
void recorder_init(struct recorder *r, struct sites *sites, struct trace *trace, const char *root);
void recorder_fini(struct recorder *r);
/** Forget mappings; start with these names, holes, and this number for the next created file. The trace is cleared. */
void recorder_restart(struct recorder *r, const struct name_entry *names, unsigned names_count,
                      const struct holes *holes, uint32_t next_inode);
/** Has all of [address, address + size) space in the file system? */
bool recorder_has_space(struct recorder *r, const void *address, uint64_t size);
/** What the pool's log and table say, as texts: "small_free.replace", "big_alloc.done"; "creating.huge". */
void step_entry_name(uint8_t entry, char *text, size_t size);
void step_word_name(uint8_t word, char *text, size_t size);
/** Note the beginning or the end of operation number op; the caller holds lock. */
void recorder_mark_locked(struct recorder *r, enum trace_kind kind, uint64_t op);
/** The pool is open: what is moved behind the end of the opening follows now. */
void recorder_opened(struct recorder *r);
/** The process died: what a mutant still holds back never happens. */
void recorder_killed(struct recorder *r);
/** Keep a copy of every file from here on; before the first file is created. */
void recorder_keep_shadow(struct recorder *r);
/** A directory that is there before the history begins. 0 or -1. */
int recorder_make_dir(struct recorder *r, const char *name);
/** Time has passed: whatever was stored and done so far is durable. */
void recorder_settle(struct recorder *r);
/** Compare the files with the copies; sets problem. */
void recorder_check_shadow(struct recorder *r);

#endif
