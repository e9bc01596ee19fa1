/* SPDX-License-Identifier: BSD-3-Clause */
/* disk.c -- see disk.h. */
#include "tests/explore/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE       MEDIA_LINE_BYTES
#define NAME_DEPTH 4u /* slashes in "pool/repair-.../dir-1/member.pa", and one more */

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
    (void)s, (void)type, (void)ftw;
    return remove(path);
}

void remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void must(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "explorer: %s: %s\n", what, strerror(errno));
    abort();
}

int disk_open(struct disk *d, const char *root)
{
    memset(d, 0, sizeof *d);
    snprintf(d->root, sizeof d->root, "%s", root);
    snprintf(d->tree, sizeof d->tree, "%s/tree", root);
    snprintf(d->pool, sizeof d->pool, "%s/pool", d->tree);
    char store[256];
    snprintf(store, sizeof store, "%s/store", root);
    for (uint32_t i = 0; i < INODES_MAX; i++)
        d->files[i].fd = -1;
    if (mkdir(root, 0700) != 0 || mkdir(d->tree, 0700) != 0 || mkdir(store, 0700) != 0)
        return -1;
    return 0;
}

static void store_path(const struct disk *d, uint32_t inode, char *path, size_t size)
{
    snprintf(path, size, "%s/store/%u", d->root, inode);
}

void disk_forget(struct disk *d, uint32_t first)
{
    for (uint32_t i = first; i < INODES_MAX; i++) {
        struct disk_file *f = &d->files[i];
        if (f->fd < 0)
            continue;
        char path[256];
        store_path(d, i, path, sizeof path);
        unlink(path);
        munmap(f->map, INODE_MAX_BYTES);
        close(f->fd);
        *f = (struct disk_file){.fd = -1};
        d->names_changed = true;
    }
}

void disk_close(struct disk *d)
{
    disk_forget(d, 0);
    free(d->touched);
    remove_tree(d->root);
}

void disk_line_changed(void *disk, uint32_t inode, uint64_t line)
{
    struct disk *d = disk;
    if (d->touched_count == d->touched_capacity) {
        d->touched_capacity = d->touched_capacity == 0 ? 1024 : d->touched_capacity * 2;
        d->touched = realloc(d->touched, d->touched_capacity * sizeof *d->touched);
        must(d->touched != NULL, "memory");
    }
    d->touched[d->touched_count++] = (struct touched){inode, line};
}

/* --- files --------------------------------------------------------------------------------------------------------------- */

