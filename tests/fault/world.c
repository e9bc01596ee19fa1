/* SPDX-License-Identifier: BSD-3-Clause */
/* world.c -- see world.h. */
#include "tests/fault/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool.h"
#include "tests/fault/fault.h"
#include "tests/support/run.h"

char world_context[240];

#define SEGMENT_BYTES ((uint64_t)1 << 20)
#define HEAD_BYTES    4096u

static size_t filled(size_t usable)
{
    return usable < HEAD_BYTES ? usable & ~(size_t)7 : HEAD_BYTES;
}

static void fill(struct world *w, size_t i)
{
    block_fill(pa_direct(w->pool, *owners_at(&w->o, i)), filled(w->m.usable[i]), i);
}

/* --- calls ---------------------------------------------------------------------------------------------------------------- */

static void options_of(const struct world *w, pa_options *o)
{
    pa_options_init(o);
    o->cores = w->cores;
    o->flags = w->flags;
    o->max_size = w->max_size;
}

static const struct file_hooks *hooks_of(const struct world *w)
{
    return w->background ? NULL : w->hooks != NULL ? w->hooks : fault_hooks();
}

int world_create(struct world *w)
{
    pa_options options;
    options_of(w, &options);
    options.segment_size = SEGMENT_BYTES;
    struct pool_params params = {.lane_entries = 64, .slots = w->slots != 0 ? w->slots : 64, .hooks = hooks_of(w)};
    return pool_create_ex(w->dir, &options, &params, &w->pool);
}

int world_open(struct world *w)
{
    pa_options options;
    options_of(w, &options);
    struct pool_params params = {.hooks = hooks_of(w)};
    return pool_open_ex(w->dir, &options, &params, &w->pool);
}

void world_find(struct world *w)
{
    if (w->m.owners)
        CK_OK(owners_open(&w->o, w->pool, WORLD_OWNERS));
}

/* The owner after a call: as before if that failed. */
static void note(struct world *w, size_t i, int r)
{
    pa_pptr p = *owners_at(&w->o, i);
    if (r != 0) {
        EXPECT(memcmp(&p, &w->m.at[i], sizeof p) == 0, "%s: a call failed but changed owner %zu", world_context, i);
        return;
    }
    w->m.at[i] = p;
    w->m.usable[i] = pa_is_null(p) ? 0 : pa_usable_size(w->pool, p);
    if (!pa_is_null(p))
        fill(w, i);
}

int world_allocate(struct world *w, size_t i, size_t size, size_t alignment)
{
    pa_pptr *dst = owners_at(&w->o, i);
    int r = alignment == 0 ? pa_allocate(w->pool, dst, size) : pa_allocate_aligned(w->pool, dst, size, alignment);
    note(w, i, r);
    EXPECT(r != 0 || w->m.usable[i] >= size, "%s: block of %zu bytes instead of %zu", world_context, w->m.usable[i],
           size);
    return r;
}

int world_reallocate(struct world *w, size_t i, size_t size)
{
    size_t old = w->m.usable[i];
    pa_pptr *dst = owners_at(&w->o, i);
    int r = pa_reallocate(w->pool, dst, size);
    size_t kept = r == 0 && size < old ? size : old;
    EXPECT(pa_is_null(*dst) || block_is(pa_direct(w->pool, *dst), filled(kept), i), "%s: contents of owner %zu",
           world_context, i);
    note(w, i, r);
    return r;
}

int world_deallocate(struct world *w, size_t i)
{
    int r = pa_deallocate(w->pool, owners_at(&w->o, i));
    note(w, i, r);
    return r;
}

/* --- judgement ------------------------------------------------------------------------------------------------------------ */

static int add_tree_block(pa_off block, void *arg)
{
    blocks_add(arg, block, 0);
    return 0;
}

static void expected_blocks(struct world *w, struct blocks *b)
{
    const struct owners *o = &w->o;
    if (!w->m.owners) {
        if (w->m.root != 0)
            blocks_add(b, pa_off_of(w->pool, w->root), 0);
        return;
    }
    blocks_add(b, pa_off_of(w->pool, pa_pptr_of(w->pool, o->tables)), 0);
    for (size_t t = 0; t * OWNERS_PER_TABLE < o->count; t++)
        blocks_add(b, pa_off_of(w->pool, o->tables[t]), 0);
    for (size_t i = 0; i < WORLD_OWNERS; i++)
        if (!pa_is_null(w->m.at[i]))
            blocks_add(b, pa_off_of(w->pool, w->m.at[i]), w->m.usable[i]);
    if (w->tree != NULL)
        CK_OK(fptree_foreach_block(w->tree, add_tree_block, b));
}

