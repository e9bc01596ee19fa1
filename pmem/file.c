/* SPDX-License-Identifier: BSD-3-Clause */
/* file.c -- see file.h. Linux system calls and libpmem2's mappings, with a test's hooks around each. */
#include "pmem/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <libpmem2.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/error.h"
#include "pmem/range.h"

/* Asks the test's hook; 0 or an errno value to fail with. */
static int hook_before(const struct dir *d, enum file_op op, const char *name, const char *site)
{
    if (d->hooks == NULL || d->hooks->before == NULL)
        return 0;
    return d->hooks->before(d->hooks->context, op, name, site);
}

static void hook_after(const struct dir *d, enum file_op op, const char *name, uint64_t offset, uint64_t size,
                       void *address, const char *site)
{
    if (d->hooks != NULL && d->hooks->after != NULL)
        d->hooks->after(d->hooks->context, d, op, name, offset, size, address, site);
}

static bool hook_skip(const struct dir *d, enum file_op op, const char *site)
{
    return d->hooks != NULL && d->hooks->skip != NULL && d->hooks->skip(d->hooks->context, op, site);
}

/* A signal that interrupts a system call is no failure: begin again. */
#define AGAIN(call) TEMP_FAILURE_RETRY(call)

static int refuse(const struct dir *d, int error_number, const char *verb, const char *name)
{
    return error_set_errno(error_number, "cannot %s %s/%s", verb, d->path, name);
}

/* --- directories --------------------------------------------------------------------------------------------------------- */

/* A new directory is durable when its parent is. One that was there before is its maker's matter, unless that was a pa_create
 * which a crash cut off here: so its parent is synced too, where that can be done. */
