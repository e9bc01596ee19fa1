/* SPDX-License-Identifier: BSD-3-Clause */
/* image.c -- the prepared pools: one of every kind of block, small enough to be restored in a fraction of a millisecond. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fptree.h>
#include <linux/falloc.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define PAGE 4096u

static struct fuzz_image images[FUZZ_IMAGES];
static char work_dir[128];

const struct fuzz_image *fuzz_image(unsigned number)
{
    return &images[number % FUZZ_IMAGES];
}

const char *fuzz_dir(void)
{
    return work_dir;
}

void fuzz_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "\nfuzz: FINDING: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

/* --- contents ------------------------------------------------------------------------------------------------------------- */

#define FILLED 64u

void fuzz_fill(char *address, uint64_t usable, unsigned tag)
{
    uint64_t n = usable < FILLED ? usable : FILLED;
    for (uint64_t i = 0; i < n; i++)
        address[i] = (char)(tag * 31 + i);
    for (uint64_t i = 0; i < n; i++)
        address[usable - n + i] = (char)(tag * 31 + usable - n + i);
}

bool fuzz_is_filled(const char *address, uint64_t usable, unsigned tag)
{
    uint64_t n = usable < FILLED ? usable : FILLED;
    for (uint64_t i = 0; i < n; i++)
        if (address[i] != (char)(tag * 31 + i) || address[usable - n + i] != (char)(tag * 31 + usable - n + i))
            return false;
    return true;
}

/* --- building ------------------------------------------------------------------------------------------------------------- */

static void must(int code, const char *what)
{
    if (code != 0)
        fuzz_fail("cannot prepare a pool: %s: %s", what, pa_errormsg());
}

static size_t size_of(unsigned i)
{
    static const size_t small[] = {16, 48, 100, 768, 1000, 4096, 16384};
    if (i < 60)
        return small[i % 7];
    return i == FUZZ_OWNERS - 1 ? 1300000 : i % 11 == 0 ? 60000 : 17000;
}

static pa_pptr *owner_at(pa_pool *pool, pa_pptr root, unsigned i)
{
    return (pa_pptr *)((char *)pa_direct(pool, root) + FUZZ_OWNERS_OFFSET) + i;
}

/* Cores serve CPUs: on one of even or odd number, if there is one, so that both cores are used, and alike in every run. */
static cpu_set_t allowed;

static void run_on(unsigned parity)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    for (unsigned cpu = parity; cpu < CPU_SETSIZE; cpu += 2)
        if (CPU_ISSET(cpu, &allowed)) {
            CPU_SET(cpu, &one);
            (void)sched_setaffinity(0, sizeof one, &one);
            return;
        }
}

static void fill_owner(struct fuzz_image *im, pa_pool *pool, unsigned i)
{
    pa_pptr *owner = owner_at(pool, im->root, i);
    struct fuzz_block *b = &im->owners[i];
    run_on(i / 8 % 2);
    must(pa_allocate(pool, owner, size_of(i)), "allocate");
    b->at = *owner;
    b->usable = pa_usable_size(pool, *owner);
    b->kind = atomic_load(&manager_segment(&pool->manager, owner->segment)->kind);
    fuzz_fill(pa_direct(pool, *owner), b->usable, i);
}

static void clear_owner(struct fuzz_image *im, pa_pool *pool, unsigned i)
{
    must(pa_deallocate(pool, owner_at(pool, im->root, i)), "free");
    im->owners[i] = (struct fuzz_block){.at = PA_NULL};
}

static void fill_tree(pa_pool *pool, pa_pptr root)
{
    fptree *t = NULL;
    must(fptree_open(pool, pa_direct(pool, root), &t), "fptree_open");
    for (uint64_t i = 0; i < 150; i++)
        must(fptree_insert(t, i * 7919 % 1009, i), "fptree_insert");
    for (uint64_t i = 0; i < 150; i += 9)
        must(fptree_remove(t, i * 7919 % 1009), "fptree_remove");
    must(fptree_close(t), "fptree_close");
}

