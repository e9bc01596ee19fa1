/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * segment.h -- the segment manager over a failure-atomic provider of segment files, and the address space they form
 * (PAllocator, VLDB 2017, section 4.1).
 *
 * Slot k of the reserved address range holds segment k, so a persistent pointer becomes an address by one shift and one add.
 * Life of a slot (each arrow is one atomic table-word change, by the function named):
 *
 *     FREE --create--> CREATING --create--> READY(kind NONE) <--release--  READY(kind, owner)
 *      ^                   |                  |       \_______acquire_______^
 *      |________open_______|                  |delete
 *      |________open / delete________ DELETING
 *
 * A huge block has a file of its own, which covers a run of slots; its life is that of its first slot's word, and the words of
 * the others stay zero: FREE -> CREATING -> READY(HUGE) -> DELETING -> FREE. See manager_huge.c.
 *
 * Locks: manager.lock guards the table, the free list and the counters. A segment's kind and owner may be read without it
 * (atomically); they change only while the segment's core is locked or the segment belongs to nobody.
 */
#ifndef SEGMENT_SEGMENT_H
#define SEGMENT_SEGMENT_H

#include <stdatomic.h>

#include "base/lock.h"
#include "log/lane.h"
#include "segment/segment_layout.h"
#include "segment/superblock.h"

/** DRAM twin of a segment. */
struct segment {
    struct file file;
    uint32_t slot;
    uint32_t slots;         /* that the file covers; 1 unless kind is HUGE */
    _Atomic uint8_t kind;   /* enum segment_kind */
    _Atomic uint16_t owner; /* core index (BIG: block index number); meaningful unless kind is NONE */
    void *_Atomic twin; /* SMALL: what the owner knows about the segment; NULL = not read; guarded by the core's lock */
    struct segment *next_free; /* manager's free list, or its list of retired twins */
    /* kind HUGE: */
    _Atomic pa_off block; /* the block's first byte, and the byte after its last */
    _Atomic pa_off end;
    bool busy; /* the block is being resized; guarded by the core's lock */
};

/** False after its file was deleted; the twin stays until close, so that a stale pointer to it is harmless. */
static inline bool segment_is_present(const struct segment *s)
{
    return s != NULL && __atomic_load_n(&s->file.address, __ATOMIC_ACQUIRE) != NULL;
}

struct manager {
    struct dir *dir;
    struct file *pool_file;
    const struct media *media;
    struct pm_superblock geometry; /* validated copy */
    uint64_t *table;               /* on media */
    char *base;
    unsigned shift;      /* log2 of segment_size */
    uint32_t first_slot; /* first one not covered by the pool file */
    uint32_t slots;      /* that the reserved range covers */
    uint64_t max_size;
    bool sparse;
    struct lock lock;
    struct segment *_Atomic *segments; /* by slot; NULL = never there since open */
    _Atomic uint32_t slots_end;        /* all segments are below */
    /* under lock: */
    struct segment *free_list;
    uint32_t lowest_free_slot;
    struct segment *retired; /* twins of huge files that are gone; taken for new ones */
    uint64_t file_bytes;     /* all files' sizes, those being created included */
    uint32_t segment_files, huge_files;
    uint64_t open_lsn;  /* of the newest lane entry when the pool was opened; constant */
    uint64_t lsn_floor; /* highest LSN in lines of segments that were released */
    struct media_tally tally;
    /* Files that are going, whose space is not free yet: whoever finds none waits for them. */
    _Atomic uint32_t removing; /* counted before anybody can know that the block is free; falls under lock */
    uint64_t removed;          /* since open; under lock */
    pthread_cond_t gone;
    /* The spare segment, which is made before it is needed: */
    void (*spare_wanted)(
        void *context); /* asks the pool's thread for manager_make_spare; NULL = no thread. Called under lock */
    void *spare_context;
    unsigned making, waiting; /* spares that are being made; those who wait for one */
    pthread_cond_t made;
};

/** Set up over a mapped pool file: reads the table, opens and maps the segments that are ready. */
int manager_open(struct manager *m, struct dir *d, struct file *pool_file, const struct media *media,
                 const struct pm_superblock *geometry, uint64_t max_size, bool sparse);
/** After the lanes were replayed: remove the files of creations and deletions that a crash cut off. */
int manager_finish(struct manager *m);
void manager_close(struct manager *m);
/** In a child after fork: free what the table leads to, without a lock, files and mappings left aside. */
void manager_leave_to_parent(struct manager *m);

/** A free or a new segment becomes kind's and owner's. *ret_lsn: the new owner numbers its entries above it. Durable on return. PA_ENOSPC. */
int manager_acquire(struct manager *m, enum segment_kind kind, unsigned owner, struct segment **ret, uint64_t *ret_lsn);
/** Make a segment for the free list, if that is empty; without the lock but for moments. For the pool's own thread. PA_ENOSPC is
 *  no more than that there is none. */
