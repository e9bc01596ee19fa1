/* SPDX-License-Identifier: BSD-3-Clause */
/* directory.c -- see directory.h. */
#include "bench/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Call visit for each entry but the directory itself and its parent. */
static void each(const char *path, void (*visit)(int dir_fd, const char *name, void *arg), void *arg)
{
    DIR *d = opendir(path);
    if (d == NULL)
        return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            visit(dirfd(d), e->d_name, arg);
    closedir(d);
}

static void add_resident(int dir_fd, const char *name, void *arg)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        *(uint64_t *)arg += (uint64_t)st.st_blocks * 512;
}

uint64_t directory_resident_bytes(const char *path)
{
    uint64_t sum = 0;
    each(path, add_resident, &sum);
    return sum;
}

struct counted {
    const char *prefix;
    uint64_t count;
};

static void count_file(int dir_fd, const char *name, void *arg)
{
    struct counted *c = arg;
    (void)dir_fd;
    c->count += strncmp(name, c->prefix, strlen(c->prefix)) == 0;
}

uint64_t directory_files(const char *path, const char *prefix)
{
    struct counted c = {prefix, 0};
    each(path, count_file, &c);
    return c.count;
}

static void remove_file(int dir_fd, const char *name, void *arg)
{
    (void)arg;
    unlinkat(dir_fd, name, 0);
}

void directory_remove(const char *path)
{
    each(path, remove_file, NULL);
    rmdir(path);
}