static void fill_pool(struct fuzz_image *im, pa_pool *pool)
{
    must(pa_root(pool, FUZZ_ROOT_BYTES, &im->root), "pa_root");
    fill_tree(pool, im->root);
    for (unsigned i = 0; i < FUZZ_OWNERS; i++)
        fill_owner(im, pool, i);
    for (unsigned i = 0; i < FUZZ_OWNERS - 1; i += 4)
        clear_owner(im, pool, i);
    uint64_t released;
    must(pa_defragment(pool, 3 * 65536, &released), "defragment");
    for (unsigned i = 0; i < 20; i += 4)
        fill_owner(im, pool, i);
    clear_owner(im, pool, 4);
}

/* --- where the trees are --------------------------------------------------------------------------------------------------- */

struct leaf_list {
    struct fuzz_image *image;
    pa_off header;
    bool of_index;
};

static int add_leaf(pa_off off, void *arg)
{
    struct leaf_list *l = arg;
    struct fuzz_image *im = l->image;
    if (im->leaf_count < FUZZ_LEAVES_MAX)
        im->leaves[im->leaf_count++] = (struct fuzz_leaf){off, l->header, off == l->header, l->of_index};
    return 0;
}

static void note_tree(struct fuzz_image *im, const struct tree *t, pa_off header, bool of_index)
{
    struct leaf_list l = {im, header, of_index};
    add_leaf(header, &l);
    im->leaves[im->leaf_count++] =
        (struct fuzz_leaf){header + offsetof(struct pm_tree_header, head), header, false, of_index};
    must(tree_foreach_block(t, add_leaf, &l), "list of leaves");
}

static void note_trees(struct fuzz_image *im, pa_pool *pool)
{
    im->leaf_count = 0;
    for (unsigned i = 0; i < pool->big_count; i++)
        if (pool->bigs[i].index != NULL)
            note_tree(im, pool->bigs[i].index, pa_off_of(pool, *big_index_owner(&pool->manager, i)), true);
    pa_pptr *anchor = pa_direct(pool, im->root);
    fptree *t = NULL;
    must(fptree_open(pool, anchor, &t), "fptree_open");
    note_tree(im, (struct tree *)t, pa_off_of(pool, *anchor), false);
    must(fptree_close(t), "fptree_close");
}

/* --- reading and restoring ------------------------------------------------------------------------------------------------- */

static void read_file(struct fuzz_image *im, int dir, const char *name)
{
    if (im->file_count == FUZZ_FILES_MAX)
        fuzz_fail("the prepared pool has more than %u files", FUZZ_FILES_MAX);
    struct fuzz_file *f = &im->files[im->file_count++];
    struct stat s;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &s) != 0)
        fuzz_fail("cannot read %s: %s", name, strerror(errno));
    memcpy(f->name, name, strnlen(name, sizeof f->name - 1)); /* zero behind it */
    f->huge = sscanf(name, "huge-%8x.pa", &f->slot) == 1;
    if (!f->huge && sscanf(name, "segment-%8x.pa", &f->slot) != 1)
        f->slot = 0;
    f->size = (uint64_t)s.st_size;
    uint64_t pages = (f->size + PAGE - 1) / PAGE;
    f->data = calloc(pages, PAGE);
    f->present = calloc(pages, sizeof *f->present);
    for (off_t at = lseek(fd, 0, SEEK_DATA); at >= 0; at = lseek(fd, at, SEEK_DATA)) {
        off_t end = lseek(fd, at, SEEK_HOLE);
        if (pread(fd, f->data + at, (size_t)(end - at), at) != end - at)
            fuzz_fail("cannot read %s", name);
        for (off_t p = at / PAGE; p < (end + PAGE - 1) / PAGE; p++)
            f->present[p] = true;
        at = end;
    }
    close(fd);
}

