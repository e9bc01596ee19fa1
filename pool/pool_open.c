/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_open.c -- options, pa_create, pa_open, pa_close. */
#include <stdlib.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "pool/pool.h"
#include "pool/pool_watch.h"
#include "recovery/recovery.h"
#include "segment/members.h"

#define LANES_MIN 8u

void pa_options_init(pa_options *o)
{
    *o = (pa_options){0};
}

static int check_options(const char *dir, const pa_options *o, bool create)
{
    if (dir == NULL || dir[0] == '\0')
        return error_set(PA_EINVAL, "no directory named");
    if (o->layout != NULL && strlen(o->layout) > PA_LAYOUT_MAX)
        return error_set(PA_EINVAL, "the layout name is longer than %d bytes; choose a shorter one", PA_LAYOUT_MAX);
    if (o->flags & ~(PA_READ_ONLY | PA_WAIT_LOCK | PA_SPARSE | PA_NO_BACKGROUND))
        return error_set(PA_EINVAL, "unknown flags 0x%x; begin with pa_options_init", o->flags);
    if ((unsigned)o->durability > PA_DURABILITY_PROCESS || (unsigned)o->guarantee > PA_GUARANTEE_GC)
        return error_set(PA_EINVAL, "unknown durability %u or guarantee %u; begin with pa_options_init",
                         (unsigned)o->durability, (unsigned)o->guarantee);
    if (o->cores > POOL_LANES_MAX)
        return error_set(PA_EINVAL, "%u cores are more than %u; 0 takes the machine's", o->cores, POOL_LANES_MAX);
    if (o->ndirs > PA_DIRS_MAX || (o->ndirs != 0 && o->dirs == NULL))
        return error_set(PA_EINVAL, "%u further directories are more than %d, or none are named", o->ndirs,
                         PA_DIRS_MAX);
    for (unsigned i = 0; i < o->ndirs; i++)
        if (o->dirs[i] == NULL || o->dirs[i][0] == '\0')
            return error_set(PA_EINVAL, "directory %u has no name", i + 1);
    if (!create)
        return 0;
    if (o->guarantee != PA_GUARANTEE_STRICT)
        return error_set(PA_ENOTSUP, "only PA_GUARANTEE_STRICT is available in this version");
    if (o->flags & PA_READ_ONLY)
        return error_set(PA_EINVAL, "a pool cannot be created read-only");
    if (o->segment_size != 0 &&
        (!is_power_of_two(o->segment_size) || o->segment_size < SEGMENT_SIZE_MIN || o->segment_size > SEGMENT_SIZE_MAX))
        return error_set(PA_EINVAL, "segment_size %llu is not a power of two between 1 MiB and 16 GiB",
                         (unsigned long long)o->segment_size);
    return 0;
}

static uint32_t lanes_for(const pa_options *o)
{
    uint32_t cores = o->cores != 0 ? o->cores : cpu_count();
    uint32_t lanes = 2 * cores;
    if (lanes < LANES_MIN)
        lanes = LANES_MIN;
    return lanes > POOL_LANES_MAX ? POOL_LANES_MAX : lanes;
}

static pa_pool *pool_new(void)
{
    pa_pool *pool = NULL;
    if (posix_memalign((void **)&pool, 128, sizeof *pool) != 0) {
        error_set(PA_ENOMEM, "no memory for the pool's handle");
        return NULL;
    }
    memset(pool, 0, sizeof *pool);
    pool->dir.fd = -1;
    pool->file.fd = -1;
    pool->opener = getpid();
    pool->watched = valgrind_is_running();
    lock_init(&pool->root_lock, LOCK_RANK_ROOT);
    return pool;
}