static int sync_parent(const struct dir *d, bool made)
{
    const char *const site = MEDIA_SITE;
    if (hook_skip(d, FILE_OP_SYNC_DIR, site))
        return 0;
    int failure = hook_before(d, FILE_OP_SYNC_DIR, "..", site);
    if (failure == 0) {
        int parent = (int)AGAIN(openat(d->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (parent < 0 || AGAIN(fsync(parent)) != 0)
            failure = errno;
        if (parent >= 0)
            close(parent);
    }
    if (failure == 0)
        hook_after(d, FILE_OP_SYNC_DIR, "..", 0, 0, NULL, site);
    if (failure == 0 || !made)
        return 0;
    return error_set_errno(failure, "cannot make the new directory %s durable in its parent", d->path);
}

int dir_open(struct dir *d, const char *path, bool create, bool read_only, const struct file_hooks *hooks)
{
    *d = (struct dir){.fd = -1, .read_only = read_only, .hooks = hooks};
    d->path = strdup(path);
    if (d->path == NULL)
        return error_set(PA_ENOMEM, "no memory for the name of %s", path);
    int failure = hook_before(d, FILE_OP_OPEN_DIR, path, MEDIA_SITE);
    bool made = failure == 0 && create && mkdir(path, 0700) == 0;
    if (failure == 0 && create && !made && errno != EEXIST)
        failure = errno;
    if (failure == 0) {
        d->fd = (int)AGAIN(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        failure = d->fd < 0 ? errno : 0;
    }
    int code = failure == 0 ? 0 : error_set_errno(failure, "cannot open the pool directory %s", path);
    if (code == 0)
        hook_after(d, FILE_OP_OPEN_DIR, path, 0, made, NULL, MEDIA_SITE);
    if (code == 0 && create)
        code = sync_parent(d, made);
    if (code != 0)
        dir_close(d);
    return code;
}

void dir_close(struct dir *d)
{
    if (d->reservation != NULL)
        range_keep(d->reservation);
    d->reservation = NULL;
    if (d->fd >= 0)
        close(d->fd);
    free(d->path);
    d->fd = -1;
    d->path = NULL;
    d->base = NULL;
}

/* libpmem2 keeps its lists of mappings and ranges under locks that may be held for ever here, so it is not asked. Its records of what
 * was mapped stay, which is why the addresses must not be used again. */
void dir_leave_to_parent(struct dir *d, struct file *lock_file)
{
    if (d->base != NULL)
        mmap(d->base, d->reserved_bytes, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    file_close_descriptor(lock_file); /* the parent's lock stays: it belongs to the open file that both share */
    close(d->fd);
    free(d->path);
}

int dir_lock(struct dir *d)
{
    int failure = hook_before(d, FILE_OP_LOCK, "", MEDIA_SITE);
    if (failure == 0 && AGAIN(flock(d->fd, LOCK_EX | LOCK_NB)) != 0)
        failure = errno;
    if (failure == EWOULDBLOCK)
        return error_set(PA_ELOCKED, "a pool is just being created in %s; wait for it and open it", d->path);
    return failure == 0 ? 0 : error_set_errno(failure, "cannot lock the directory %s", d->path);
}

void dir_unlock(struct dir *d)
{
    flock(d->fd, LOCK_UN);
}

int dir_reserve(struct dir *d, uint64_t want, uint64_t need, uint64_t alignment)
{
    int failure = hook_before(d, FILE_OP_RESERVE, "", MEDIA_SITE);
    if (failure != 0)
        return error_set_errno(failure, "cannot reserve %llu bytes of address space for %s", (unsigned long long)need,
                               d->path);
    d->reservation = range_new(want, need, alignment);
    if (d->reservation == NULL)
        return error_set(
            PA_ENOMEM, "cannot reserve %llu bytes of address space for %s; raise the limit (ulimit -v) or set max_size",
            (unsigned long long)need, d->path);
    d->base = pmem2_vm_reservation_get_address(d->reservation);
    d->reserved_bytes = pmem2_vm_reservation_get_size(d->reservation);
    hook_after(d, FILE_OP_RESERVE, "", 0, d->reserved_bytes, d->base, MEDIA_SITE);
    return 0;
}

int dir_sync_(struct dir *d, const char *site)
{
    if (hook_skip(d, FILE_OP_SYNC_DIR, site))
        return 0;
    int failure = hook_before(d, FILE_OP_SYNC_DIR, "", site);
    if (failure == 0 && AGAIN(fsync(d->fd)) != 0)
        failure = errno;
    if (failure != 0)
        return error_set_errno(failure, "cannot make the directory %s durable", d->path);
    hook_after(d, FILE_OP_SYNC_DIR, "", 0, 0, NULL, site);
    return 0;
}

/* The name up to its last slash; false if it has none. */
static bool directory_of(const char *name, char ret[64])
{
    const char *slash = strrchr(name, '/');
    if (slash == NULL || slash - name >= 64)
        return false;
    memcpy(ret, name, (size_t)(slash - name));
    ret[slash - name] = '\0';
    return true;
}

int dir_sync_of_(struct dir *d, const char *name, const char *site)
{
    char directory[64];
    if (!directory_of(name, directory))
        return dir_sync_(d, site);
    if (hook_skip(d, FILE_OP_SYNC_DIR, site))
        return 0;
    int failure = hook_before(d, FILE_OP_SYNC_DIR, directory, site);
    if (failure == 0) {
        int fd = (int)AGAIN(openat(d->fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (fd < 0 || AGAIN(fsync(fd)) != 0)
            failure = errno;
        if (fd >= 0)
            close(fd);
    }
    if (failure != 0)
        return refuse(d, failure, "make durable the directory", directory);
    hook_after(d, FILE_OP_SYNC_DIR, directory, 0, 0, NULL, site);
    return 0;
}

int dir_real_path(const struct dir *d, char *ret)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", d->fd);
    if (realpath(self, ret) != NULL || realpath(d->path, ret) != NULL)
        return 0;
    return error_set_errno(errno, "cannot tell where %s is", d->path);
}

/* A rename would replace whatever has the name: only links are the library's. */
static int refuse_other(const struct dir *d, const char *name)
{
    struct stat st;
    if (fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || S_ISLNK(st.st_mode))
        return 0;
    return error_set(PA_EEXIST,
                     "%s/%s is in the way: a pool with further directories has a link of that name; rename it, or move "
                     "it elsewhere",
                     d->path, name);
}

int dir_link_is_possible(const struct dir *d, const char *name)
{
    char fresh[64];
    snprintf(fresh, sizeof fresh, "%s.new", name);
    int code = refuse_other(d, name);
    return code == 0 ? refuse_other(d, fresh) : code;
}

int dir_link(struct dir *d, const char *target, const char *name)
{
    char fresh[64];
    snprintf(fresh, sizeof fresh, "%s.new", name);
    int code = dir_link_is_possible(d, name);
    if (code != 0)
        return code;
    int failure = hook_before(d, FILE_OP_CREATE, fresh, MEDIA_SITE);
    if (failure == 0 && unlinkat(d->fd, fresh, 0) != 0 && errno != ENOENT)
        failure = errno;
    if (failure == 0 && symlinkat(target, d->fd, fresh) != 0)
        failure = errno;
    if (failure != 0)
        return refuse(d, failure, "make the link", name);
    hook_after(d, FILE_OP_CREATE, fresh, 0, 0, (void *)target, MEDIA_SITE);
    return dir_rename(d, fresh, name);
}

bool dir_has(const struct dir *d, const char *name)
{
    struct stat st;
    return fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

bool dir_link_is(const struct dir *d, const char *name, const char *target)
{
    char text[PATH_MAX];
    ssize_t n = readlinkat(d->fd, name, text, sizeof text - 1);
    if (n < 0)
        return false;
    text[n] = '\0';
    return strcmp(text, target) == 0;
}

static int refuse_directory(const struct dir *d, const char *name)
{
    return error_set(PA_ECORRUPT, "%s/%s is a directory in the place of one of the pool's files; remove it", d->path,
                     name);
}

int dir_unlink_(struct dir *d, const char *name, bool must_exist, const char *site)
{
    int failure = d->read_only ? EROFS : hook_before(d, FILE_OP_UNLINK, name, site);
    if (failure == 0 && unlinkat(d->fd, name, 0) != 0)
        failure = errno;
    if (failure == ENOENT && !must_exist)
        return 0;
    if (failure == EISDIR)
        return refuse_directory(d, name);
    if (failure != 0)
        return refuse(d, failure, "remove", name);
    hook_after(d, FILE_OP_UNLINK, name, 0, 0, NULL, site);
    return 0;
}

int dir_may_unlink(const struct dir *d, const char *name)
{
    struct stat s;
    bool is_directory = fstatat(d->fd, name, &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(s.st_mode);
    return is_directory ? refuse_directory(d, name) : 0;
}

int dir_rename_(struct dir *d, const char *from, const char *to, const char *site)
{
    int failure = d->read_only ? EROFS : hook_before(d, FILE_OP_RENAME, from, site);
    if (failure == 0 && renameat(d->fd, from, d->fd, to) != 0)
        failure = errno;
    if (failure != 0)
        return refuse(d, failure, "rename", from);
    hook_after(d, FILE_OP_RENAME, from, 0, 0, (void *)to, site);
    return 0;
}

bool dir_is_volatile(const struct dir *d)
{
    struct statfs s;
    return fstatfs(d->fd, &s) == 0 && (s.f_type == TMPFS_MAGIC || s.f_type == RAMFS_MAGIC);
}

uint64_t dir_free_bytes_of(const struct dir *d, const char *name)
{
    char directory[64];
    struct statfs s;
    bool other = directory_of(name, directory);
    int fd = other ? (int)AGAIN(openat(d->fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) : d->fd;
    if (fd < 0)
        return 0;
    uint64_t bytes = fstatfs(fd, &s) == 0 ? (uint64_t)s.f_bavail * (uint64_t)s.f_bsize : 0;
    if (other)
        close(fd);
    return bytes;
}

int dir_foreach(const struct dir *d, int (*visit)(const char *name, void *arg), void *arg)
{
    return dir_foreach_in(d, ".", visit, arg);
}

int dir_foreach_in(const struct dir *d, const char *directory, int (*visit)(const char *name, void *arg), void *arg)
{
    int failure = hook_before(d, FILE_OP_LIST, "", MEDIA_SITE);
    if (failure != 0)
        return error_set_errno(failure, "cannot list %s", d->path);
    int fd = (int)AGAIN(openat(d->fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL) {
        int code = error_set_errno(errno, "cannot list %s/%s", d->path, directory);
        if (fd >= 0)
            close(fd);
        return code;
    }
    int result = 0;
    while (result == 0) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            result = errno == 0 ? 0 : error_set_errno(errno, "cannot list %s", d->path);
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = visit(entry->d_name, arg);
    }
    closedir(stream);
    return result;
}

/* --- files --------------------------------------------------------------------------------------------------------------- */

static void file_init(struct file *f, const char *name)
{
    f->fd = -1;
    f->size = f->device = f->inode = 0;
    f->map = NULL;
    f->mapped = 0;
    f->tails = NULL;
    __atomic_store_n(&f->address, NULL, __ATOMIC_RELAXED); /* of a known segment: others look without a lock */
    snprintf(f->name, sizeof f->name, "%s", name);
}

/* The file grows if needed. File systems without extents get zeros written. 0 or an errno value. */
static int reserve_part(int fd, uint64_t offset, uint64_t size)
{
    int result = fallocate(fd, 0, (off_t)offset, (off_t)size) == 0 ? 0 : errno;
    return result == EOPNOTSUPP ? posix_fallocate(fd, (off_t)offset, (off_t)size) : result;
}

/* tmpfs takes back what an interrupted fallocate had reserved (Linux before 6.18, for any signal). Under a timer that comes more often
 * than the whole takes, the whole would never be done; so each interruption halves what is asked for at once. */
#define SPACE_PART_MIN 65536u

/* Space for [offset, offset + size); 0 or an errno value. */
static int reserve_space(int fd, uint64_t offset, uint64_t size)
{
    uint64_t part = size;
    while (size != 0) {
        int result = reserve_part(fd, offset, part);
        if (result != 0 && result != EINTR)
            return result;
        if (result == 0) {
            offset += part;
            size -= part;
        } else if (part > SPACE_PART_MIN) {
            part = round_up(part / 2, SPACE_PART_MIN);
        }
        part = part < size ? part : size;
    }
    return 0;
}

static void note_identity(struct file *f, const struct stat *s)
{
    f->device = s->st_dev;
    f->inode = s->st_ino;
}

int file_create_(struct dir *d, struct file *f, const char *name, uint64_t size, bool sparse, const char *site)
{
    file_init(f, name);
    int failure = d->read_only ? EROFS : hook_before(d, FILE_OP_CREATE, name, site);
    if (failure == 0) {
        f->fd = (int)AGAIN(openat(d->fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
        failure = f->fd < 0 ? errno : 0;
    }
    if (failure != 0)
        return refuse(d, failure, "create", name);
    hook_after(d, FILE_OP_CREATE, name, 0, 0, NULL, site);

    failure = hook_before(d, FILE_OP_ALLOCATE, name, site);
    if (failure == 0) {
        if (sparse)
            failure = AGAIN(ftruncate(f->fd, (off_t)size)) == 0 ? 0 : errno;
        else
            failure = reserve_space(f->fd, 0, size);
    }
    struct stat s;
    if (failure == 0 && fstat(f->fd, &s) != 0)
        failure = errno;
    if (failure != 0) {
        int code = error_set_errno(failure, "cannot reserve %llu bytes for %s/%s; free space in the file system%s",
                                   (unsigned long long)size, d->path, name, sparse ? "" : " or use PA_SPARSE");
        struct error_text first;
        error_save(&first);
        file_close_descriptor(f);
        (void)dir_unlink_(d, name, false, site);
        error_restore(&first);
        return code;
    }
    f->size = size;
    note_identity(f, &s);
    hook_after(d, FILE_OP_ALLOCATE, name, 0, size, NULL, site);
    return 0;
}

static int refuse_kind(const struct dir *d, const char *name)
{
    return error_set(PA_ECORRUPT, "%s/%s is not a regular file; restore the pool's own file", d->path, name);
}

/* 0 or an errno value; *ret_regular: nothing else was opened. To open a device may have an effect, so it is not tried; what comes
 * into the file's place meanwhile is found by the fstat after it, and O_NONBLOCK keeps a FIFO from blocking. */
static int open_regular(struct dir *d, struct file *f, const char *name, bool *ret_regular)
{
    struct stat s;
    if (fstatat(d->fd, name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        return errno;
    *ret_regular = S_ISREG(s.st_mode);
    if (!*ret_regular)
        return 0;
    int flags = (d->read_only ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    f->fd = (int)AGAIN(openat(d->fd, name, flags));
    return f->fd < 0 ? errno : 0;
}

/* Of an open file; on failure it is closed. */
static int examine(struct dir *d, struct file *f)
{
    struct stat s;
    int code = 0, failure = hook_before(d, FILE_OP_STAT, f->name, MEDIA_SITE);
    if (failure == 0 && fstat(f->fd, &s) != 0)
        failure = errno;
    if (failure != 0)
        code = refuse(d, failure, "examine", f->name);
    else if (!S_ISREG(s.st_mode))
        code = refuse_kind(d, f->name);
    if (code != 0) {
        file_close_descriptor(f);
        return code;
    }
    f->size = (uint64_t)s.st_size;
    note_identity(f, &s);
    return 0;
}

int file_open(struct dir *d, struct file *f, const char *name)
{
    bool regular = true;
    file_init(f, name);
    int failure = hook_before(d, FILE_OP_OPEN, name, MEDIA_SITE);
    if (failure == 0)
        failure = open_regular(d, f, name, &regular);
    if (!regular || failure == ELOOP || failure == ENXIO || failure == EISDIR)
        return refuse_kind(d, name);
    if (failure != 0)
        return refuse(d, failure, "open", name);
    int code = examine(d, f);
    if (code == 0)
        hook_after(d, FILE_OP_OPEN, name, 0, f->size, NULL, MEDIA_SITE);
    return code;
}

static int refuse_replaced(const struct dir *d, const char *name)
{
    return error_set(PA_ECORRUPT,
                     "%s/%s was replaced by another file while the pool is open; close the pool and restore the file",
                     d->path, name);
}

int file_is_same(const struct dir *d, const struct file *f, const struct file *known)
{
    return f->device == known->device && f->inode == known->inode ? 0 : refuse_replaced(d, f->name);
}

int file_reopen(struct dir *d, struct file *f, const struct file *known, uint64_t at_least)
{
    int code = file_open(d, f, known->name);
    if (code != 0)
        return code;
    code = file_is_same(d, f, known);
    if (code == 0 && f->size < at_least)
        code = error_set(PA_ECORRUPT,
                         "%s/%s was cut to %llu bytes while the pool is open; close the pool and restore the file",
                         d->path, f->name, (unsigned long long)f->size);
    if (code != 0)
        file_close_descriptor(f);
    return code;
}

int file_read(struct dir *d, const struct file *f, uint64_t offset, void *to, size_t size)
{
    int failure = hook_before(d, FILE_OP_READ, f->name, MEDIA_SITE);
    for (size_t done = 0; failure == 0 && done < size;) {
        ssize_t got = AGAIN(pread(f->fd, (char *)to + done, size - done, (off_t)(offset + done)));
        if (got == 0)
            return error_set(PA_ECORRUPT,
                             "%s/%s ends before the %zu bytes at offset %llu that it must have; restore the file from "
                             "a backup",
                             d->path, f->name, size, (unsigned long long)offset);
        if (got < 0)
            failure = errno;
        else
            done += (size_t)got;
    }
    if (failure != 0)
        return refuse(d, failure, "read", f->name);
    hook_after(d, FILE_OP_READ, f->name, offset, size, to, MEDIA_SITE);
    return 0;
}

static int write_all(int fd, uint64_t offset, const char *from, size_t size)
{
    while (size > 0) {
        ssize_t n = AGAIN(pwrite(fd, from, size, (off_t)offset));
        if (n <= 0)
            return n < 0 ? errno : EIO;
        from += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

int file_write_(struct dir *d, const struct file *f, uint64_t offset, const void *from, size_t size, const char *site)
{
    int failure = hook_before(d, FILE_OP_WRITE, f->name, site);
    if (failure == 0)
        failure = write_all(f->fd, offset, from, size);
    if (failure != 0)
        return refuse(d, failure, "write to", f->name);
    hook_after(d, FILE_OP_WRITE, f->name, offset, size, NULL, site);
    return 0;
}

int file_sync_(struct dir *d, struct file *f, const char *site)
{
    if (hook_skip(d, FILE_OP_SYNC, site))
        return 0;
    int failure = hook_before(d, FILE_OP_SYNC, f->name, site);
    if (failure == 0 && AGAIN(fsync(f->fd)) != 0)
        failure = errno;
    if (failure != 0)
        return refuse(d, failure, "make durable", f->name);
    hook_after(d, FILE_OP_SYNC, f->name, 0, f->size, NULL, site);
    return 0;
}

/* libpmem2's result as one of ours. */
static int refuse_map(const struct dir *d, const char *name, int result)
{
    if (result == -ENOMEM)
        return error_set(PA_ENOMEM, "cannot map %s/%s: out of memory, or more mappings than vm.max_map_count allows",
                         d->path, name);
    if (result == PMEM2_E_NO_ACCESS)
        return error_set(PA_EACCES, "cannot map %s/%s: %s", d->path, name, pmem2_errormsg());
    if (result > PMEM2_E_UNKNOWN) /* an errno value */
        return refuse(d, -result, "map", name);
    return error_set(PA_EIO, "cannot map %s/%s: %s", d->path, name, pmem2_errormsg());
}

/* By libpmem2, which also finds out what a persist of the mapping needs. */
static int map_by_library(struct dir *d, const struct file *f, uint64_t from, uint64_t size, uint64_t offset,
                          struct pmem2_map **ret)
{
    struct pmem2_config *config = NULL;
    struct pmem2_source *source = NULL;
    int result = pmem2_source_from_fd(&source, f->fd);
    if (result == 0)
        result = pmem2_config_new(&config);
    if (result == 0)
        result = pmem2_config_set_required_store_granularity(config, PMEM2_GRANULARITY_PAGE);
    if (result == 0 && d->read_only)
        result = pmem2_config_set_sharing(config, PMEM2_PRIVATE);
    if (result == 0)
        result = pmem2_config_set_vm_reservation(config, d->reservation, offset);
    if (result == 0 && from != 0)
        result = pmem2_config_set_offset(config, from);
    if (result == 0)
        result = pmem2_config_set_length(config, size);
    if (result == 0)
        result = pmem2_map_new(ret, config, source);
    if (config != NULL)
        pmem2_config_delete(&config);
    if (source != NULL)
        pmem2_source_delete(&source);
    return result == 0 ? 0 : refuse_map(d, f->name, result);
}

/*
 * How to map the files after the first. libpmem2 (1.12) looks through /sys for each mapping and changes the process's working
 * directory while it does so; that costs as much as everything else at open, and other threads would notice.
 */
static enum file_way way_of(const struct dir *d, const struct file *f)
{
    if (d->read_only)
        return FILE_WAY_PRIVATE;
    if (pmem2_map_get_store_granularity(f->map) == PMEM2_GRANULARITY_PAGE)
        return FILE_WAY_SHARED;
    void *probe = mmap(NULL, 4096, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, f->fd, 0);
    if (probe == MAP_FAILED) /* the granularity was chosen by PMEM2_FORCE_GRANULARITY */
        return FILE_WAY_SHARED;
    munmap(probe, 4096);
    return FILE_WAY_SYNC;
}

static int map_directly(struct dir *d, const struct file *f, uint64_t from, uint64_t size, uint64_t offset)
{
    /* Private without reserve: only few pages are ever copied, and a pool may be larger than the memory. */
    static const int flags[] = {[FILE_WAY_SYNC] = MAP_SHARED_VALIDATE | MAP_SYNC,
                                [FILE_WAY_SHARED] = MAP_SHARED,
                                [FILE_WAY_PRIVATE] = MAP_PRIVATE | MAP_NORESERVE};
    if (offset + size > d->reserved_bytes)
        return error_set(PA_ECORRUPT, "%s/%s would lie outside the pool's address range", d->path, f->name);
    if (mmap(d->base + offset, size, PROT_READ | PROT_WRITE, flags[d->way] | MAP_FIXED, f->fd, (off_t)from) !=
        MAP_FAILED)
        return 0;
    if (d->way == FILE_WAY_SYNC && errno == EOPNOTSUPP)
        return error_set(PA_ENOTSUP,
                         "%s/%s lies on a file system without DAX, the pool file on one with; keep the pool's "
                         "directories on file systems of one kind",
                         d->path, f->name);
    if (errno == ENOMEM)
        return refuse_map(d, f->name, -ENOMEM);
    return refuse(d, errno, "map", f->name);
}

/* The range is reserved again. If the kernel cannot, the file stays mapped, which harms nobody. */
static void unmap_directly(void *address, uint64_t size)
{
    (void)!mmap(address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

/* Map size bytes from `from` of an open file at offset of the reserved range; *ret NULL: not by libpmem2. */
static int map_range(struct dir *d, const struct file *f, uint64_t from, uint64_t size, uint64_t offset,
                     struct pmem2_map **ret)
{
    int failure = hook_before(d, FILE_OP_MAP, f->name, MEDIA_SITE);
    if (failure != 0)
        return refuse(d, failure, "map", f->name);
    *ret = NULL;
    int code = d->way == FILE_WAY_LIBRARY ? map_by_library(d, f, from, size, offset, ret)
                                          : map_directly(d, f, from, size, offset);
    if (code == 0)
        hook_after(d, FILE_OP_MAP, f->name, from, size, d->base + offset, MEDIA_SITE);
    return code;
}

int file_map_part(struct dir *d, struct file *f, uint64_t size, uint64_t offset)
{
    int code = map_range(d, f, 0, size, offset, &f->map);
    if (code != 0)
        return code;
    f->mapped = f->map == NULL ? size : 0;
    if (f->map != NULL)
        d->way = way_of(d, f);
    __atomic_store_n(&f->address, d->base + offset, __ATOMIC_RELEASE); /* others look without a lock */
    return 0;
}

int file_map(struct dir *d, struct file *f, uint64_t offset)
{
    return file_map_part(d, f, f->size, offset);
}

struct file_tail {
    struct pmem2_map *map;
    void *address;
    uint64_t mapped;
    struct file_tail *next;
};

int file_map_tail(struct dir *d, struct file *f, const struct file *opened, uint64_t from, uint64_t size,
                  uint64_t offset)
{
    struct file_tail *tail = calloc(1, sizeof *tail);
    if (tail == NULL)
        return error_set(PA_ENOMEM, "no memory for another mapping of %s/%s", d->path, f->name);
    int code = map_range(d, opened, from, size, offset, &tail->map);
    if (code != 0) {
        free(tail);
        return code;
    }
    tail->address = d->base + offset;
    tail->mapped = size;
    tail->next = f->tails;
    f->tails = tail;
    return 0;
}

static void unmap_range(struct pmem2_map **map, void *address, uint64_t mapped)
{
    if (*map != NULL)
        pmem2_map_delete(map);
    else if (mapped != 0)
        unmap_directly(address, mapped);
}

void file_unmap(struct dir *d, struct file *f)
{
    (void)d;
    while (f->tails != NULL) {
        struct file_tail *tail = f->tails;
        f->tails = tail->next;
        unmap_range(&tail->map, tail->address, tail->mapped);
        free(tail);
    }
    unmap_range(&f->map, f->address, f->mapped);
    f->mapped = 0;
    __atomic_store_n(&f->address, NULL, __ATOMIC_RELEASE);
}

struct file file_detach(struct file *f)
{
    struct file detached = *f;
    f->map = NULL;
    f->mapped = 0;
    f->tails = NULL;
    __atomic_store_n(&f->address, NULL, __ATOMIC_RELEASE);
    return detached;
}

void file_attach(struct file *f, const struct file *made)
{
    size_t at = offsetof(struct file, address), after = at + sizeof f->address;
    memcpy(f, made, at);
    memcpy((char *)f + after, (const char *)made + after, sizeof *f - after);
    __atomic_store_n(&f->address, made->address, __ATOMIC_RELEASE);
}

void file_close_descriptor(struct file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

void file_close(struct dir *d, struct file *f)
{
    file_unmap(d, f);
    file_close_descriptor(f);
}

int file_punch_(struct dir *d, struct file *f, uint64_t offset, uint64_t size, const char *site)
{
    int failure = hook_before(d, FILE_OP_PUNCH, f->name, site);
    int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (failure == 0 && AGAIN(fallocate(f->fd, how, (off_t)offset, (off_t)size)) != 0)
        failure = errno;
    if (failure != 0)
        return refuse(d, failure, "punch a hole into", f->name);
    hook_after(d, FILE_OP_PUNCH, f->name, offset, size, NULL, site);
    return 0;
}

int file_allocate_(struct dir *d, struct file *f, uint64_t offset, uint64_t size, const char *site)
{
    int failure = hook_before(d, FILE_OP_ALLOCATE, f->name, site);
    if (failure == 0)
        failure = reserve_space(f->fd, offset, size);
    if (failure != 0)
        return refuse(d, failure, "reserve space in", f->name);
    hook_after(d, FILE_OP_ALLOCATE, f->name, offset, size, NULL, site);
    return 0;
}

int file_lock(struct dir *d, struct file *f, bool wait)
{
    if (d->locked)
        return 0;
    int failure = hook_before(d, FILE_OP_LOCK, f->name, MEDIA_SITE);
    int how = (d->read_only ? LOCK_SH : LOCK_EX) | (wait ? 0 : LOCK_NB);
    if (failure == 0 && AGAIN(flock(f->fd, how)) != 0)
        failure = errno;
    if (failure == EWOULDBLOCK)
        return error_set(PA_ELOCKED, "the pool in %s is open elsewhere; close it there, or wait with PA_WAIT_LOCK",
                         d->path);
    struct stat s;
    if (failure == 0 && fstatat(d->fd, f->name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        failure = errno;
    if (failure == ENOENT || (failure == 0 && (s.st_dev != f->device || s.st_ino != f->inode)))
        return error_set(PA_ELOCKED, "%s/%s was replaced by another process meanwhile; try again", d->path, f->name);
    if (failure != 0)
        return refuse(d, failure, "lock", f->name);
    return 0;
}

int file_resident_bytes(struct dir *d, const struct file *f, uint64_t *ret_bytes)
{
    struct stat s;
    int failure = hook_before(d, FILE_OP_STAT, f->name, MEDIA_SITE);
    if (failure == 0 && fstatat(d->fd, f->name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        failure = errno;
    if (failure != 0)
        return refuse(d, failure, "examine", f->name);
    if (s.st_dev != f->device || s.st_ino != f->inode)
        return refuse_replaced(d, f->name);
    *ret_bytes = (uint64_t)s.st_blocks * 512;
    return 0;
}
