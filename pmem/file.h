/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file.h -- the pool directory's files: the only place of the library that makes file system calls.
 *
 * A pool's files live in one directory and are mapped at chosen offsets of one reserved address range (libpmem2's
 * vm reservation). A file operation is durable when its function returns only where its comment says so; otherwise
 * dir_sync or file_sync makes it so, and until then a crash may or may not show it.
 *
 * Errors: 0 or a negative enum pa_error with its sentence set (base/error.h).
 */
#ifndef PMEM_FILE_H
#define PMEM_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pmem/media.h"

enum file_op {
    FILE_OP_OPEN_DIR, /* after: size = 1 if it was made, 0700, before it was opened */
    FILE_OP_CREATE, /* file made, 0 bytes, 0600, O_EXCL | O_NOFOLLOW | O_CLOEXEC; or a link; after: address = its target */
    FILE_OP_OPEN,
    FILE_OP_STAT,
    FILE_OP_ALLOCATE, /* space reserved and size set: fallocate, or ftruncate when sparse; detail = size */
    FILE_OP_PUNCH,
    FILE_OP_MAP,  /* detail = offset in the file and size of what was mapped */
    FILE_OP_SYNC, /* fsync of the file: its size and allocation */
    FILE_OP_UNLINK,
    FILE_OP_SYNC_DIR, /* fsync of the directory, or of the one that name leads to; ".." is its parent */
    FILE_OP_RENAME,   /* after: address = the new name, absolute if it lies in another directory */
    FILE_OP_LOCK,
    FILE_OP_RESERVE, /* address range */
    FILE_OP_READ,    /* after: address = where the bytes went */
    FILE_OP_LIST,    /* the directory's names */
    FILE_OP_WRITE,   /* to a file that is not mapped */
    FILE_OP_COUNT
};

struct dir;

/** A test's seam: injects failures and sees what was done. */
struct file_hooks {
    void *context;
    /** Before an operation: 0, or the errno value to fail with instead of doing it. NULL = never. */
    int (*before)(void *context, enum file_op op, const char *name, const char *site);
    /** After an operation on a name of directory d succeeded (for MAP: address and size of the mapping). NULL = not wanted. */
    void (*after)(void *context, const struct dir *d, enum file_op op, const char *name, uint64_t offset, uint64_t size,
                  void *address, const char *site);
    /** Mutation run: true = report success for this SYNC or SYNC_DIR without doing or announcing it. NULL = never. */
    bool (*skip)(void *context, enum file_op op, const char *site);
};

/** How a file is mapped. */
enum file_way {
    FILE_WAY_LIBRARY, /* by libpmem2, which finds out what a persist needs: the pool file, and everything under Valgrind */
    FILE_WAY_SYNC,    /* as libpmem2 has found out: shared, with MAP_SYNC */
    FILE_WAY_SHARED,
    FILE_WAY_PRIVATE /* of a read-only directory */
};

/** The directory and the address range of one pool. */
struct dir {
    char *path; /* for sentences */
    int fd;
    bool read_only;     /* files are opened read-only and mapped privately; none is made, removed or renamed */
    bool locked;        /* the caller has the pool's lock through another handle: file_lock takes none */
    bool members_known; /* the caller has looked at the further directories: members_open does not */
    const struct file_hooks *hooks;
    struct pmem2_vm_reservation *reservation;
    enum file_way way; /* of the next file; LIBRARY until one is mapped */
    char *base;        /* first byte of the reserved range */
    uint64_t reserved_bytes;
};

struct file_tail; /* a mapping of what a file was grown by */

/** One file of the pool. */
struct file {
    int fd; /* -1 after file_close_descriptor */
    char name[32];
    uint64_t device, inode; /* which file it is, whatever has its name later */
    uint64_t size;          /* bytes */
    struct pmem2_map *map;  /* way LIBRARY, else NULL */
    uint64_t mapped;        /* bytes from address on, other ways */
    void *address;          /* NULL while not mapped */
    struct file_tail *tails;
};