/* Release in reverse order; what was not set up is zero. */
static void pool_destroy(pa_pool *pool)
{
    background_stop(pool);
    for (unsigned i = 0; i < pool->big_count; i++)
        big_fini(&pool->bigs[i]);
    for (unsigned i = 0; pool->cores != NULL && i < pool->core_count; i++) {
        lane_fini(&pool->cores[i].lane);
        lock_fini(&pool->cores[i].lock);
        lock_fini(&pool->cores[i].staging);
    }
    free(pool->bigs);
    free(pool->leaf_spaces);
    free(pool->smalls);
    free(pool->cores);
    background_fini(pool);
    if (pool->manager.dir != NULL)
        manager_close(&pool->manager);
    file_close(&pool->dir, &pool->file);
    dir_close(&pool->dir);
    lock_fini(&pool->root_lock);
    free(pool);
}

static int make_cores(pa_pool *pool, unsigned wanted, const uint32_t *next, uint64_t lsn)
{
    uint32_t lanes = pool->manager.geometry.lanes;
    unsigned count = wanted != 0 ? wanted : cpu_count();
    if (count > lanes)
        count = lanes;
    if (posix_memalign((void **)&pool->cores, 128, count * sizeof *pool->cores) != 0) {
        pool->cores = NULL;
        return error_set(PA_ENOMEM, "no memory for %u cores", count);
    }
    memset(pool->cores, 0, count * sizeof *pool->cores);
    pool->smalls = calloc(count, sizeof *pool->smalls);
    if (pool->smalls == NULL)
        return error_set(PA_ENOMEM, "no memory for %u allocators", count);
    for (unsigned i = 0; i < count; i++) {
        struct core *core = &pool->cores[i];
        int code = lane_init(&core->lane, &pool->media, recovery_ring(&pool->manager, i),
                             pool->manager.geometry.lane_entries, next[i], lsn);
        if (code != 0)
            return code;
        lock_init(&core->lock, LOCK_RANK_CORE);
        lock_init(&core->staging, LOCK_RANK_STAGING);
        core->index = i;
        small_init(&pool->smalls[i], core, &pool->manager);
        pool->core_count = i + 1;
    }
    return 0;
}

static int make_bigs(pa_pool *pool)
{
    uint32_t count = 2 * pool->manager.geometry.lanes;
    pool->bigs = calloc(count, sizeof *pool->bigs);
    pool->leaf_spaces = calloc(pool->core_count, sizeof *pool->leaf_spaces);
    if (pool->bigs == NULL || pool->leaf_spaces == NULL)
        return error_set(PA_ENOMEM, "no memory for %u allocators", count);
    pool->big_count = count;
    for (unsigned i = 0; i < count; i++) {
        unsigned core = pool_core_of_big(pool, i);
        struct big_space space = pool_big_space(pool, core);
        big_init(&pool->bigs[i], &pool->cores[core], &pool->manager, &space, (uint16_t)i);
    }
    return 0;
}

/* Every small segment gets an object that looks after it; with fewer cores than before, some get more. Downwards, so that the
 * lowest segment is read first. */
static void hand_out_segments(pa_pool *pool)
{
    struct manager *m = &pool->manager;
    for (uint32_t slot = atomic_load(&m->slots_end); slot-- > 0;) {
        struct segment *s = manager_segment(m, slot);
        if (!segment_is_present(s) || atomic_load(&s->kind) != SEGMENT_KIND_SMALL)
            continue;
        unsigned owner = atomic_load(&s->owner) % pool->core_count;
        atomic_store(&s->owner, (uint16_t)owner);
        small_adopt(&pool->smalls[owner], s);
    }
}

