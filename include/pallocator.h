/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pallocator.h -- failure-atomic allocator for persistent memory.
 *
 * A pool is a directory of files that are mapped into one reserved address range. Blocks are named
 * by a 16-byte persistent pointer. Every allocation and every free goes through an owner pointer that
 * itself lies in the pool, so that after a crash at any instruction either the owner names an
 * allocated block, or it is null and nothing has leaked (reference passing: Oukid et al., "Memory
 * Management Techniques for Large-Scale Persistent-Main-Memory Systems", VLDB 2017, section 4).
 *
 * Conventions. Functions return 0 or a negative enum pa_error; outputs are untouched on failure.
 * pa_errormsg() then holds a sentence for the calling thread. Sizes are bytes. Everything except
 * pa_create, pa_open, pa_close, pa_check and pa_repair may be called from any number of threads at once.
 * The library never prints, never exits and never asserts on what it reads from media.
 */
#ifndef PALLOCATOR_H
#define PALLOCATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define PA_ALIGNAS_16 alignas(16)
#else
#define PA_ALIGNAS_16 _Alignas(16)
#endif

#if defined(__GNUC__)
#define PA_PURE __attribute__((pure))
#else
#define PA_PURE
#endif

enum pa_error {
    PA_EINVAL = -1,   /* an argument cannot be right */
    PA_ENOMEM = -2,   /* no DRAM (PA_ENOSPC is the one about the pool) */
    PA_ENOSPC = -3,   /* the pool's limit, or the file system's space, is reached */
    PA_EEXIST = -4,   /* the directory holds a pool, or the key is there */
    PA_ENOENT = -5,   /* no pool in the directory, or no such key */
    PA_ELOCKED = -6,  /* another process, or another handle of this one, has the pool open */
    PA_ECORRUPT = -7, /* media hold what the library cannot have written */
    PA_EVERSION = -8, /* the pool was made by another format version */
    PA_ELAYOUT = -9,  /* the pool belongs to an application with another layout name */
    PA_ENOTSUP = -10, /* not available here (durability, file system) or not in this version */
    PA_EACCES = -11,  /* no permission, or a change asked of a read-only pool */
    PA_EIO = -12      /* the operating system reported another error; pa_errormsg() names it */
};

/** A short English text for an error code; static storage. */
const char *pa_strerror(int error);
/** The sentence about the calling thread's last failure: which file, which value, what to do. Valid until the
 *  thread's next failing call. Empty before the first. */
const char *pa_errormsg(void);

/** A persistent pointer: segment number and byte offset in it. All zero is null. */
typedef struct pa_pptr {
    PA_ALIGNAS_16 uint64_t segment;
    uint64_t offset;
} pa_pptr;
#ifdef __cplusplus
#define PA_NULL (pa_pptr{0, 0})
#else
#define PA_NULL ((pa_pptr){0, 0})
#endif
static inline bool pa_is_null(pa_pptr p)
{
    return (p.segment | p.offset) == 0;
}

typedef struct pa_pool pa_pool;

/** What a persist survives. AUTO: power failure on DAX and ordinary file systems, process crash on tmpfs. */
enum pa_durability { PA_DURABILITY_AUTO, PA_DURABILITY_POWER, PA_DURABILITY_PROCESS };
/** STRICT: all or nothing, never a leak. BOUNDED and GC are not in this version: pa_create gives PA_ENOTSUP. */
enum pa_guarantee { PA_GUARANTEE_STRICT, PA_GUARANTEE_BOUNDED, PA_GUARANTEE_GC };

#define PA_READ_ONLY 1u /* open only: a private snapshot; nothing on media changes, not even by recovery */
#define PA_WAIT_LOCK 2u /* wait for the pool's lock instead of PA_ELOCKED */
#define PA_SPARSE    4u /* do not reserve space in the file system; a store may then SIGBUS when it is full */
/* No thread of the library's own. Without the flag one thread per pool makes a spare segment ahead of need, which counts against
 * max_size, and reads large block indexes after open; it blocks all signals and ends in pa_close. */
#define PA_NO_BACKGROUND 8u

#define PA_LAYOUT_MAX 63 /* bytes in a layout name */
#define PA_DIRS_MAX   63 /* directories besides the pool's own */

typedef struct pa_options { /* set up by pa_options_init; 0 / NULL = default */
    const char *layout;     /* application's layout name, <= 63 bytes; compared at open unless NULL */
    uint64_t segment_size;  /* bytes; create only: power of two, 1 MiB .. 16 GiB, default 128 MiB */
    uint64_t max_size;      /* bytes; the pool's files together never grow past it; default: no limit */
    enum pa_durability durability;
    enum pa_guarantee guarantee; /* create only */
    unsigned cores;              /* allocator objects; default: the machine's cores */
    unsigned flags;              /* PA_READ_ONLY, PA_WAIT_LOCK, PA_SPARSE, PA_NO_BACKGROUND */
    /* Further directories, at most PA_DIRS_MAX, over which segment and huge files are spread: for several devices. pa_create makes
     * those that are not there, and a link dir-K to each in the pool's directory. At open they need not be given (NULL, 0); if
     * they are, in the same order, the links are led there first, for directories that have moved. */
    const char *const *dirs;
    unsigned ndirs;
} pa_options;
/** Set every option to its default. */
void pa_options_init(pa_options *o);

/** Create a pool in the directory dir, which is made if it does not exist, and open it. o may be NULL.
 *  Durable on return; a crash inside leaves a directory that pa_create takes again.
 *  PA_EEXIST if dir holds a pool, or a file in the way of its links. The pool is released with pa_close. Not
 *  thread-safe per directory. */
int pa_create(const char *dir, const pa_options *o, pa_pool **ret_pool);
/** Open the pool in dir, first bringing it to a state as if every operation had finished or never begun.
 *  PA_ENOENT, PA_ELOCKED, PA_ECORRUPT, PA_EVERSION, PA_ELAYOUT. */
int pa_open(const char *dir, const pa_options *o, pa_pool **ret_pool);
/** Write back what the log still covers and release the pool. No other call may run or follow; a library built with assertions
 *  sees that one runs, and then gives PA_EINVAL and leaves the pool open. NULL: no-op.
 *  After fork the pool is the parent's. The child may exec, _exit, or call pa_close, which then gives back the mappings and most of the
 *  DRAM and leaves the pool's files, the parent's lock on them and everything that the parent does untouched. It may call
 *  nothing else with the pool's handle, a tree's handle or an address in the pool. */
int pa_close(pa_pool *pool);
/** The pool's root block: allocated and zeroed at the first call, the same block afterwards. PA_EINVAL if size is 0 or
 *  larger than the block that the first call made. Durable on return. */
int pa_root(pa_pool *pool, size_t size, pa_pptr *ret_root);

/** Allocate size bytes (contents undefined) and store the block's pointer into *dst, as one failure-atomic step.
 *  dst: in an allocated block of the pool, 16-byte aligned, null, and not touched by another thread meanwhile.
 *  On return the pointer and the allocation are durable. At most 3 fences. Blocks whose size is a multiple of 64 start a
 *  cache line; powers of two are naturally aligned up to 4 KiB. PA_ENOSPC, PA_EINVAL, PA_ENOMEM. */
int pa_allocate(pa_pool *pool, pa_pptr *dst, size_t size);
/** As pa_allocate, with the block's address a multiple of alignment, a power of two up to 2 MiB. It stays so wherever the pool is
 *  mapped, but not if pa_reallocate moves the block. PA_EINVAL, PA_ENOSPC, PA_ENOMEM. */
int pa_allocate_aligned(pa_pool *pool, pa_pptr *dst, size_t size, size_t alignment);
/** Give the block that *dst names room for size bytes, in place or by moving it, as one failure-atomic step: afterwards, also
 *  after a crash, *dst names the old block or the new one, never both or none, and its first min(old usable size, size)
 *  bytes are as they were. Durable on return; what a move copies is written back too. Null *dst: as pa_allocate. A block that is
 *  to shrink and cannot move stays. No other thread may use the block meanwhile. PA_EINVAL if size is 0, *dst does not name
 *  the start of an allocated block, or dst lies in that block itself; PA_ENOSPC, PA_ENOMEM: the block is as it was. */
int pa_reallocate(pa_pool *pool, pa_pptr *dst, size_t size);
/** Free the block that *dst names and null *dst, as one failure-atomic step; durable on return. At most 2 fences.
 *  Null *dst: no-op. PA_EINVAL if *dst does not name the start of an allocated block. Needs no space. */
int pa_deallocate(pa_pool *pool, pa_pptr *dst);
/** Bytes the block may hold (at least what was asked); 0 if p does not name an allocated block. */
size_t pa_usable_size(const pa_pool *pool, pa_pptr p);
/** The address of p in this process; NULL for null and for what lies outside the pool's address range. One shift and one
 *  add, no table. Valid until pa_close. */
void *pa_direct(const pa_pool *pool, pa_pptr p) PA_PURE;
/** The persistent pointer to an address; null if it is outside the pool. */
pa_pptr pa_pptr_of(const pa_pool *pool, const void *address) PA_PURE;

/** An 8-byte form of a persistent pointer: byte distance from the pool's first byte; 0 is null. */
typedef uint64_t pa_off;
pa_off pa_off_of(const pa_pool *pool, pa_pptr p) PA_PURE;
pa_pptr pa_off_pptr(const pa_pool *pool, pa_off off) PA_PURE;
/** As pa_direct, for the 8-byte form. */
void *pa_off_direct(const pa_pool *pool, pa_off off) PA_PURE;

/** Start writing back the lines of [address, address + size); durable after this thread's next pa_drain. */
void pa_flush(const pa_pool *pool, const void *address, size_t size);
/** Wait until what this thread flushed is durable. */
void pa_drain(const pa_pool *pool);
/** pa_flush and pa_drain. */
void pa_persist(const pa_pool *pool, const void *address, size_t size);
/** memcpy to the pool; durable on return. Returns dst. */
void *pa_memcpy_persist(const pa_pool *pool, void *dst, const void *src, size_t size);

/** Give up to target_bytes of free space back to the file system: whole free segments, then holes in the largest free blocks,
 *  then in free slabs; allocations go on meanwhile. UINT64_MAX = all there is. Offsets stay valid; a hole is filled again before
 *  it is handed out. *ret_released (may be NULL) gets the bytes given back, on failure too. PA_ENOTSUP if more was asked for than
 *  whole segments and the file system cannot punch holes. Durable on return. */
int pa_defragment(pa_pool *pool, uint64_t target_bytes, uint64_t *ret_released);
typedef struct pa_stats {                       /* may gain fields at its end */
    uint64_t allocated_bytes, allocated_blocks; /* what callers hold (by usable size), the root included */
    uint64_t segment_files, huge_files;
    uint64_t file_bytes;                     /* sum of file sizes */
    uint64_t resident_bytes;                 /* sum of st_blocks * 512: what the file system has given */
    uint64_t largest_free_block, hole_bytes; /* largest block that needs no new file */
    uint64_t fences, flushed_lines;          /* by the library, since open, pa_flush and pa_drain included */
    uint64_t dram_bytes;                     /* DRAM the library holds for this pool */
} pa_stats;
/** Exact while no other thread allocates or frees, else a snapshot per core. Reads metadata that was not needed yet. */
int pa_get_stats(pa_pool *pool, pa_stats *ret);
typedef int (*pa_visit_fn)(pa_pptr block, size_t usable_size, void *arg); /* non-zero stops the walk */
/** Call visit for every allocated block, the root included, in address order per segment. Returns visit's non-zero value,
 *  or 0. visit runs without locks held and may allocate and free; a block that others allocate or free meanwhile may
 *  be visited or not. */
int pa_foreach(pa_pool *pool, pa_visit_fn visit, void *arg);
/** Check the whole pool offline, changing nothing. 0 = sound; else the first finding's code. *ret_report (may be NULL)
 *  gets a text, one finding a line with file, place and remedy; the caller frees it with free(). */
int pa_check(const char *dir, char **ret_report);
/** Rebuild what can be rebuilt of an unsound pool that nobody has open, so that pa_check finds nothing; docs/REPAIR.md tells, for each
 *  finding, what becomes of it. In doubt a block stays allocated: repair may leak, it never frees or shares what may be somebody's.
 *  All or nothing: 0 = the pool is sound (changed or not); PA_ECORRUPT = refused, nothing was changed; else a system error.
 *  What is to change is first copied into a new directory repair-YYYYMMDD-HHMMSS in backup_dir (NULL = in dir), files that belong
 *  to no slot are moved there; the copies are durable before the first change, the changes on return. A repair that a crash cut off
 *  is finished by the next call; until then the pool does not open. *ret_report (may be NULL) gets a text, a line for each thing
 *  found, done or refused, on failure too (or NULL); the caller frees it with free(). Not thread-safe per directory.
 *  PA_ENOENT, PA_ELOCKED, PA_EVERSION, PA_ENOTSUP, PA_EACCES, PA_ENOSPC, PA_ENOMEM, PA_EIO. */
int pa_repair(const char *dir, const char *backup_dir, char **ret_report);

/** What a persist is on the pool's directory, and so what it survives. */
enum pa_persistence {
    PA_PERSISTENCE_PROCESS,    /* nothing is written back: the process may die, the machine not */
    PA_PERSISTENCE_EADR,       /* caches are persistent: a fence */
    PA_PERSISTENCE_CACHE_LINE, /* DAX: write-back of lines and a fence */
    PA_PERSISTENCE_PAGE        /* msync */
};
typedef struct pa_info { /* may gain fields at its end */
    uint32_t format_version;
    uint32_t flags; /* PA_SPARSE, if it was created so */
    uint8_t uuid[16];
    char layout[PA_LAYOUT_MAX + 1];
    uint64_t segment_size, max_size; /* bytes; max_size 0 = no limit */
    uint64_t pool_file_bytes;        /* of pool.pa, which is fixed */
    uint32_t slots;                  /* segments that the pool may ever have, its own file's slots included */
    uint32_t lanes, lane_entries;    /* logs, and operations that each holds; lanes bound the allocator objects */
    enum pa_guarantee guarantee;
    enum pa_persistence persistence; /* in effect, or what PA_DURABILITY_AUTO would give */
    uint32_t directories;            /* besides the pool's own */
} pa_info;
/** What an open pool is. Any thread. */
int pa_get_info(const pa_pool *pool, pa_info *ret);
/** The same of the pool in dir, from its pool file alone, whether somebody has it open or not. Changes nothing. PA_ENOENT,
 *  PA_ECORRUPT, PA_EVERSION, PA_EACCES, PA_ENOMEM. */
int pa_read_info(const char *dir, pa_info *ret);

#ifdef __cplusplus
}
#endif
#endif