int manager_make_spare(struct manager *m);
/** Give a segment back to the free list. Every line in it is durable and was numbered at most lsn. Durable on return. */
void manager_release(struct manager *m, struct segment *s, uint64_t lsn);
/** Delete a segment of its owner's for good, on the same conditions as manager_release. */
void manager_discard(struct manager *m, struct segment *s, uint64_t lsn);
/** Reserve the space of [off, off + size) again, which lies in one segment. No-op in a sparse pool. PA_ENOSPC. */
int manager_refill(struct manager *m, pa_off off, uint64_t size);
/** Make durable that the segment at off has the space that it has. No-op in a sparse pool. */
int manager_keep_space(struct manager *m, pa_off off);
/** Give the space of [off, off + size) back to the file system; *ret_released = bytes that it had given. PA_ENOTSUP if it cannot
 *  punch holes. */
int manager_punch(struct manager *m, pa_off off, uint64_t size, uint64_t *ret_released);
/** Delete free segments until target bytes went back to the file system; *ret_released gets what did, on failure too. */
int manager_trim(struct manager *m, uint64_t target, uint64_t *ret_released);
/** Segments on the free list. */
uint32_t manager_free_count(struct manager *m);

/* --- files of huge blocks: a step each, in this order; huge/ puts the protocol together --- */
/** Claim a run of free slots for a block of size bytes at a multiple of alignment (a power of two up to DIR_BASE_ALIGNMENT), and
 *  announce the file, in the directory of that number or in ANY_DIRECTORY. Durable on return. PA_EINVAL above HUGE_SIZE_MAX, PA_ENOSPC,
 *  PA_ENOMEM. */
#define ANY_DIRECTORY (-1)
int manager_huge_claim(struct manager *m, uint64_t size, uint64_t alignment, int directory, struct segment **ret);
/** Make and map the claimed file. Durable on return; on failure the claim is given up. */
int manager_huge_create(struct manager *m, struct segment *s);
/** Change the state in a huge file's word and start the write-back; the caller fences. */
void manager_huge_mark(struct manager *m, struct media_tally *t, uint32_t slot, enum segment_state state,
                       unsigned owner);
/** The file of a huge block that is about to be freed is going to go: manager_huge_remove follows. */
static inline void manager_file_leaves(struct manager *m)
{
    atomic_fetch_add_explicit(&m->removing, 1, memory_order_relaxed);
}
/** How many files have gone since open. */
uint64_t manager_removed(struct manager *m);
/** After PA_ENOSPC: wait for a file that other threads are removing. True: one has gone since manager_removed gave `before`, so
 *  it is worth another try. The caller is removing none itself. */
bool manager_await_removal(struct manager *m, uint64_t before);
/** Remove the file of a block whose word says DELETING, which nobody can reach any more. Durable on return. If the file cannot
 *  be removed, the next open does it. */
int manager_huge_remove(struct manager *m, struct segment *s);
/** Make the block end at least at size bytes without moving it; the block is busy. PA_ENOSPC if something is in the way. */
int manager_huge_grow(struct manager *m, struct segment *s, uint64_t size);
/** Recovery: map the file of a slot whose word says CREATING and which a lane knows to be complete. PA_ECORRUPT. */
int manager_huge_open(struct manager *m, uint32_t slot, struct segment **ret);

static inline struct segment *manager_segment(const struct manager *m, uint64_t slot)
{
    return slot < m->slots ? atomic_load_explicit(&m->segments[slot], memory_order_acquire) : NULL;
}
/** Byte distance from base; null is 0. */
static inline pa_off manager_off(const struct manager *m, pa_pptr p)
{
    return (p.segment << m->shift) + p.offset;
}
static inline pa_pptr manager_pptr(const struct manager *m, pa_off off)
{
    return (pa_pptr){off >> m->shift, off & (m->geometry.segment_size - 1)};
}
struct pm_core *manager_core_line(const struct manager *m, uint32_t lane);
/** Name of a slot's file, a segment's or a huge block's, relative to the pool's directory. */
void segment_name(char name[32], const struct pm_superblock *geometry, uint32_t slot);
void segment_huge_name(char name[32], const struct pm_superblock *geometry, uint32_t slot);
/** Check a table word and, if READY, the segment file's header and size; for open and check alike. */
int segment_word_check(const struct dir *d, uint64_t word, uint32_t slot);
int segment_header_check(const struct dir *d, const struct file *f, const struct pm_superblock *geometry,
                         uint32_t slot);
/** As segment_header_check, for the file of a huge block too. */
int segment_any_header_check(const struct dir *d, const struct file *f, const struct pm_superblock *geometry,
                             uint32_t slot, bool huge);
uint64_t segment_header_checksum(const struct pm_segment_header *h, bool huge);
/** Whose is the file of that name and slot, by its header? MAYBE: the header is damaged, and the size is right. */
enum segment_claim { SEGMENT_CLAIM_NONE, SEGMENT_CLAIM_MAYBE, SEGMENT_CLAIM_OWN };
enum segment_claim segment_file_claim(struct dir *d, const char *name, const struct pm_superblock *geometry,
                                      uint32_t slot, bool huge);
/** Of an ordinary segment that is mapped. */
static inline const struct pm_segment_header *segment_header(const struct segment *s)
{
    return (const struct pm_segment_header *)s->file.address;
}

#endif
