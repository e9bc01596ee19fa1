/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_info.c -- pa_get_info, pa_read_info: what a pool is, from its superblock. */
#include "base/error.h"
#include "pool/pool.h"

static enum pa_persistence persistence_of(const struct media *m)
{
    switch (m->mode) {
    case MEDIA_PROCESS:
        return PA_PERSISTENCE_PROCESS;
    case MEDIA_BYTE:
        return PA_PERSISTENCE_EADR;
    case MEDIA_PAGE:
        return PA_PERSISTENCE_PAGE;
    default:
        return PA_PERSISTENCE_CACHE_LINE;
    }
}

static void fill(pa_info *info, const struct pm_superblock *s, const struct media *m)
{
    *info = (pa_info){.format_version = s->version,
                      .flags = s->flags,
                      .segment_size = s->segment_size,
                      .max_size = s->max_size,
                      .pool_file_bytes = s->file_bytes,
                      .slots = s->slots,
                      .lanes = s->lanes,
                      .lane_entries = s->lane_entries,
                      .directories = s->directories,
                      .guarantee = (enum pa_guarantee)s->guarantee,
                      .persistence = persistence_of(m)};
    memcpy(info->uuid, s->uuid, sizeof info->uuid);
    memcpy(info->layout, s->layout, sizeof info->layout);
}

int pa_get_info(const pa_pool *pool, pa_info *ret)
{
    if (pool == NULL || ret == NULL)
        return error_set(PA_EINVAL, "no pool, or no place for what it is");
    fill(ret, &pool->manager.geometry, &pool->media);
    return 0;
}

int pa_read_info(const char *dir, pa_info *ret)
{
    struct dir d;
    struct file f = {.fd = -1};
    struct pm_superblock s;
    struct media m;
    if (dir == NULL || ret == NULL)
        return error_set(PA_EINVAL, "no directory named, or no place for what it holds");
    int code = dir_open(&d, dir, false, true, NULL);
    if (code != 0)
        return code;
    d.locked = true; /* the superblock never changes once it has its name */
    code = superblock_open(&d, &f, NULL, false, NULL, 0, &s);
    if (code == 0)
        code = media_init(&m, &d, &f, PA_DURABILITY_AUTO);
    if (code == 0)
        fill(ret, &s, &m);
    file_close(&d, &f);
    dir_close(&d);
    return code;
}