/** Open dir path; create = make it (one level) if it is not there, and sync its parent, so that a power failure does not take
 *  the directory away. hooks may be NULL. */
int dir_open(struct dir *d, const char *path, bool create, bool read_only, const struct file_hooks *hooks);
void dir_close(struct dir *d);
/** In a child after fork: let go of the directory, its lock file and whatever is mapped in the range, without a lock and without any
 *  effect on the parent. The range's addresses stay taken, so that nothing else gets them. */
void dir_leave_to_parent(struct dir *d, struct file *lock_file);
/** Creators of a pool in one directory take turns: PA_ELOCKED if another process or handle is at it. */
int dir_lock(struct dir *d);
void dir_unlock(struct dir *d);
/** Reserve up to want bytes of address space, at least need, in multiples of alignment: see range_new. The range begins at a multiple of
 *  DIR_BASE_ALIGNMENT, so that offsets and addresses are aligned alike up to it. */
#define DIR_BASE_ALIGNMENT (2ull << 20)
int dir_reserve(struct dir *d, uint64_t want, uint64_t need, uint64_t alignment);
/** Make the creations and removals so far durable. */
int dir_sync_(struct dir *d, const char *site);
#define dir_sync(d) dir_sync_((d), MEDIA_SITE)
/** As dir_sync, for the directory that name (of a file, perhaps "dir-1/segment-00000001.pa") lies in. */
int dir_sync_of_(struct dir *d, const char *name, const char *site);
#define dir_sync_of(d, name) dir_sync_of_((d), (name), MEDIA_SITE)
/** Where the directory is, without links; ret has PATH_MAX bytes. */
int dir_real_path(const struct dir *d, char *ret);
/** PA_EEXIST if a link could not get that name without replacing what is no link. */
int dir_link_is_possible(const struct dir *d, const char *name);
/** Make the symbolic link name in the directory, or replace it at once; durable after dir_sync. PA_EEXIST as above. */
int dir_link(struct dir *d, const char *target, const char *name);
/** Is there a file, directory or link of that name? */
bool dir_has(const struct dir *d, const char *name);
/** Is name a link to target? */
bool dir_link_is(const struct dir *d, const char *name, const char *target);
/** PA_ECORRUPT if a directory has the name. */
int dir_unlink_(struct dir *d, const char *name, bool must_exist, const char *site);
#define dir_unlink(d, name, must_exist) dir_unlink_((d), (name), (must_exist), MEDIA_SITE)
int dir_rename_(struct dir *d, const char *from, const char *to, const char *site);
#define dir_rename(d, from, to) dir_rename_((d), (from), (to), MEDIA_SITE)
/** 0, or PA_ECORRUPT if dir_unlink would find a directory. */
int dir_may_unlink(const struct dir *d, const char *name);
/** True if what survives here is decided by tmpfs or ramfs (no medium behind it). */
bool dir_is_volatile(const struct dir *d);
/** Bytes that the file system of the directory that name lies in (see dir_sync_of) has left for this user; 0 if it does not say. */
uint64_t dir_free_bytes_of(const struct dir *d, const char *name);
/** Call visit for each name in the directory; its non-zero value stops the walk and is returned. */
int dir_foreach(const struct dir *d, int (*visit)(const char *name, void *arg), void *arg);
/** As dir_foreach, for a directory (or a link to one) that lies in it. */
int dir_foreach_in(const struct dir *d, const char *directory, int (*visit)(const char *name, void *arg), void *arg);

/** Create name with size bytes, all zero; space is reserved unless sparse. The name is durable after dir_sync, size and space
 *  after file_sync. On failure nothing is left behind. */