static int count_key(uint64_t key, uint64_t value, void *arg)
{
    uint64_t *next = arg;
    return key == ++*next && value == key * 7 ? 0 : 1;
}

static void verify_tree(struct world *w, const char *when)
{
    uint64_t keys = 0;
    int r = fptree_check(w->tree, NULL);
    EXPECT(r == 0, "%s: %s: tree: %s", world_context, when, pa_errormsg());
    r = fptree_scan(w->tree, 0, count_key, &keys);
    EXPECT(r == 0 && keys == w->m.keys, "%s: %s: tree holds keys up to %llu, expected %llu", world_context, when,
           (unsigned long long)keys, (unsigned long long)w->m.keys);
}

/* The statistics count exactly the files that are there. */
static void verify_files(struct world *w, const char *when)
{
    static char names[64][64];
    pa_stats stats;
    uint64_t bytes = 0, segments = 0, huge = 0;
    if ((w->flags & PA_READ_ONLY) != 0 || w->background || fault_disarm()->removal)
        return; /* files that an open leaves alone, that come and go, or that could not be removed */
    size_t n = temp_list(w->dir, "", names, 64);
    for (size_t i = 0; i < n; i++) {
        bytes += temp_file_size(temp_join(w->dir, names[i]).text);
        segments += strncmp(names[i], "segment-", 8) == 0;
        huge += strncmp(names[i], "huge-", 5) == 0;
    }
    CK_OK(pa_get_stats(w->pool, &stats));
    EXPECT(stats.segment_files == segments && stats.huge_files == huge,
           "%s: %s: %llu and %llu files counted, %llu and %llu there", world_context, when,
           (unsigned long long)stats.segment_files, (unsigned long long)stats.huge_files, (unsigned long long)segments,
           (unsigned long long)huge);
    EXPECT(stats.file_bytes == bytes, "%s: %s: %llu bytes of files counted, %llu there", world_context, when,
           (unsigned long long)stats.file_bytes, (unsigned long long)bytes);
}

void world_verify(struct world *w, const char *when)
{
    char message[256];
    bool opened = w->m.tree && w->tree == NULL;
    if (opened) {
        int r = fptree_open(w->pool, owners_at(&w->o, WORLD_ANCHOR), &w->tree);
        EXPECT(r == 0, "%s: %s: tree: %s", world_context, when, pa_errormsg());
    }
    for (size_t i = 0; w->m.owners && i < WORLD_OWNERS; i++) {
        pa_pptr p = *owners_at(&w->o, i);
        EXPECT(memcmp(&p, &w->m.at[i], sizeof p) == 0, "%s: %s: owner %zu changed", world_context, when, i);
        if (!pa_is_null(p) && i != WORLD_ANCHOR)
            EXPECT(block_is(pa_direct(w->pool, p), filled(w->m.usable[i]), i), "%s: %s: contents of owner %zu",
                   world_context, when, i);
    }
    struct blocks expected = {0};
    expected_blocks(w, &expected);
    bool whole = blocks_are_all(w->pool, &expected, message, sizeof message);
    EXPECT(whole, "%s: %s: %s", world_context, when, message);
    blocks_free(&expected);
    verify_files(w, when);
    if (w->tree != NULL)
        verify_tree(w, when);
    if (opened) {
        CK_OK(fptree_close(w->tree));
        w->tree = NULL;
    }
}

void world_check(const char *dir, bool stray, const char *when)
{
    char *report = NULL;
    int r = pa_check(dir, &report);
    EXPECT(r == 0, "%s: %s: pa_check: %s: %s", world_context, when, pa_strerror(r), report == NULL ? "" : report);
    EXPECT(stray || strstr(report, "note:") == NULL, "%s: %s: a file is left over: %s", world_context, when, report);
    free(report);
    char names[1][64];
    EXPECT(temp_list(dir, "pool.pa.new", names, 1) == 0, "%s: %s: pool.pa.new is left over", world_context, when);
}

