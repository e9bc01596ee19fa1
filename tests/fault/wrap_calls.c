/* SPDX-License-Identifier: BSD-3-Clause */
/* wrap_calls.c -- stand-ins for the system calls that pmem/ makes: the linker gives them the library's calls (--wrap). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libpmem2.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>

#include "tests/fault/fault.h"
#include "tests/fault/wrap.h"

/* 0, or errno is set. */
static int ask(enum fault_call call, const char *name)
{
    static const char *const names[CALL_COUNT] = {
        [CALL_MKDIR] = "mkdir",     [CALL_OPEN] = "open",           [CALL_CREATE] = "create",
        [CALL_FLOCK] = "flock",     [CALL_FSTAT] = "fstat",         [CALL_FSTATAT] = "fstatat",
        [CALL_FSTATFS] = "fstatfs", [CALL_READDIR] = "readdir",     [CALL_PREAD] = "pread",
        [CALL_PWRITE] = "pwrite",   [CALL_FSYNC] = "fsync",         [CALL_FALLOCATE] = "fallocate",
        [CALL_PUNCH] = "punch",     [CALL_FTRUNCATE] = "ftruncate", [CALL_UNLINK] = "unlink",
        [CALL_RENAME] = "rename",   [CALL_GETRANDOM] = "getrandom", [CALL_MAP] = "map",
        [CALL_RESERVE] = "reserve",
    };
    int failure = fault_ask(FAULT_CALL, (int)call, name, names[call]);
    if (failure != 0)
        errno = failure;
    return failure;
}

static bool interrupted(enum fault_call call)
{
    if (!fault_interrupts(call))
        return false;
    errno = EINTR;
    return true;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    return ask(CALL_MKDIR, path) != 0 ? -1 : __real_mkdir(path, mode);
}

int __wrap_open64(const char *path, int flags, ...)
{
    return interrupted(CALL_OPEN) || ask(CALL_OPEN, path) != 0 ? -1 : __real_open64(path, flags);
}

int __wrap_openat64(int fd, const char *path, int flags, ...)
{
    enum fault_call call = (flags & O_CREAT) != 0 ? CALL_CREATE : CALL_OPEN;
    mode_t mode = 0;
    if ((flags & O_CREAT) != 0) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return interrupted(call) || ask(call, path) != 0 ? -1 : __real_openat64(fd, path, flags, mode);
}

int __wrap_flock(int fd, int how)
{
    return interrupted(CALL_FLOCK) || ask(CALL_FLOCK, "") != 0 ? -1 : __real_flock(fd, how);
}

int __wrap_fstat64(int fd, struct stat64 *s)
{
    return ask(CALL_FSTAT, "") != 0 ? -1 : __real_fstat64(fd, s);
}

int __wrap_fstatat64(int fd, const char *path, struct stat64 *s, int flags)
{
    return ask(CALL_FSTATAT, path) != 0 ? -1 : __real_fstatat64(fd, path, s, flags);
}

int __wrap_fstatfs64(int fd, struct statfs64 *s)
{
    return ask(CALL_FSTATFS, "") != 0 ? -1 : __real_fstatfs64(fd, s);
}

struct dirent64 *__wrap_readdir64(DIR *stream)
{
    return ask(CALL_READDIR, "") != 0 ? NULL : __real_readdir64(stream);
}

ssize_t __wrap_pread64(int fd, void *to, size_t size, off64_t offset)
{
    if (interrupted(CALL_PREAD) || ask(CALL_PREAD, "") != 0)
        return -1;
    return __real_pread64(fd, to, fault_transfer_limit(size), offset);
}

ssize_t __wrap_pwrite64(int fd, const void *from, size_t size, off64_t offset)
{
    if (interrupted(CALL_PWRITE) || ask(CALL_PWRITE, "") != 0)
        return -1;
    return __real_pwrite64(fd, from, fault_transfer_limit(size), offset);
}

int __wrap_fsync(int fd)
{
    return interrupted(CALL_FSYNC) || ask(CALL_FSYNC, "") != 0 ? -1 : __real_fsync(fd);
}

int __wrap_fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    enum fault_call call = (mode & FALLOC_FL_PUNCH_HOLE) != 0 ? CALL_PUNCH : CALL_FALLOCATE;
    if (call == CALL_FALLOCATE && fault_interrupts_always((uint64_t)size)) {
        errno = EINTR;
        return -1;
    }
    return interrupted(call) || ask(call, "") != 0 ? -1 : __real_fallocate64(fd, mode, offset, size);
}

/* What a file system without fallocate gets; returns its error. */
int __wrap_posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    if (fault_interrupts_always((uint64_t)size))
        return EINTR;
    if (interrupted(CALL_FALLOCATE) || ask(CALL_FALLOCATE, "") != 0)
        return errno;
    return __real_posix_fallocate64(fd, offset, size);
}

int __wrap_ftruncate64(int fd, off64_t size)
{
    return interrupted(CALL_FTRUNCATE) || ask(CALL_FTRUNCATE, "") != 0 ? -1 : __real_ftruncate64(fd, size);
}

int __wrap_unlinkat(int fd, const char *path, int flags)
{
    return ask(CALL_UNLINK, path) != 0 ? -1 : __real_unlinkat(fd, path, flags);
}

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return ask(CALL_RENAME, from) != 0 ? -1 : __real_renameat(from_fd, from, to_fd, to);
}

ssize_t __wrap_getrandom(void *to, size_t size, unsigned flags)
{
    return interrupted(CALL_GETRANDOM) || ask(CALL_GETRANDOM, "") != 0 ? -1 : __real_getrandom(to, size, flags);
}

/* libpmem2's functions return an errno value, negative, or a code of their own. Memory is a matter of theirs, too. */
int __wrap_pmem2_map_new(struct pmem2_map **map, const struct pmem2_config *config, struct pmem2_source *source)
{
    if (ask(CALL_MAP, "") != 0)
        return -errno;
    if (fault_ask(FAULT_MEMORY, 0, "", "pmem2_map_new") != 0)
        return -ENOMEM;
    return __real_pmem2_map_new(map, config, source);
}

int __wrap_pmem2_vm_reservation_new(struct pmem2_vm_reservation **reservation, void *address, size_t size)
{
    if (ask(CALL_RESERVE, "") != 0 || fault_ask(FAULT_MEMORY, 0, "", "pmem2_vm_reservation_new") != 0)
        return -ENOMEM;
    return __real_pmem2_vm_reservation_new(reservation, address, size);
}

int __wrap_pmem2_config_new(struct pmem2_config **config)
{
    if (fault_ask(FAULT_MEMORY, 0, "", "pmem2_config_new") != 0)
        return -ENOMEM;
    return __real_pmem2_config_new(config);
}

int __wrap_pmem2_source_from_fd(struct pmem2_source **source, int fd)
{
    if (fault_ask(FAULT_MEMORY, 0, "", "pmem2_source_from_fd") != 0)
        return -ENOMEM;
    return __real_pmem2_source_from_fd(source, fd);
}
