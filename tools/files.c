/* SPDX-License-Identifier: BSD-3-Clause */
/* files.c -- see files.h. */
#include "tools/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* pool.pa, and KIND-NUMBER.pa with eight hexadecimal digits. */
static bool parse_name(const char *name, uint64_t *ret_slot)
{
    unsigned slot = 0;
    int end = 0;
    if (strcmp(name, "pool.pa") != 0 &&
        (sscanf(name, "%*[a-z]-%8x.pa%n", &slot, &end) != 1 || end == 0 || name[end] != '\0'))
        return false;
    *ret_slot = slot;
    return strlen(name) < sizeof((struct pool_file *)0)->name;
}

/* prefix: of the file's name in the pool's directory. */
static int add_file(struct pool_files *files, int directory, const char *prefix, const char *name, uint64_t slot)
{
    struct stat s;
    if (fstatat(directory, name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : errno; /* deleted meanwhile */
    if (!S_ISREG(s.st_mode))
        return 0;
    struct pool_file *list = realloc(files->list, (files->count + 1) * sizeof *list);
    if (list == NULL)
        return ENOMEM;
    files->list = list;
    struct pool_file *f = &list[files->count++];
    *f = (struct pool_file){.slot = slot, .bytes = (uint64_t)s.st_size, .resident_bytes = (uint64_t)s.st_blocks * 512};
    snprintf(f->name, sizeof f->name, "%s%s", prefix, name);
    files->bytes += f->bytes;
    files->resident_bytes += f->resident_bytes;
    return 0;
}

static int by_slot(const void *a, const void *b)
{
    const struct pool_file *x = a, *y = b;
    return x->slot != y->slot ? (x->slot > y->slot ? 1 : -1) : strcmp(x->name, y->name);
}

static int read_directory(struct pool_files *files, DIR *stream, const char *prefix)
{
    int failure = 0;
    for (struct dirent *entry; failure == 0 && (entry = readdir(stream)) != NULL;) {
        uint64_t slot;
        if (parse_name(entry->d_name, &slot))
            failure = add_file(files, dirfd(stream), prefix, entry->d_name, slot);
    }
    return failure;
}

/* What the links dir-1, dir-2... lead to; they are numbered without a gap. */
static int read_further(struct pool_files *files, int directory)
{
    int failure = 0;
    for (unsigned k = 1; failure == 0; k++) {
        char link[32];
        snprintf(link, sizeof link, "dir-%u", k);
        int fd = openat(directory, link, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return errno == ENOENT ? 0 : errno;
        DIR *stream = fdopendir(fd);
        if (stream == NULL) {
            close(fd);
            return ENOMEM;
        }
        strcat(link, "/");
        failure = read_directory(files, stream, link);
        closedir(stream);
    }
    return failure;
}

int pool_files_read(const char *dir, struct pool_files *ret)
{
    *ret = (struct pool_files){0};
    DIR *stream = opendir(dir);
    if (stream == NULL)
        return errno;
    int failure = read_directory(ret, stream, "");
    if (failure == 0)
        failure = read_further(ret, dirfd(stream));
    closedir(stream);
    if (failure != 0)
        pool_files_release(ret);
    else if (ret->count != 0)
        qsort(ret->list, ret->count, sizeof *ret->list, by_slot);
    return failure;
}

void pool_files_release(struct pool_files *files)
{
    free(files->list);
    *files = (struct pool_files){0};
}

struct pool_file *pool_files_find(const struct pool_files *files, uint64_t slot)
{
    size_t low = 0, high = files->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (files->list[middle].slot < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low < files->count && files->list[low].slot == slot ? &files->list[low] : NULL;
}

uint64_t pool_files_resident(const char *dir)
{
    struct pool_files files;
    if (pool_files_read(dir, &files) != 0)
        return 0;
    uint64_t resident = files.resident_bytes;
    pool_files_release(&files);
    return resident;
}

/* The whole file counts as data where the file system knows no holes. */
static int walk_ranges(int fd, uint64_t bytes, pool_range_fn visit, void *arg)
{
    uint64_t from = 0;
    while (from < bytes) {
        off_t hole = lseek(fd, (off_t)from, SEEK_HOLE);
        if (hole < 0)
            return errno == ENXIO || errno == EINVAL ? 0 : errno;
        if ((uint64_t)hole >= bytes)
            return 0;
        off_t data = lseek(fd, hole, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            return errno;
        from = data < 0 || (uint64_t)data > bytes ? bytes : (uint64_t)data;
        visit((uint64_t)hole, from - (uint64_t)hole, arg);
    }
    return 0;
}

int pool_file_empty_ranges(const char *dir, const struct pool_file *file, pool_range_fn visit, void *arg)
{
    int directory = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return errno;
    int failure = 0, fd = openat(directory, file->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        failure = errno;
    close(directory);
    if (failure != 0)
        return failure;
    failure = walk_ranges(fd, file->bytes, visit, arg);
    close(fd);
    return failure;
}
