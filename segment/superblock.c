/* SPDX-License-Identifier: BSD-3-Clause */
/* superblock.c -- see superblock.h. */
#define XXH_INLINE_ALL
#include "segment/superblock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/error.h"
#include "log/lane.h"
#include "segment/members.h"

uint64_t superblock_checksum(const struct pm_superblock *s)
{
    return XXH3_64bits(s, offsetof(struct pm_superblock, checksum));
}

uint64_t superblock_root_check(const struct pm_root *root)
{
    uint64_t check = mix64(root->size + mix64(root->root.segment + mix64(root->root.offset)));
    return check == 0 || check == ROOT_MAKING ? 1 : check;
}

/* Fill everything but the uuid; the table's size depends on the slots, and the slots on the pool file's size. */
static void plan(struct pm_superblock *s, const struct superblock_request *q)
{
    *s = (struct pm_superblock){.magic = SUPERBLOCK_MAGIC,
                                .version = POOL_FORMAT_VERSION,
                                .guarantee = (uint16_t)q->guarantee,
                                .directories = (uint16_t)q->ndirs,
                                .segment_size = q->segment_size,
                                .lanes = q->lanes,
                                .lane_entries = q->lane_entries,
                                .flags = q->flags,
                                .max_size = q->max_size};
    if (q->layout != NULL)
        snprintf(s->layout, sizeof s->layout, "%s", q->layout);
    uint64_t reach = q->max_size != 0 && q->max_size < POOL_RESERVE_BYTES ? q->max_size : POOL_RESERVE_BYTES;
    /* Twice what max_size fills: huge files need runs of free slots, and max_size may be raised at open. */
    uint64_t slots = q->slots != 0 ? q->slots : 2 * (reach / q->segment_size) + 16;
    s->slots = slots > POOL_SLOTS_MAX ? POOL_SLOTS_MAX : (uint32_t)slots;
    s->table_offset = superblock_cores_offset(s) + (uint64_t)s->lanes * POOL_CORE_BYTES;
    s->file_bytes = round_up(s->table_offset + (uint64_t)s->slots * 8, POOL_PAGE_BYTES);
}

/* A leftover of a creation that a crash cut off is removed; a creation that still runs holds the lock. */
static int remove_stale(struct dir *d)
{
    struct file stale;
    int code = file_open(d, &stale, POOL_FILE_NAME_NEW);
    if (code == PA_ENOENT)
        return 0;
    if (code != 0)
        return code;
    code = file_lock(d, &stale, false);
    if (code == 0)
        code = dir_unlink(d, POOL_FILE_NAME_NEW, false);
    file_close(d, &stale);
    return code;
}

static int visit_for_pool_files(const char *name, void *arg)
{
    const struct dir *d = arg;
    if (strcmp(name, POOL_FILE_NAME) == 0)
        return error_set(PA_EEXIST, "%s holds a pool already; open it, or choose another directory", d->path);
    if (strncmp(name, "segment-", 8) == 0 || strncmp(name, "huge-", 5) == 0)
        return error_set(
            PA_EEXIST, "%s holds %s but no pool.pa: a pool whose pool file is missing; restore it, or remove the files",
            d->path, name);
    return 0;
}

int superblock_create(struct dir *d, struct file *f, const struct superblock_request *request)
{
    struct pm_superblock s;
    plan(&s, request);
    *f = (struct file){.fd = -1};
    if (request->max_size != 0 && s.file_bytes + s.segment_size > request->max_size)
        return error_set(
            PA_EINVAL,
            "max_size of %llu bytes leaves no room for the pool file (%llu bytes) and one segment of %llu bytes; "
            "raise it or choose smaller segments",
            (unsigned long long)request->max_size, (unsigned long long)s.file_bytes,
            (unsigned long long)s.segment_size);
    int code = dir_foreach(d, visit_for_pool_files, d);
    if (code == 0)
        code = members_refuse(d);
    if (code == 0)
        code = dir_lock(d); /* or we might remove, or rename, another creator's pool.pa.new */
    if (code == 0)
        code = remove_stale(d);
    if (code == 0)
        code = file_create(d, f, POOL_FILE_NAME_NEW, s.file_bytes, (request->flags & PA_SPARSE) != 0);
    if (code != 0)
        return code;
    code = file_lock(d, f, false);
    if (code == 0) /* somebody else may have finished a pool since we looked */
        code = dir_foreach(d, visit_for_pool_files, d);
    if (code == 0) {
        uint64_t own = (uint64_t)superblock_own_slots(&s) * s.segment_size;
        code = dir_reserve(d, (uint64_t)s.slots * s.segment_size, own + s.segment_size, s.segment_size);
    }
    if (code == 0)
        code = file_map(d, f, 0);
    if (code != 0) {
        struct error_text first;
        error_save(&first);
        file_close(d, f);
        (void)dir_unlink(d, POOL_FILE_NAME_NEW, false); /* ours, whatever failed: we have the directory's lock */
        error_restore(&first);
    }
    return code;
}

/*
 * step                              | durable after it        | a crash here
 * ----------------------------------+-------------------------+----------------------------------------------------------
 * 1 superblock_create               | maybe pool.pa.new       | pa_create removes pool.pa.new and begins again
 * 2 superblock written, flush, fence| its bytes               | as 1
 * 3 file_sync                       | its size and space      | as 1
 * 4 members_create                  | see there               | as 1
 * 5 rename to pool.pa               | old or new name         | as 1, or a pool
 * 6 manager_open syncs the directory| pool.pa                 | a pool
 */