static void open_file(struct disk *d, uint32_t number)
{
    struct disk_file *f = &d->files[number];
    char path[256];
    store_path(d, number, path, sizeof path);
    f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    must(f->fd >= 0, path);
    f->map = mmap(NULL, INODE_MAX_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    must(f->map != MAP_FAILED, "mmap");
    f->size = 0;
    f->resized = true;
}

/* Bring a file to a size, with the durable bytes as its content if its size was another one before. */
static void fit_file(struct disk *d, const struct image *image, uint32_t number, uint64_t size)
{
    struct disk_file *f = &d->files[number];
    if (f->fd < 0)
        open_file(d, number);
    if (f->size == size && !f->resized)
        return;
    must(ftruncate(f->fd, (off_t)size) == 0, "ftruncate");
    if (f->resized || size > f->size) {
        const unsigned char *bytes = image->inodes[number].bytes;
        for (uint64_t at = 0; at < size; at += 4096) {
            uint64_t n = size - at < 4096 ? size - at : 4096;
            if (memcmp(f->map + at, bytes + at, n) != 0)
                memcpy(f->map + at, bytes + at, n);
        }
    }
    f->size = size;
    f->resized = false;
}

static void revert_lines(struct disk *d, const struct image *image)
{
    for (size_t i = 0; i < d->touched_count; i++) {
        struct disk_file *f = &d->files[d->touched[i].inode];
        uint64_t at = d->touched[i].line * LINE;
        if (f->fd >= 0 && !f->resized && at < f->size)
            memcpy(f->map + at, image->inodes[d->touched[i].inode].bytes + at, LINE);
    }
    d->touched_count = 0;
}

static bool same_names(const struct disk *d, const struct name_entry *names, unsigned count)
{
    if (d->names_changed || d->names_count != count)
        return false;
    for (unsigned i = 0; i < count; i++)
        if (d->names[i].inode != names[i].inode || strcmp(d->names[i].name, names[i].name) != 0)
            return false;
    return true;
}

static void clear_directory(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    must(stream != NULL, name);
    for (struct dirent *e; (e = readdir(stream)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || unlinkat(fd, e->d_name, 0) == 0)
            continue;
        clear_directory(fd, e->d_name);
        unlinkat(fd, e->d_name, AT_REMOVEDIR);
    }
    closedir(stream);
}

static unsigned depth_of(const char *name)
{
    unsigned depth = 0;
    for (; (name = strchr(name, '/')) != NULL; name++)
        depth++;
    return depth;
}

static void put_name(const struct disk *d, const struct name_entry *entry)
{
    char from[320], to[320];
    snprintf(to, sizeof to, "%s/%.*s", d->tree, (int)NAME_BYTES, entry->name);
    if (entry->inode == INODE_DIRECTORY) {
        must(mkdir(to, 0700) == 0, to);
    } else if (entry->inode == INODE_LINK) {
        snprintf(from, sizeof from, "%s%s%.*s", d->tree, entry->target[0] == '\0' ? "" : "/", (int)NAME_BYTES,
                 entry->target);
        must(symlink(from, to) == 0, to);
    } else {
        store_path(d, entry->inode, from, sizeof from);
        must(link(from, to) == 0, to);
    }
}

static void set_names(struct disk *d, const struct name_entry *names, unsigned count)
{
    if (same_names(d, names, count))
        return;
    clear_directory(AT_FDCWD, d->tree);
    for (unsigned depth = 0; depth < NAME_DEPTH; depth++) /* directories before what is in them */
        for (unsigned i = 0; i < count; i++)
            if (depth_of(names[i].name) == depth)
                put_name(d, &names[i]);
    if (count > 0)
        memcpy(d->names, names, count * sizeof *names);
    d->names_count = count;
    d->names_changed = false;
}

void disk_apply(struct disk *d, const struct image *image, const struct choice *c)
{
    struct name_entry names[NAMES_MAX];
    unsigned count = image_names(image, c, names);
    for (unsigned i = 0; i < count; i++)
        if (is_file(names[i].inode))
            fit_file(d, image, names[i].inode, image_size(image, c, names[i].inode));
    revert_lines(d, image);
    set_names(d, names, count);
    for (size_t i = 0; i < c->count; i++) {
        const struct pending *p = &image->lines[i];
        struct disk_file *f = &d->files[p->inode];
        if (c->prefix[i] == 0 || f->fd < 0 || p->line * LINE >= f->size)
            continue;
        image_line(image, c, i, f->map + p->line * LINE);
        disk_line_changed(d, p->inode, p->line);
    }
}

void disk_absorb(struct disk *d, const struct image *image, const struct trace *trace)
{
    for (size_t i = 0; i < trace->count; i++) {
        const struct trace_event *e = &trace->events[i];
        switch ((enum trace_kind)e->kind) {
        case TRACE_STORE:
        case TRACE_STORE_NT:
        case TRACE_WRITE:
            for (uint64_t line = e->offset / LINE; line * LINE < e->offset + e->size; line++)
                if (e->inode < image->inodes_count)
                    disk_line_changed(d, e->inode, line);
            break;
        case TRACE_RESIZE:
        case TRACE_PUNCH:
            if (e->inode < image->inodes_count)
                d->files[e->inode].resized = true;
            break;
        case TRACE_CREATE:
        case TRACE_MAKE_DIR:
        case TRACE_LINK:
        case TRACE_UNLINK:
        case TRACE_RENAME:
            d->names_changed = true;
            break;
        default:
            break;
        }
    }
}

bool disk_verify(struct disk *d, const struct image *image, char *why, size_t why_size)
{
    for (uint32_t i = 0; i < image->inodes_count; i++) {
        struct disk_file *f = &d->files[i];
        if (f->fd < 0 || f->resized)
            continue;
        for (size_t k = 0; k < d->touched_count; k++)
            if (d->touched[k].inode == i && d->touched[k].line * LINE < f->size)
                memcpy(f->map + d->touched[k].line * LINE, image->inodes[i].bytes + d->touched[k].line * LINE, LINE);
        for (uint64_t at = 0; at + LINE <= f->size; at += LINE) {
            if (memcmp(f->map + at, image->inodes[i].bytes + at, LINE) == 0)
                continue;
            snprintf(why, why_size, "stores that were not announced changed file number %u at 0x%llx", i,
                     (unsigned long long)at);
            f->resized = true;
            return false;
        }
    }
    return true;
}

/* --- the hash of what is there ------------------------------------------------------------------------------------------- */

static int compare_touched(const void *a, const void *b)
{
    const struct touched *x = a, *y = b;
    if (x->inode != y->inode)
        return x->inode < y->inode ? -1 : 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

static void sort_touched(struct disk *d)
{
    if (d->touched_count == 0)
        return;
    qsort(d->touched, d->touched_count, sizeof *d->touched, compare_touched);
    size_t kept = 1;
    for (size_t i = 1; i < d->touched_count; i++)
        if (compare_touched(&d->touched[i], &d->touched[kept - 1]) != 0)
            d->touched[kept++] = d->touched[i];
    d->touched_count = kept;
}

static uint64_t hash_whole_file(int fd, uint64_t size)
{
    if (size == 0)
        return 0;
    unsigned char *map = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return 0;
    uint64_t hash = 0;
    for (uint64_t at = 0; at < size; at += LINE) /* behind the end of a file its last page reads zero */
        hash += image_line_hash(at / LINE, map + at);
    munmap(map, (size_t)size);
    return hash;
}

static uint64_t hash_known_file(struct disk *d, const struct image *image, uint32_t inode)
{
    struct disk_file *f = &d->files[inode];
    uint64_t hash = image->inodes[inode].hash;
    for (size_t i = 0; i < d->touched_count; i++) {
        uint64_t line = d->touched[i].line;
        if (d->touched[i].inode != inode || line * LINE >= f->size)
            continue;
        hash -= image_line_hash(line, image->inodes[inode].bytes + line * LINE);
        hash += image_line_hash(line, f->map + line * LINE);
    }
    return hash;
}

/* Which of our files, if any, an open file is. */
static uint32_t known_inode(const struct disk *d, const struct stat *s)
{
    struct stat t;
    for (uint32_t i = 0; i < INODES_MAX; i++)
        if (d->files[i].fd >= 0 && !d->files[i].resized && fstat(d->files[i].fd, &t) == 0 && t.st_ino == s->st_ino)
            return i;
    return INODE_NONE;
}

/* Content that names no place: a directory's is its names, a link's its target. */
static uint64_t hash_entry(struct disk *d, const struct image *image, int at, const char *name, uint64_t *ret_size,
                           char target[NAME_BYTES])
{
    struct stat s;
    char text[512];
    *ret_size = 0;
    must(fstatat(at, name, &s, AT_SYMLINK_NOFOLLOW) == 0, name);
    if (S_ISDIR(s.st_mode))
        return INODE_DIRECTORY;
    if (S_ISLNK(s.st_mode)) {
        ssize_t n = readlinkat(at, name, text, sizeof text - 1);
        must(n >= 0, name);
        text[n] = '\0';
        snprintf(target, NAME_BYTES, "%s", (size_t)n > strlen(d->tree) ? text + strlen(d->tree) + 1 : "");
        return INODE_LINK;
    }
    *ret_size = (uint64_t)s.st_size;
    uint32_t inode = known_inode(d, &s);
    if (inode != INODE_NONE)
        return hash_known_file(d, image, inode);
    int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    must(fd >= 0, name);
    uint64_t hash = hash_whole_file(fd, *ret_size);
    close(fd);
    return hash;
}

/* Add the hashes of all names in a directory to sum. */
static void hash_directory(struct disk *d, const struct image *image, int at, const char *name, const char *path,
                           uint64_t *sum)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    must(stream != NULL, name);
    for (struct dirent *e; (e = readdir(stream)) != NULL;) {
        struct name_entry entry = {.target = ""};
        uint64_t size;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (snprintf(entry.name, NAME_BYTES, "%s%s%s", path, path[0] == '\0' ? "" : "/", e->d_name) >= (int)NAME_BYTES)
            must(false, "a name is too long");
        uint64_t hash = hash_entry(d, image, fd, e->d_name, &size, entry.target);
        *sum += image_names_hash(&entry, 1, &hash, &size);
        if (hash == INODE_DIRECTORY)
            hash_directory(d, image, fd, e->d_name, entry.name, sum);
    }
    closedir(stream);
}

static uint64_t hash_changed_directory(struct disk *d, const struct image *image)
{
    uint64_t sum = 0;
    hash_directory(d, image, AT_FDCWD, d->tree, "", &sum);
    return sum;
}

uint64_t disk_hash(struct disk *d, const struct image *image)
{
    sort_touched(d);
    bool resized = false;
    for (uint32_t i = 0; i < image->inodes_count; i++)
        resized |= d->files[i].resized;
    if (d->names_changed || resized)
        return hash_changed_directory(d, image);
    uint64_t hashes[NAMES_MAX], sizes[NAMES_MAX];
    for (unsigned i = 0; i < d->names_count; i++) {
        bool file = is_file(d->names[i].inode);
        hashes[i] = file ? hash_known_file(d, image, d->names[i].inode) : d->names[i].inode;
        sizes[i] = file ? d->files[d->names[i].inode].size : 0;
    }
    return image_names_hash(d->names, d->names_count, hashes, sizes);
}