/* What is common to create and open, over a mapped pool file. */
static int bring_up(pa_pool *pool, const pa_options *o, const struct pool_params *params,
                    const struct pm_superblock *geometry)
{
    bool sparse = ((o->flags | geometry->flags) & PA_SPARSE) != 0;
    int code = manager_open(&pool->manager, &pool->dir, &pool->file, &pool->media, geometry, o->max_size, sparse);
    if (code != 0) {
        pool->manager.dir = NULL;
        return code;
    }
    uint32_t *next = calloc(geometry->lanes, sizeof *next);
    if (next == NULL)
        return error_set(PA_ENOMEM, "no memory to read %u lanes", geometry->lanes);
    uint64_t lsn = 0;
    /* A ready root that a killed process left in the cache only would be made anew after a power failure, and the end of a repair
     * would be taken back. The fence is recovery_run's first. */
    media_flush(&pool->media, &pool->open_tally, superblock_of(&pool->file), sizeof(struct pm_superblock));
    media_flush(&pool->media, &pool->open_tally, pool_root_line(pool), sizeof *pool_root_line(pool));
    code = recovery_run(&pool->manager, &pool->open_tally, pool_is_leaf, next, &lsn);
    pool->manager.open_lsn = pool->manager.lsn_floor = lsn;
    if (code == 0)
        code = manager_finish(&pool->manager);
    if (code == 0)
        code = make_cores(pool, o->cores, next, lsn);
    free(next);
    if (code == 0)
        code = make_bigs(pool);
    bool watched = (params->recorder != NULL || params->hooks != NULL) && !params->background;
    bool alone = pool->read_only || (o->flags & PA_NO_BACKGROUND) != 0 || watched;
    if (code == 0)
        code = background_init(pool, !alone, pool->big_count);
    if (code == 0)
        hand_out_segments(pool);
    if (code == 0 && !alone)
        code = pool_find_large_indexes(pool);
    if (code == 0)
        code = pool_free_staged(pool); /* of a snapshot too, so that it counts what an ordinary open would */
    if (code == 0)
        background_start(pool);
    pool->young = params->young;
    return code;
}

static int set_up_media(pa_pool *pool, const pa_options *o, const struct pool_params *params)
{
    int code = media_init(&pool->media, &pool->dir, &pool->file, (int)o->durability);
    if (code == 0 && params->recorder != NULL) {
        pool->media.recorder = params->recorder;
        pool->media.mode = MEDIA_RECORD;
    }
    return code;
}

/* Nothing half-made stays; a file that got its final name is a pool without content. The caller's handle still has the lock. The pool
 * file goes first, durably: without its further directories it could neither be opened nor be created anew. */
static void uncreate(pa_pool *pool)
{
    struct error_text first;
    error_save(&first);
    if (dir_unlink(&pool->dir, pool->file.name, false) == 0 && dir_sync(&pool->dir) == 0)
        members_uncreate(&pool->dir, superblock_of(&pool->file));
    error_restore(&first);
}

static int create_in(pa_pool *pool, const char *dir, const pa_options *o, const struct pool_params *params)
{
    struct superblock_request request = {.layout = o->layout,
                                         .segment_size = o->segment_size != 0 ? o->segment_size : SEGMENT_SIZE_DEFAULT,
                                         .max_size = o->max_size,
                                         .lanes = params->lanes != 0 ? params->lanes : lanes_for(o),
                                         .lane_entries =
                                             params->lane_entries != 0 ? params->lane_entries : LANE_ENTRIES_DEFAULT,
                                         .slots = params->slots,
                                         .guarantee = o->guarantee,
                                         .flags = o->flags & PA_SPARSE,
                                         .dirs = o->dirs,
                                         .ndirs = o->ndirs};
    int code = dir_open(&pool->dir, dir, true, false, params->hooks);
    if (code == 0)
        code = superblock_create(&pool->dir, &pool->file, &request);
    if (code != 0)
        return code;
    code = set_up_media(pool, o, params);
    if (code == 0)
        code = superblock_publish(&pool->dir, &pool->file, &pool->media, &request);
    if (code == 0) {
        struct pm_superblock geometry = *superblock_of(&pool->file);
        code = bring_up(pool, o, params, &geometry);
    }
    if (code != 0)
        uncreate(pool);
    return code;
}