void world_verify_crash(struct world *w)
{
    struct world copy = *w;
    snprintf(copy.dir, sizeof copy.dir, "%s", temp_new().text);
    copy.pool = NULL;
    copy.tree = NULL;
    copy.flags = 0;
    temp_copy_dir(w->dir, copy.dir);
    world_check(copy.dir, fault_disarm()->removal, "after a crash now");
    int r = world_open(&copy);
    EXPECT(r == 0, "%s: open after a crash now: %s", world_context, pa_errormsg());
    world_find(&copy);
    world_verify(&copy, "after a crash now");
    CK_OK(pa_close(copy.pool));
    temp_remove(copy.dir);
}

/* Frees and allocations of each kind, as anybody would do them next. */
static void work(struct world *w)
{
    static const size_t sizes[] = {7000, 100, WORLD_BIG_BYTES};
    for (size_t i = 0; w->m.owners && i < 3; i++) {
        size_t owner = WORLD_ANCHOR - 3 + i;
        CK_OK(world_allocate(w, owner, sizes[i], 0));
        CK_OK(world_reallocate(w, owner, sizes[i] * 3));
        CK_OK(world_deallocate(w, owner));
    }
}

void world_finish(struct world *w)
{
    if (w->tree != NULL)
        CK_OK(fptree_close(w->tree));
    w->tree = NULL;
    CK_OK(pa_close(w->pool));
    w->flags = 0;
    w->max_size = 0;
    world_check(w->dir, fault_disarm()->removal, "closed");
    int r = world_open(w);
    EXPECT(r == 0, "%s: reopen: %s", world_context, pa_errormsg());
    world_find(w);
    world_verify(w, "reopened");
    work(w);
    world_verify(w, "after some work");
    CK_OK(pa_close(w->pool));
    w->pool = NULL;
    world_check(w->dir, false, "closed again");
}

/* --- images --------------------------------------------------------------------------------------------------------------- */

static struct temp_path image_dirs[IMAGE_COUNT];
static struct model image_models[IMAGE_COUNT];

static void world_init(struct world *w)
{
    *w = (struct world){.cores = 1};
    snprintf(w->dir, sizeof w->dir, "%s", temp_new().text);
}

void world_begin(struct world *w, enum image image)
{
    world_init(w);
    w->m = image_models[image];
    if (image != IMAGE_NONE)
        temp_copy_dir(image_dirs[image].text, w->dir);
}

struct temp_path world_aside(const struct world *w)
{
    struct temp_path p;
    snprintf(p.text, sizeof p.text, "%.200s-aside", w->dir);
    return p;
}

void world_end(struct world *w)
{
    if (w->pool != NULL)
        CK_OK(pa_close(w->pool));
    w->pool = NULL;
    temp_remove(w->dir);
    temp_remove(world_aside(w).text);
}

static void keep(struct world *w, enum image image)
{
    snprintf(image_dirs[image].text, sizeof image_dirs[image].text, "%s", w->dir);
    image_models[image] = w->m;
}

static void make_content(struct world *w)
{
    w->m.owners = true;
    world_find(w);
    for (size_t i = 0; i < 60; i++)
        CK_OK(world_allocate(w, WORLD_SMALL + i, 7000, 0));
    for (size_t i = 0; i < 60; i += 3)
        CK_OK(world_deallocate(w, WORLD_SMALL + i));
    for (size_t i = 0; i < 40; i++)
        CK_OK(world_allocate(w, WORLD_TINY + i, 100, 0));
    for (size_t i = 0; i < 6; i++)
        CK_OK(world_allocate(w, WORLD_BIG + i, WORLD_BIG_BYTES, 0));
    CK_OK(world_deallocate(w, WORLD_BIG + 3));
    CK_OK(world_allocate(w, WORLD_HUGE, WORLD_HUGE_BYTES, 0));
    CK_OK(fptree_open(w->pool, owners_at(&w->o, WORLD_ANCHOR), &w->tree));
    for (uint64_t key = 1; key <= 100; key++)
        CK_OK(fptree_insert(w->tree, key, key * 7));
    CK_OK(fptree_close(w->tree));
    w->tree = NULL;
    w->m.at[WORLD_ANCHOR] = *owners_at(&w->o, WORLD_ANCHOR);
    w->m.usable[WORLD_ANCHOR] = pa_usable_size(w->pool, w->m.at[WORLD_ANCHOR]);
    w->m.tree = true;
    w->m.keys = 100;
}