/* The pool file is first. */
static int compare_files(const void *a, const void *b)
{
    const struct fuzz_file *x = a, *y = b;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

static void read_image(struct fuzz_image *im)
{
    DIR *d = opendir(work_dir);
    im->file_count = 0;
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            read_file(im, dirfd(d), e->d_name);
    if (d != NULL)
        closedir(d);
    qsort(im->files, im->file_count, sizeof im->files[0], compare_files);
    memcpy(&im->geometry, im->files[0].data, sizeof im->geometry);
}

static void restore_page(int fd, const struct fuzz_file *f, uint64_t page)
{
    char now[PAGE];
    uint64_t at = page * PAGE;
    size_t size = f->size - at < PAGE ? f->size - at : PAGE;
    if (!f->present[page]) {
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, PAGE) != 0)
            fuzz_fail("cannot restore %s: %s", f->name, strerror(errno));
        return;
    }
    if (pread(fd, now, size, (off_t)at) == (ssize_t)size && memcmp(now, f->data + at, size) == 0)
        return;
    if (pwrite(fd, f->data + at, size, (off_t)at) != (ssize_t)size)
        fuzz_fail("cannot restore %s: %s", f->name, strerror(errno));
}

static void restore_file(int dir, const struct fuzz_file *f)
{
    struct stat s;
    if (fstatat(dir, f->name, &s, AT_SYMLINK_NOFOLLOW) == 0 && (!S_ISREG(s.st_mode) || s.st_nlink != 1))
        unlinkat(dir, f->name, S_ISDIR(s.st_mode) ? AT_REMOVEDIR : 0);
    int fd = openat(dir, f->name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fstat(fd, &s) != 0)
        fuzz_fail("cannot restore %s: %s", f->name, strerror(errno));
    if ((uint64_t)s.st_size != f->size && ftruncate(fd, (off_t)f->size) != 0)
        fuzz_fail("cannot restore %s: %s", f->name, strerror(errno));
    uint64_t pages = (f->size + PAGE - 1) / PAGE;
    off_t data = lseek(fd, 0, SEEK_DATA);
    for (uint64_t p = 0; p < pages; p++) { /* pages that are neither there nor wanted are skipped */
        if (data >= 0 && (uint64_t)data / PAGE < p)
            data = lseek(fd, (off_t)(p * PAGE), SEEK_DATA);
        bool there = data >= 0 && (uint64_t)data / PAGE == p;
        if (there || f->present[p])
            restore_page(fd, f, p);
    }
    close(fd);
}

static void remove_directory(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        unlinkat(dirfd(d), e->d_name, 0);
    if (d != NULL)
        closedir(d);
    unlinkat(parent, name, AT_REMOVEDIR);
}

void fuzz_restore(const struct fuzz_image *im)
{
    DIR *d = opendir(work_dir);
    if (d == NULL)
        fuzz_fail("cannot list %s: %s", work_dir, strerror(errno));
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        bool known = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
        for (unsigned i = 0; i < im->file_count; i++)
            known = known || strcmp(e->d_name, im->files[i].name) == 0;
        if (!known && unlinkat(dirfd(d), e->d_name, 0) != 0)
            remove_directory(dirfd(d), e->d_name); /* a repair's backup */
    }
    for (unsigned i = 0; i < im->file_count; i++)
        restore_file(dirfd(d), &im->files[i]);
    closedir(d);
}

/* --- what is there --------------------------------------------------------------------------------------------------------- */

