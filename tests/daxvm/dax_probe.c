/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dax_probe.c -- does this machine lose at a power cut what a real one would lose? Otherwise no cut of it proves anything.
 *
 * dax_probe DIR write: makes three files and cuts the power: "synced" (file and directory synced), "mapped" (nothing synced, but a
 * word stored through a MAP_SYNC mapping), "unsynced" (nothing). dax_probe DIR read: the first two must be whole, the third
 * must be gone. Exit code: 0 = so it is, 1 = not so, 2 = usage or system error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/daxvm/cut.h"

#define FILE_BYTES (1u << 20)
#define WORD       0x6576727573ull

static int system_error(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    return 2;
}

static int create(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 && posix_fallocate(fd, 0, FILE_BYTES) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int write_and_cut(int dir)
{
    if (!cut_choose("time:1"))
        return system_error("no port");
    int fd = create(dir, "synced");
    if (fd < 0 || fsync(fd) != 0 || fsync(dir) != 0)
        return system_error("synced");
    fd = create(dir, "mapped");
    uint64_t *words =
        fd < 0 ? MAP_FAILED : mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
    if (words == MAP_FAILED)
        return system_error("mapped");
    words[FILE_BYTES / 8 - 1] = WORD;
    fd = create(dir, "unsynced");
    if (fd < 0)
        return system_error("unsynced");
    struct pool_params unused = {0};
    cut_arm(&unused);
    for (;;)
        pause();
}

static bool has(int dir, const char *name, uint64_t word)
{
    uint64_t found = 0;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    bool whole = fd >= 0 && pread(fd, &found, sizeof found, FILE_BYTES - 8) == (ssize_t)sizeof found && found == word;
    if (fd >= 0)
        close(fd);
    return whole;
}

static int read_back(int dir)
{
    bool synced = has(dir, "synced", 0), mapped = has(dir, "mapped", WORD);
    bool gone = faccessat(dir, "unsynced", F_OK, 0) != 0;
    printf("synced: %s; stored through MAP_SYNC: %s; not synced: %s\n", synced ? "kept" : "LOST",
           mapped ? "kept" : "LOST", gone ? "lost" : "KEPT");
    return synced && mapped && gone ? 0 : 1;
}

int main(int argc, char **argv)
{
    int dir = argc == 3 ? open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (dir < 0) {
        fprintf(stderr, "usage: dax_probe DIR write|read\n");
        return 2;
    }
    return strcmp(argv[2], "write") == 0 ? write_and_cut(dir) : read_back(dir);
}