int file_create_(struct dir *d, struct file *f, const char *name, uint64_t size, bool sparse, const char *site);
#define file_create(d, f, name, size, sparse) file_create_((d), (f), (name), (size), (sparse), MEDIA_SITE)
/** Open an existing regular file of the directory. PA_ENOENT, PA_ECORRUPT (not a regular file), PA_EACCES. */
int file_open(struct dir *d, struct file *f, const char *name);
/** Open a file again that known was made or opened from. PA_ECORRUPT if another one has its name by now, or if it has fewer than
 *  at_least bytes. */
int file_reopen(struct dir *d, struct file *f, const struct file *known, uint64_t at_least);
/** 0 if both are one file, else PA_ECORRUPT. */
int file_is_same(const struct dir *d, const struct file *f, const struct file *known);
/** Copy size bytes at offset of a file that is not mapped yet. PA_ECORRUPT if it has not got them. */
int file_read(struct dir *d, const struct file *f, uint64_t offset, void *to, size_t size);
/** Write size bytes at offset of a file that is not mapped; durable after file_sync. */
int file_write_(struct dir *d, const struct file *f, uint64_t offset, const void *from, size_t size, const char *site);
#define file_write(d, f, offset, from, size) file_write_((d), (f), (offset), (from), (size), MEDIA_SITE)
int file_sync_(struct dir *d, struct file *f, const char *site);
#define file_sync(d, f) file_sync_((d), (f), MEDIA_SITE)
/** Map the whole file at offset of the reserved range (private and writable when the directory is read-only). */
int file_map(struct dir *d, struct file *f, uint64_t offset);
/** As file_map, of the file's first size bytes only. */
int file_map_part(struct dir *d, struct file *f, uint64_t size, uint64_t offset);
/** Map [from, from + size) of a file at offset of the reserved range and keep that with the mapped file f; opened is the same
 *  file with a descriptor. Nothing that is mapped moves or goes away meanwhile. */
int file_map_tail(struct dir *d, struct file *f, const struct file *opened, uint64_t from, uint64_t size,
                  uint64_t offset);
void file_unmap(struct dir *d, struct file *f);
/** Take the mapping out of a file that others may look at: f is not mapped any more, the result is. */
struct file file_detach(struct file *f);
/** The opposite: f, that is not mapped, becomes what `made` is; its address last, by which others know it without a lock. */
void file_attach(struct file *f, const struct file *made);
/** Close the descriptor; the mapping stays. A pool may have more files than a process may have descriptors. */
void file_close_descriptor(struct file *f);
/** Unmap and close. */
void file_close(struct dir *d, struct file *f);
/** Give back the space of [offset, offset + size), which then reads zero. PA_ENOTSUP if the file system cannot. */
int file_punch_(struct dir *d, struct file *f, uint64_t offset, uint64_t size, const char *site);
#define file_punch(d, f, offset, size) file_punch_((d), (f), (offset), (size), MEDIA_SITE)
/** Reserve the space of [offset, offset + size). PA_ENOSPC. */
int file_allocate_(struct dir *d, struct file *f, uint64_t offset, uint64_t size, const char *site);
#define file_allocate(d, f, offset, size) file_allocate_((d), (f), (offset), (size), MEDIA_SITE)
/** Take the exclusive lock (shared when the directory is read-only). PA_ELOCKED unless wait, or if the name is another file's by
 *  then. Released by file_close. */
int file_lock(struct dir *d, struct file *f, bool wait);
/** Bytes the file system has given to the file (st_blocks * 512). PA_ECORRUPT as file_reopen. */
int file_resident_bytes(struct dir *d, const struct file *f, uint64_t *ret_bytes);

/** Decide what a persist is, from a mapped file of the pool and what the user asked for (enum pa_durability); fills m except
 *  recorder. PA_ENOTSUP if power-failure durability is asked for where it cannot be had. */
int media_init(struct media *m, const struct dir *d, const struct file *mapped, int durability);
/** PA_ENOTSUP if a file's mapping needs more than m does to be durable (directories on different file systems). */
int media_accepts(const struct media *m, const struct file *mapped);

#endif
