/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scenarios_repair.c -- histories of pa_repair: a pool is damaged, and power fails while it is repaired.
 *
 * Judged at each state: whatever repair has changed so far, a backup directory has the old bytes of; if pa_check calls the pool sound,
 * no block is lost; pa_repair, run again, ends well, and every file of the pool is byte for byte what the repair that was not cut off
 * has made of it. Then the pool is judged like any other.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pmem/file_copy.h"
#include "pool/repair.h"
#include "tests/explore/poolside.h"

#define HUGE_BYTES  1000000u
#define FILES_MAX   24u
#define BACKUP_NAME "repair-"

/* The files in a directory, and in those that its links dir-K lead to. */
struct content {
    struct kept {
        char name[PATH_BYTES];
        unsigned char *bytes;
        uint64_t size;
    } files[FILES_MAX];
    unsigned count;
};

/** What a history of repair keeps beside its pool. */
struct poolside_repair {
    struct content damaged, repaired;
    char backup[PATH_BYTES + NAME_BYTES]; /* where the copies go; empty = into the pool's directory */
    size_t op;
};

/* --- files ---------------------------------------------------------------------------------------------------------------- */

static void content_free(struct content *c)
{
    for (unsigned i = 0; i < c->count; i++)
        free(c->files[i].bytes);
    c->count = 0;
}

static bool read_file(struct kept *k, int at, const char *name)
{
    struct stat s;
    int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    *k = (struct kept){.size = 0};
    bool good = fd >= 0 && fstat(fd, &s) == 0 && S_ISREG(s.st_mode);
    if (good) {
        k->size = (uint64_t)s.st_size;
        k->bytes = malloc(k->size + 1);
        good = k->bytes != NULL && pread(fd, k->bytes, k->size, 0) == (ssize_t)k->size;
    }
    if (fd >= 0)
        close(fd);
    if (!good)
        free(k->bytes);
    return good;
}

/* Add the regular files of a directory, each with prefix before its name, and those of the further directories in it. */
static void content_add(struct content *c, const char *path, const char *prefix)
{
    DIR *stream = opendir(path);
    if (stream == NULL)
        return;
    for (struct dirent *e; (e = readdir(stream)) != NULL && c->count < FILES_MAX;) {
        char below[2 * PATH_BYTES], name[PATH_BYTES];
        struct kept *k = &c->files[c->count];
        if (strncmp(e->d_name, "dir-", 4) == 0 && prefix[0] == '\0') {
            snprintf(below, sizeof below, "%s/%.31s", path, e->d_name);
            snprintf(name, sizeof name, "%.31s/", e->d_name);
            content_add(c, below, name);
        } else if (read_file(k, dirfd(stream), e->d_name)) {
            snprintf(k->name, sizeof k->name, "%.31s%.127s", prefix, e->d_name);
            c->count++;
        }
    }
    closedir(stream);
}

/* All files of a pool, or of a backup; none if the directory is not there. */
static void content_read(struct content *c, const char *path)
{
    c->count = 0;
    content_add(c, path, "");
}

static const struct kept *content_file(const struct content *c, const char *name)
{
    for (unsigned i = 0; i < c->count; i++)
        if (strcmp(c->files[i].name, name) == 0)
            return &c->files[i];
    return NULL;
}

static bool same_page(const struct kept *a, const struct kept *b, uint64_t page)
{
    uint64_t at = page * POOL_PAGE_BYTES;
    if (a == NULL || b == NULL || a->size != b->size)
        return false;
    uint64_t n = a->size - at < POOL_PAGE_BYTES ? a->size - at : POOL_PAGE_BYTES;
    return memcmp(a->bytes + at, b->bytes + at, n) == 0;
}

/* --- the backup ----------------------------------------------------------------------------------------------------------- */

#define BACKUPS_MAX 8u