static int open_in(pa_pool *pool, const char *dir, const pa_options *o, const struct pool_params *params)
{
    struct pm_superblock geometry;
    pool->read_only = (o->flags & PA_READ_ONLY) != 0;
    int code = dir_open(&pool->dir, dir, false, pool->read_only, params->hooks);
    pool->dir.locked = params->locked;
    pool->dir.members_known = params->members_known;
    if (code == 0)
        code = superblock_open(&pool->dir, &pool->file, o->layout, (o->flags & PA_WAIT_LOCK) != 0, o->dirs, o->ndirs,
                               &geometry);
    if (code == 0)
        code = set_up_media(pool, o, params);
    if (code == 0)
        code = bring_up(pool, o, params, &geometry);
    return code;
}

static int make(const char *dir, const pa_options *o, const struct pool_params *params, bool create, pa_pool **ret_pool)
{
    static const struct pool_params no_params;
    pa_options defaults;
    pa_options_init(&defaults);
    if (o == NULL)
        o = &defaults;
    if (params == NULL)
        params = &no_params;
    if (ret_pool == NULL)
        return error_set(PA_EINVAL, "no place for the pool's handle");
    int code = check_options(dir, o, create);
    if (code != 0)
        return code;
    pa_pool *pool = pool_new();
    if (pool == NULL)
        return PA_ENOMEM;
    code = create ? create_in(pool, dir, o, params) : open_in(pool, dir, o, params);
    if (code != 0) {
        pool_destroy(pool);
        return code;
    }
    *ret_pool = pool;
    return 0;
}

int pool_create_ex(const char *dir, const pa_options *o, const struct pool_params *params, pa_pool **ret_pool)
{
    return make(dir, o, params, true, ret_pool);
}

int pool_open_ex(const char *dir, const pa_options *o, const struct pool_params *params, pa_pool **ret_pool)
{
    return make(dir, o, params, false, ret_pool);
}

int pa_create(const char *dir, const pa_options *o, pa_pool **ret_pool)
{
    struct error_text before;
    error_save(&before);
    return error_end(make(dir, o, NULL, true, ret_pool), &before);
}

int pa_open(const char *dir, const pa_options *o, pa_pool **ret_pool)
{
    struct error_text before;
    error_save(&before);
    return error_end(make(dir, o, NULL, false, ret_pool), &before);
}

void pool_abandon(pa_pool *pool)
{
    pool_destroy(pool);
}

#ifndef NDEBUG
const bool pool_counts_calls = true;
#else
const bool pool_counts_calls = false;
#endif

/* Always 0 in builds without assertions. */
static uint32_t calls_in_progress(const pa_pool *pool)
{
    uint32_t calls = 0;
    for (unsigned i = 0; i < POOL_TALLIES; i++)
        calls += atomic_load_explicit(&pool->tallies[i].calls, memory_order_acquire);
    return calls;
}

int pa_close(pa_pool *pool)
{
    if (pool == NULL)
        return 0;
    if (pool_is_inherited(pool)) {
        pool_leave_to_parent(pool);
        return 0;
    }
    uint32_t calls = calls_in_progress(pool);
    if (calls != 0)
        return error_set(PA_EINVAL, "%u calls on the pool in %s are still in progress; close it after they have ended",
                         calls, pool->dir.path);
    if (pool_is_watched(pool))
        pool_watch_lost(pool);
    background_stop(pool);
    for (unsigned i = 0; i < pool->big_count; i++) {
        lock_acquire(&pool->bigs[i].core->lock);
        big_fini(&pool->bigs[i]); /* gives spare leaves back, which the lane logs */
        lock_release(&pool->bigs[i].core->lock);
    }
    for (unsigned i = 0; i < pool->core_count; i++) {
        pa_assert(small_is_valid(&pool->smalls[i]));
        lane_settle(&pool->cores[i].lane, &pool->cores[i].tally);
    }
    pool_destroy(pool);
    return 0;
}
