/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/temp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "tests/support/run.h"

static char base_path[TEMP_PATH_MAX];
static pid_t base_owner;
static unsigned next_number;

#define PREFIX "pallocator-test."

static const char *parent_dir(void)
{
    const char *d = getenv("PA_TEST_DIR");
    return d != NULL && *d != '\0' ? d : "/dev/shm";
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    if (remove(path) == 0 || errno == ENOENT)
        return 0;
    return errno == EBUSY && umount2(path, MNT_DETACH) == 0 ? remove(path) : -1; /* a failed test's file system */
}

static int remove_tree(const char *path)
{
    return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT ? 0 : -1;
}

/* A run that was killed leaves its directory; its name holds the process id. */
static void remove_dead(void)
{
    DIR *d = opendir(parent_dir());
    struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL) {
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0)
            continue;
        char *end; /* other programs' directories, of mktemp, have letters too */
        pid_t pid = (pid_t)strtol(e->d_name + strlen(PREFIX), &end, 10);
        if (*end == '\0' && pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) {
            struct temp_path p = temp_join(parent_dir(), e->d_name);
            remove_tree(p.text);
        }
    }
    if (d != NULL)
        closedir(d);
}

int temp_init(void)
{
    remove_dead();
    base_owner = getpid();
    snprintf(base_path, sizeof base_path, "%s/" PREFIX "%d", parent_dir(), (int)base_owner);
    remove_tree(base_path);
    if (mkdir(base_path, 0755) != 0)
        return -1;
    return chmod(base_path, 0755);
}

void temp_clean(void)
{
    if (getpid() != base_owner)
        return;
    DIR *d = opendir(base_path);
    struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            struct temp_path p = temp_join(base_path, e->d_name);
            remove_tree(p.text);
        }
    if (d != NULL)
        closedir(d);
}

void temp_fini(void)
{
    if (getpid() == base_owner)
        remove_tree(base_path);
}

bool temp_is_volatile(void)
{
    struct statfs s;
    return statfs(base_path, &s) == 0 && s.f_type == TMPFS_MAGIC;
}

struct temp_path temp_new(void)
{
    struct temp_path p;
    snprintf(p.text, sizeof p.text, "%.200s/%d.%u", base_path, (int)getpid(), next_number++);
    return p;
}

struct temp_path temp_join(const char *dir, const char *name)
{
    struct temp_path p;
    snprintf(p.text, sizeof p.text, "%.180s/%.64s", dir, name);
    return p;
}

void temp_remove(const char *path)
{
    EXPECT(remove_tree(path) == 0, "cannot remove %s: %s", path, strerror(errno));
}

void temp_make_dir(const char *path)
{
    EXPECT(mkdir(path, 0755) == 0, "cannot make %s: %s", path, strerror(errno));
}

void *temp_read_file(const char *path, size_t *ret_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    EXPECT(fd >= 0 && fstat(fd, &st) == 0, "cannot open %s: %s", path, strerror(errno));
    size_t size = (size_t)st.st_size, done = 0;
    char *data = malloc(size + 1);
    EXPECT(data != NULL, "no memory for %s", path);
    while (done < size) {
        ssize_t n = read(fd, data + done, size - done);
        EXPECT(n > 0, "cannot read %s", path);
        done += (size_t)n;
    }
    close(fd);
    *ret_size = size;
    return data;
}

static void write_fd(int fd, const char *path, uint64_t offset, const void *data, size_t size)
{
    EXPECT(fd >= 0, "cannot open %s: %s", path, strerror(errno));
    size_t done = 0;
    while (done < size) {
        ssize_t n = pwrite(fd, (const char *)data + done, size - done, (off_t)(offset + done));
        EXPECT(n > 0, "cannot write %s: %s", path, strerror(errno));
        done += (size_t)n;
    }
    close(fd);
}

void temp_write_file(const char *path, const void *data, size_t size)
{
    write_fd(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), path, 0, data, size);
}

void temp_write_at(const char *path, uint64_t offset, const void *data, size_t size)
{
    write_fd(open(path, O_WRONLY | O_CLOEXEC), path, offset, data, size);
}

uint64_t temp_file_size(const char *path)
{
    struct stat st;
    EXPECT(stat(path, &st) == 0, "cannot stat %s: %s", path, strerror(errno));
    return (uint64_t)st.st_size;
}

void temp_restore_file(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || (size_t)st.st_size != size) {
        if (fd >= 0)
            close(fd);
        temp_write_file(path, data, size);
        return;
    }
    char *now = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(now != MAP_FAILED, "cannot map %s: %s", path, strerror(errno));
    for (size_t at = 0; at < size; at += 4096) {
        size_t n = size - at < 4096 ? size - at : 4096;
        if (memcmp(now + at, (const char *)data + at, n) != 0)
            memcpy(now + at, (const char *)data + at, n);
    }
    munmap(now, size);
    close(fd);
}

void temp_copy_file(const char *from, const char *to)
{
    size_t size;
    void *data = temp_read_file(from, &size);
    temp_write_file(to, data, size);
    free(data);
}

size_t temp_list(const char *path, const char *prefix, char (*ret_names)[64], size_t max)
{
    DIR *d = opendir(path);
    EXPECT(d != NULL, "cannot list %s: %s", path, strerror(errno));
    size_t n = 0;
    struct dirent *e;
    while ((e = readdir(d)) != NULL && n < max) {
        if (e->d_name[0] == '.' || strncmp(e->d_name, prefix, strlen(prefix)) != 0)
            continue;
        snprintf(ret_names[n++], 64, "%.63s", e->d_name);
    }
    closedir(d);
    qsort(ret_names, n, 64, (int (*)(const void *, const void *))(void *)strcmp);
    return n;
}

#define FILES_MAX 1024

void temp_copy_dir(const char *from, const char *to)
{
    char(*names)[64] = malloc(FILES_MAX * sizeof *names);
    size_t n = temp_list(from, "", names, FILES_MAX);
    temp_make_dir(to);
    for (size_t i = 0; i < n; i++) {
        struct temp_path a = temp_join(from, names[i]), b = temp_join(to, names[i]);
        temp_copy_file(a.text, b.text);
    }
    free(names);
}

uint64_t temp_hash_dir(const char *path)
{
    char(*names)[64] = malloc(FILES_MAX * sizeof *names);
    size_t n = temp_list(path, "", names, FILES_MAX);
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) {
        size_t size;
        struct temp_path p = temp_join(path, names[i]);
        unsigned char *data = temp_read_file(p.text, &size);
        for (const char *c = names[i]; *c != '\0'; c++)
            h = (h ^ (unsigned char)*c) * 1099511628211u;
        h = (h ^ size) * 1099511628211u;
        for (size_t k = 0; k + 8 <= size; k += 8) {
            uint64_t w;
            memcpy(&w, data + k, sizeof w);
            h = (h ^ w) * 1099511628211u;
            h ^= h >> 29;
        }
        free(data);
    }
    free(names);
    return h;
}