int superblock_publish(struct dir *d, struct file *f, const struct media *m, const struct superblock_request *request)
{
    struct media_tally tally = {0};
    struct pm_superblock s;
    plan(&s, request);
    if (TEMP_FAILURE_RETRY(getrandom(s.uuid, sizeof s.uuid, 0)) != (ssize_t)sizeof s.uuid)
        return error_set_errno(errno, "cannot get random bytes for the pool's identity");
    s.checksum = superblock_checksum(&s);
    media_write(m, f->address, &s, sizeof s);
    media_persist(m, &tally, f->address, sizeof s); /* before the rename: else pool.pa may name an empty file */
    int code = file_sync(d, f);
    if (code == 0)
        code = members_create(d, &s, request->dirs);
    if (code == 0)
        code = dir_rename(d, POOL_FILE_NAME_NEW, POOL_FILE_NAME);
    if (code == 0)
        snprintf(f->name, sizeof f->name, "%s", POOL_FILE_NAME);
    if (code == 0)
        dir_unlock(d); /* else dir_close does */
    return code;
}

static int corrupt(const struct dir *d, const char *what)
{
    return error_set(PA_ECORRUPT, "%s/" POOL_FILE_NAME ": %s; restore the file from a backup", d->path, what);
}

bool superblock_is_sane(const struct pm_superblock *s)
{
    return is_power_of_two(s->segment_size) && s->segment_size >= SEGMENT_SIZE_MIN &&
           s->segment_size <= SEGMENT_SIZE_MAX && is_power_of_two(s->lane_entries) &&
           s->lane_entries >= LANE_ENTRIES_MIN && s->lane_entries <= LANE_ENTRIES_MAX && s->lanes >= 1 &&
           s->lanes <= POOL_LANES_MAX && s->slots >= 2 && s->slots <= POOL_SLOTS_MAX &&
           s->guarantee <= PA_GUARANTEE_GC && (s->flags & ~PA_SPARSE) == 0 && s->directories <= PA_DIRS_MAX &&
           memchr(s->layout, 0, sizeof s->layout) != NULL &&
           s->table_offset == superblock_cores_offset(s) + (uint64_t)s->lanes * POOL_CORE_BYTES &&
           s->file_bytes == round_up(s->table_offset + (uint64_t)s->slots * 8, POOL_PAGE_BYTES) &&
           superblock_own_slots(s) < s->slots;
}

static int validate(const struct dir *d, const struct file *f, const struct pm_superblock *s, const char *layout)
{
    if (s->magic == SUPERBLOCK_MAGIC_REPAIR)
        return error_set(PA_ECORRUPT,
                         "%s/" POOL_FILE_NAME
                         ": a repair of this pool was cut off; run it again: pallocator check --repair",
                         d->path);
    if (s->magic != SUPERBLOCK_MAGIC)
        return corrupt(d, "this is not a pool file (wrong magic at offset 0)");
    if (s->version != POOL_FORMAT_VERSION && s->checksum == superblock_checksum(s))
        return error_set(PA_EVERSION,
                         "%s/" POOL_FILE_NAME " has format version %u, this library reads version %u; use the "
                         "library that made it",
                         d->path, s->version, POOL_FORMAT_VERSION);
    if (s->checksum != superblock_checksum(s))
        return corrupt(d, "the superblock's checksum at offset 144 is wrong");
    if (!superblock_is_sane(s))
        return corrupt(d, "the superblock's geometry contradicts itself");
    if (f->size != s->file_bytes)
        return error_set(PA_ECORRUPT,
                         "%s/" POOL_FILE_NAME " has %llu bytes instead of %llu; restore the file from a backup",
                         d->path, (unsigned long long)f->size, (unsigned long long)s->file_bytes);
    if (s->guarantee != PA_GUARANTEE_STRICT)
        return error_set(PA_ENOTSUP, "%s/" POOL_FILE_NAME " was made with a guarantee that this library does not have",
                         d->path);
    if (layout != NULL && strcmp(layout, s->layout) != 0)
        return error_set(PA_ELAYOUT,
                         "%s/" POOL_FILE_NAME " has layout \"%s\", not \"%s\"; open it with its own application",
                         d->path, s->layout, layout);
    return 0;
}

int superblock_open(struct dir *d, struct file *f, const char *layout, bool wait, const char *const *dirs,
                    uint32_t ndirs, struct pm_superblock *ret_copy)
{
    struct pm_superblock s = {0};
    int code = file_open(d, f, POOL_FILE_NAME);
    if (code == PA_ENOENT)
        return error_set(PA_ENOENT, "%s holds no pool (no " POOL_FILE_NAME "); create one with pa_create", d->path);
    if (code != 0)
        return code;
    code = file_lock(d, f, wait);
    if (code == 0)
        code = file_read(d, f, 0, &s, sizeof s);
    if (code == 0)
        code = validate(d, f, &s, layout);
    if (code == 0 && ndirs != 0 && ndirs != s.directories)
        code = error_set(PA_EINVAL, "the pool in %s has %u further directories, %u were named", d->path, s.directories,
                         ndirs);
    if (code == 0)
        code = members_open(d, &s, ndirs != 0 ? dirs : NULL);
    if (code == 0) {
        uint64_t need = (uint64_t)superblock_own_slots(&s) * s.segment_size;
        code = dir_reserve(d, (uint64_t)s.slots * s.segment_size, need, s.segment_size);
    }
    if (code == 0)
        code = file_map(d, f, 0);
    if (code != 0) {
        file_close(d, f);
        return code;
    }
    *ret_copy = s;
    return 0;
}