static uint64_t hash_file(int dir, const char *name)
{
    static uint64_t words[PAGE / 8];
    struct stat s;
    uint64_t hash = 0;
    int fd = -1;
    if (fstatat(dir, name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    for (const char *c = name; *c != '\0'; c++)
        hash = mix64(hash + (unsigned char)*c);
    hash += mix64(s.st_mode + mix64((uint64_t)s.st_size));
    if (!S_ISREG(s.st_mode) || (fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)) < 0)
        return hash;
    for (off_t at = lseek(fd, 0, SEEK_DATA); at >= 0; at = lseek(fd, at, SEEK_DATA)) {
        off_t end = lseek(fd, at, SEEK_HOLE);
        for (; at < end; at += PAGE) {
            ssize_t n = pread(fd, words, sizeof words, at);
            for (ssize_t i = 0; i < n / 8; i++) /* zero is a hole, whether it is there or not */
                hash += words[i] == 0 ? 0 : mix64(words[i] + mix64((uint64_t)at + (uint64_t)i * 8));
        }
    }
    close(fd);
    return mix64(hash);
}

uint64_t fuzz_hash(void)
{
    uint64_t hash = 0;
    DIR *d = opendir(work_dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            hash += hash_file(dirfd(d), e->d_name);
    if (d != NULL)
        closedir(d);
    return hash;
}

/* --- setting up ------------------------------------------------------------------------------------------------------------ */

static void remove_work_dir(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlinkat(dirfd(d), e->d_name, 0) != 0)
            remove_directory(dirfd(d), e->d_name);
    if (d != NULL)
        closedir(d);
    rmdir(path);
}

/* What runs that died have left. */
static void remove_stale(const char *base)
{
    DIR *d = opendir(base);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        int pid = 0;
        char path[sizeof work_dir + 32];
        if (sscanf(e->d_name, "pa-fuzz-%d", &pid) != 1 || pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH)
            continue;
        snprintf(path, sizeof path, "%s/pa-fuzz-%d", base, pid);
        remove_work_dir(path);
    }
    if (d != NULL)
        closedir(d);
}

/* In libc's place: with the same identity in every run an input gives the same pool. */
ssize_t getrandom(void *to, size_t size, unsigned flags)
{
    (void)flags;
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)to)[i] = (unsigned char)mix64(i + 1);
    return (ssize_t)size;
}

static void build(struct fuzz_image *im, bool killed)
{
    pa_options o;
    pa_options_init(&o);
    o.segment_size = FUZZ_SEGMENT_SIZE;
    o.cores = 2;
    o.flags = PA_SPARSE | PA_NO_BACKGROUND;
    struct pool_params params = {.lanes = 2, .lane_entries = 16, .slots = 16};
    pa_pool *pool = NULL;
    remove_work_dir(work_dir);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        fuzz_fail("cannot tell the CPUs: %s", strerror(errno));
    run_on(0);
    must(pool_create_ex(work_dir, &o, &params, &pool), "create");
    fill_pool(im, pool);
    note_trees(im, pool);
    if (!killed)
        must(pa_close(pool), "close");
    read_image(im);
    if (killed)
        pool_abandon(pool);
    (void)sched_setaffinity(0, sizeof allowed, &allowed);
}

bool fuzz_setup(void)
{
    const char *base = getenv("PA_TEST_DIR");
    if (base == NULL)
        base = "/dev/shm";
    remove_stale(base);
    snprintf(work_dir, sizeof work_dir, "%s/pa-fuzz-%d", base, (int)getpid());
    if (mkdir(work_dir, 0700) != 0) {
        fprintf(stderr, "fuzz: cannot make %s: %s\n", work_dir, strerror(errno));
        return false;
    }
    for (unsigned i = 0; i < FUZZ_IMAGES; i++)
        build(&images[i], i == 1);
    return true;
}

void fuzz_cleanup(void)
{
    remove_work_dir(work_dir);
    for (unsigned i = 0; i < FUZZ_IMAGES; i++)
        for (unsigned k = 0; k < images[i].file_count; k++) {
            free(images[i].files[k].data);
            free(images[i].files[k].present);
        }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_mutation m;
    const struct fuzz_image *im = fuzz_image(size > 0 ? data[0] & 1 : 0);
    fuzz_restore(im);
    fuzz_mutate(im, data, size < FUZZ_INPUT_MAX ? size : FUZZ_INPUT_MAX, &m);
    fuzz_judge(&m);
}