static unsigned read_backups(const struct poolside_repair *r, const char *pool, struct content backups[BACKUPS_MAX])
{
    const char *parent = r->backup[0] != '\0' ? r->backup : pool;
    unsigned count = 0;
    DIR *stream = opendir(parent);
    if (stream == NULL)
        return 0;
    for (struct dirent *e; (e = readdir(stream)) != NULL && count < BACKUPS_MAX;) {
        char path[2 * PATH_BYTES + NAME_BYTES + 2];
        if (strncmp(e->d_name, BACKUP_NAME, strlen(BACKUP_NAME)) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", parent, e->d_name);
        content_read(&backups[count++], path);
    }
    closedir(stream);
    return count;
}

/* A page of the damaged pool that repair changes, or the file of which it moves, is as it was or has its copy. */
static bool page_is_kept(const struct poolside_repair *r, const struct kept *old, uint64_t page,
                         const struct content *now, const struct content *backups, unsigned count)
{
    const struct kept *after = content_file(&r->repaired, old->name);
    if (same_page(old, after, page) || same_page(old, content_file(now, old->name), page))
        return true;
    for (unsigned i = 0; i < count; i++)
        if (same_page(old, content_file(&backups[i], old->name), page))
            return true;
    return false;
}

static void judge_backup(struct judge *j, const struct poolside_repair *r, const struct content *now, const char *when)
{
    struct content backups[BACKUPS_MAX];
    unsigned count = read_backups(r, j->dir, backups);
    for (unsigned i = 0; i < r->damaged.count; i++) {
        const struct kept *old = &r->damaged.files[i];
        for (uint64_t page = 0; page * POOL_PAGE_BYTES < old->size; page++)
            if (!page_is_kept(r, old, page, now, backups, count))
                judge_fail(j, "%s: page %llu of %s was changed, but its old bytes are in none of %u backups", when,
                           (unsigned long long)page, old->name, count);
    }
    for (unsigned i = 0; i < count; i++)
        content_free(&backups[i]);
}

/* --- the judge ------------------------------------------------------------------------------------------------------------ */

static void judge_same(struct judge *j, const struct content *now, const struct content *wanted)
{
    if (now->count != wanted->count)
        judge_fail(j, "the second repair leaves %u files, the one that was not cut off %u", now->count, wanted->count);
    for (unsigned i = 0; i < wanted->count; i++) {
        const struct kept *w = &wanted->files[i], *found = content_file(now, w->name);
        if (found == NULL)
            judge_fail(j, "%s is gone after the second repair", w->name);
        for (uint64_t page = 0; page * POOL_PAGE_BYTES < w->size; page++)
            if (!same_page(w, found, page))
                judge_fail(j, "after the second repair, page %llu of %s is not as the first one makes it",
                           (unsigned long long)page, w->name);
    }
}

static int repair_again(struct judge *j, const struct poolside_repair *r)
{
    char *report = NULL;
    const char *backup = r->backup[0] != '\0' ? r->backup : NULL;
    int code = pool_repair_ex(j->dir, backup, &j->recorder->hooks, &report);
    if (code != 0)
        judge_fail(j, "pa_repair, run again, gives %d: %.300s", code, report == NULL ? "" : report);
    free(report);
    return code;
}

/* Repair was cut off, or is about to begin. */
static void judge_cut(struct judge *j, const struct poolside_repair *r)
{
    struct content now, after;
    content_read(&now, j->dir);
    judge_backup(j, r, &now, "before the second repair");
    bool sound = pa_check(j->dir, NULL) == 0;
    if (repair_again(j, r) == 0) {
        content_read(&after, j->dir);
        judge_backup(j, r, &after, "after the second repair");
        if (!sound) /* else it has perhaps been opened and used */
            judge_same(j, &after, &r->repaired);
        content_free(&after);
    }
    content_free(&now);
}

static void judge_repair(struct judge *j, enum judge_phase phase)
{
    const struct poolside_repair *r = poolside_of(j->history)->repair;
    if (phase == JUDGE_OPEN && !j->shown && op_state_at(&j->history->ops[r->op], j->event) != OP_ENDED)
        judge_cut(j, r);
    if (j->why[0] == '\0')
        poolside_judge(j, phase);
}

/* --- the histories -------------------------------------------------------------------------------------------------------- */

static void repair_fini(struct history *h)
{
    struct poolside *p = poolside_of(h);
    if (p != NULL && p->repair != NULL) {
        content_free(&p->repair->damaged);
        content_free(&p->repair->repaired);
        free(p->repair);
    }
    poolside_fini(h);
}

/* Write over a part of a file, as whatever damaged it. */
static int spoil(struct history *h, const char *name, uint64_t offset, const void *bytes, size_t size)
{
    struct dir d;
    struct file f = {.fd = -1};
    int code = dir_open(&d, h->dir, false, false, poolside_of(h)->params.hooks);
    if (code == 0)
        code = file_open(&d, &f, name);
    if (code == PA_ENOENT)
        code = file_create(&d, &f, name, offset + size, true);
    if (code == 0)
        code = file_write(&d, &f, offset, bytes, size);
    file_close(&d, &f);
    dir_close(&d);
    return code == 0 ? 0 : history_fail(h, "cannot damage %s: %s", name, pa_errormsg());
}

static int spoil_word(struct history *h, const char *name, uint64_t offset)
{
    static const uint64_t rubbish = 0xdeadbeef12345678u;
    return spoil(h, name, offset, &rubbish, sizeof rubbish);
}

/* Small, big and huge blocks, some freed again; closed. */
static int make_pool(struct history *h, unsigned dirs)
{
    static const size_t sizes[] = {64, 200, 5000, 16384, 30000, 100000, HUGE_BYTES};
    poolside_new(h, 1, 16, 8, 1);
    poolside_spread(h, dirs);
    TRY(poolside_create(h, 16));
    for (unsigned i = 0; i < 14; i++) {
        TRY(poolside_alloc(h, poolside_owner(i), sizes[i % 7]));
        if (i % 2 == 0)
            TRY(poolside_stamp(h, poolside_owner(i)));
    }
    for (unsigned i = 1; i < 14; i += 4)
        TRY(poolside_free(h, poolside_owner(i)));
    return 0;
}

/* The pool is damaged and durable: what follows is repair, and the life after it. */
static int repair_and_use(struct history *h, bool elsewhere)
{
    struct poolside *p = poolside_of(h);
    struct poolside_repair *r = p->repair = calloc(1, sizeof *r);
    char *report = NULL;
    if (r == NULL)
        return history_fail(h, "no memory");
    if (elsewhere)
        snprintf(r->backup, sizeof r->backup, "%s/kept", h->root);
    if (pa_check(h->dir, NULL) != PA_ECORRUPT)
        return history_fail(h, "the damage makes nothing unsound");
    history_settle(h);
    content_read(&r->damaged, h->dir);
    r->op = history_begin(h, "pa_repair");
    int code = pool_repair_ex(h->dir, elsewhere ? r->backup : NULL, p->params.hooks, &report);
    history_end(h, r->op);
    if (code != 0)
        history_fail(h, "pa_repair gives %d: %.400s", code, report);
    free(report);
    content_read(&r->repaired, h->dir);
    TRY(code);
    TRY(poolside_open(h, 1));
    TRY(poolside_alloc(h, poolside_owner(1), 64));
    TRY(poolside_free(h, poolside_owner(0)));
    return poolside_close(h);
}

static void segment_file(const struct history *h, uint32_t owner, char name[32])
{
    struct poolside *p = poolside_of(h);
    const struct segment *s = manager_segment(&p->pool->manager, poolside_read(h, owner).segment);
    snprintf(name, 32, "%s", s->file.name);
}

/* Superblock, table words, headers, a file of no slot. */
static int run_repair_files(struct history *h)
{
    char small[32], huge[32];
    TRY(make_pool(h, 0));
    struct pm_superblock geometry = poolside_of(h)->pool->manager.geometry;
    segment_file(h, poolside_owner(0), small);
    segment_file(h, poolside_owner(6), huge);
    uint64_t big_slot = poolside_read(h, poolside_owner(4)).segment;
    TRY(poolside_close(h));
    TRY(spoil_word(h, "pool.pa", 0));
    TRY(spoil_word(h, "pool.pa", geometry.table_offset + big_slot * 8));
    TRY(spoil_word(h, small, 0));
    TRY(spoil_word(h, huge, 0));
    TRY(spoil_word(h, "segment-0000002f.pa", 0));
    return repair_and_use(h, false);
}

/* An entry of the log, a slab line, a leaf's header of the block index; the copies go to a directory that repair makes. */
static int run_repair_contents(struct history *h)
{
    char small[32];
    TRY(make_pool(h, 0));
    segment_file(h, poolside_owner(0), small);
    TRY(poolside_close(h));
    TRY(spoil_word(h, "pool.pa", POOL_LANES_OFFSET + 2 * sizeof(struct pm_lane_entry) + 16)); /* its block */
    TRY(spoil_word(h, small, SEGMENT_HEADER_BYTES));                                          /* its LSN */
    TRY(spoil_word(h, "pool.pa", POOL_ROOT_OFFSET + offsetof(struct pm_root, size)));
    return repair_and_use(h, true);
}

/* A member.pa, and a header in another directory. */
static int run_repair_dirs(struct history *h)
{
    struct segment *s = NULL;
    TRY(make_pool(h, MORE_MAX));
    const struct manager *m = &poolside_of(h)->pool->manager;
    for (uint32_t slot = 0; s == NULL && slot < m->slots; slot++)
        if (slot % (MORE_MAX + 1) == MORE_MAX && segment_is_present(manager_segment(m, slot)))
            s = manager_segment(m, slot);
    if (s == NULL)
        return history_fail(h, "no file lies in the last directory");
    char name[32];
    snprintf(name, sizeof name, "%s", s->file.name);
    TRY(poolside_close(h));
    TRY(spoil_word(h, "dir-1/member.pa", 0));
    TRY(spoil_word(h, name, 0));
    return repair_and_use(h, false);
}

#define REPAIR_SCENARIO(NAME, TITLE)                                                                                   \
    const struct scenario scenario_##NAME = {.name = #NAME,                                                            \
                                             .title = TITLE,                                                           \
                                             .run = run_##NAME,                                                        \
                                             .judge = judge_repair,                                                    \
                                             .fini = repair_fini,                                                      \
                                             .name_kills = 24,                                                         \
                                             .nested_every = 64,                                                       \
                                             .private_maps = true,                                                     \
                                             .in_place = true}

REPAIR_SCENARIO(repair_files, "a pool with damaged files is repaired");
REPAIR_SCENARIO(repair_contents, "a pool with a damaged log and metadata is repaired");
REPAIR_SCENARIO(repair_dirs, "a pool over three directories with a damaged member is repaired");