/* What spoils the work on the pool that becomes the killed one. */
struct spoiler {
    bool no_removal, no_mapping; /* a mapping that fails makes removals fail, too */
    const char *from, *to;       /* copy the directory when a file has grown */
};

static int spoil(void *context, enum file_op op, const char *name, const char *site)
{
    struct spoiler *s = context;
    (void)name;
    (void)site;
    if (op == FILE_OP_MAP && s->no_mapping) {
        s->no_removal = true;
        return EIO;
    }
    return op == FILE_OP_UNLINK && s->no_removal ? EIO : 0;
}

static void copy_grown(void *context, const struct dir *d, enum file_op op, const char *name, uint64_t offset,
                       uint64_t size, void *address, const char *site)
{
    struct spoiler *s = context;
    (void)d;
    (void)name;
    (void)offset;
    (void)size;
    (void)address;
    (void)site;
    if (op != FILE_OP_ALLOCATE || s->to == NULL)
        return;
    const char *to = s->to;
    s->to = NULL;
    temp_copy_dir(s->from, to);
}

static void make_killed(struct temp_path *ret)
{
    struct world w;
    struct spoiler spoiler = {0};
    struct file_hooks hooks = {.context = &spoiler, .before = spoil, .after = copy_grown};
    *ret = temp_new();
    world_begin(&w, IMAGE_CLOSED);
    w.hooks = &hooks;
    CK_OK(world_open(&w));
    world_find(&w);
    static const size_t staged[] = {7000, WORLD_BIG_BYTES, WORLD_HUGE_BYTES};
    for (uint32_t i = 0; i < 3; i++)
        CK_OK(pool_allocate(w.pool, &manager_core_line(&w.pool->manager, i)->staging, staged[i]));
    for (size_t i = 1; i < 20; i += 3)
        CK_OK(world_deallocate(&w, WORLD_SMALL + i));
    CK_OK(world_allocate(&w, WORLD_NEW, WORLD_HUGE_BYTES, 0));
    spoiler.no_removal = true;
    CK_OK(world_deallocate(&w, WORLD_NEW)); /* leaves a file half removed */
    spoiler.no_removal = false;
    spoiler.no_mapping = true;
    EXPECT(world_allocate(&w, WORLD_NEW, WORLD_HUGE_BYTES, 0) == PA_EIO, "a mapping that must fail"); /* half made */
    spoiler = (struct spoiler){.from = w.dir, .to = ret->text};
    keep(&w, IMAGE_KILLED); /* the model before the growth */
    CK_OK(world_reallocate(&w, WORLD_HUGE, WORLD_HUGE_BYTES + (100 << 10)));
    EXPECT(spoiler.to == NULL, "the huge block did not grow in place");
    image_dirs[IMAGE_KILLED] = *ret;
    world_end(&w);
}

static void make_unsound(void)
{
    struct world w;
    world_begin(&w, IMAGE_CLOSED);
    static const uint64_t wrong = 12345678;
    struct temp_path pool = temp_join(w.dir, "pool.pa"), file = temp_join(w.dir, "segment-00000002.pa");
    struct temp_path stray = temp_join(w.dir, "segment-00000030.pa");
    temp_copy_file(file.text, stray.text);
    temp_write_at(pool.text, offsetof(struct pm_superblock, max_size), &wrong, sizeof wrong);
    keep(&w, IMAGE_UNSOUND);
}

void world_images(void)
{
    struct world w;
    world_init(&w);
    CK_OK(world_create(&w));
    CK_OK(pa_close(w.pool));
    keep(&w, IMAGE_EMPTY);

    image_dirs[IMAGE_LEFTOVER] = temp_new();
    temp_make_dir(image_dirs[IMAGE_LEFTOVER].text);
    struct temp_path from = temp_join(w.dir, "pool.pa");
    struct temp_path to = temp_join(image_dirs[IMAGE_LEFTOVER].text, "pool.pa.new");
    temp_copy_file(from.text, to.text);

    world_init(&w);
    CK_OK(world_create(&w));
    make_content(&w);
    world_verify(&w, "made");
    CK_OK(pa_close(w.pool));
    keep(&w, IMAGE_CLOSED);
    struct temp_path killed;
    make_killed(&killed);
    make_unsound();
}
