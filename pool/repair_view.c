/* SPDX-License-Identifier: BSD-3-Clause */
/* repair_view.c -- the view: pool file and table mapped privately, and which files there are. */
#include <stdlib.h>

#include "base/error.h"
#include "pool/repair.h"
#include "segment/members.h"

/* --- names ---------------------------------------------------------------------------------------------------------------- */

bool repair_parse_name(const struct pm_superblock *geometry, uint32_t directory, const char *name, char ret_name[64],
                       bool *ret_huge, uint32_t *ret_slot)
{
    char exact[32];
    if (directory == 0)
        snprintf(ret_name, 64, "%.63s", name);
    else
        snprintf(ret_name, 64, "dir-%u/%.48s", directory, name);
    if (!members_parse(name, ret_huge, ret_slot))
        return false;
    if (*ret_huge)
        segment_huge_name(exact, geometry, *ret_slot);
    else
        segment_name(exact, geometry, *ret_slot);
    return strcmp(exact, ret_name) == 0;
}

/* A walk over all directories. */
struct names {
    struct repair *r;
    uint32_t directory;
};

static int foreach_name(struct repair *r, int (*visit)(const char *name, void *arg))
{
    int code = 0;
    for (uint32_t k = 0; code == 0 && k <= r->manager.geometry.directories; k++) {
        struct names names = {r, k};
        char directory[32];
        members_dir_name(directory, k);
        code = dir_foreach_in(&r->view_dir, directory, visit, &names);
    }
    return code;
}

static int note_file(const char *name, void *arg)
{
    const struct names *names = arg;
    struct repair *r = names->r;
    bool huge;
    uint32_t slot;
    char full[64];
    if (repair_parse_name(&r->manager.geometry, names->directory, name, full, &huge, &slot) && slot < r->slots)
        (huge ? r->huge_present : r->segment_present)[slot] = 1;
    return 0;
}

static int set_up_manager(struct repair *r, const struct pm_superblock *s)
{
    struct manager *m = &r->manager;
    *m = (struct manager){.dir = &r->view_dir, .pool_file = &r->view_file, .media = &r->media, .geometry = *s};
    lock_init(&m->lock, LOCK_RANK_MANAGER);
    pthread_cond_init(&m->made, NULL);
    m->table = (uint64_t *)((char *)r->view_file.address + s->table_offset);
    m->base = r->view_dir.base;
    m->shift = log2_floor(s->segment_size);
    m->first_slot = superblock_own_slots(s);
    uint64_t reached = r->view_dir.reserved_bytes >> m->shift;
    m->slots = reached < s->slots ? (uint32_t)reached : s->slots;
    atomic_store(&m->slots_end, m->slots);
    m->segments = calloc(m->slots, sizeof *m->segments);
    r->slots = s->slots;
    r->segment_present = calloc(r->slots, 1);
    r->huge_present = calloc(r->slots, 1);
    r->pending = calloc(r->slots, sizeof *r->pending);
    r->suspect = calloc(r->slots, sizeof *r->suspect);
    r->seal = calloc(s->lanes, sizeof *r->seal);
    if (m->segments == NULL || r->segment_present == NULL || r->huge_present == NULL || r->pending == NULL ||
        r->suspect == NULL || r->seal == NULL)
        return error_set(PA_ENOMEM, "no memory to repair %s", r->path);
    return foreach_name(r, note_file);
}

int repair_view_open(struct repair *r)
{
    struct pm_superblock s;
    r->media = (struct media){.mode = MEDIA_PROCESS, .read_only = true};
    int code = dir_open(&r->view_dir, r->path, false, true, NULL);
    if (code == 0)
        code = file_open(&r->view_dir, &r->view_file, POOL_FILE_NAME);
    if (code == 0 && r->file.fd >= 0) /* which is locked */
        code = file_is_same(&r->view_dir, &r->view_file, &r->file);
    if (code == 0)
        code = repair_superblock(r, &s);
    if (code == 0)
        code = repair_members(r, &s);
    if (code == 0)
        code = dir_reserve(&r->view_dir, (uint64_t)s.slots * s.segment_size,
                           (uint64_t)superblock_own_slots(&s) * s.segment_size, s.segment_size);
    if (code == 0)
        code = file_map(&r->view_dir, &r->view_file, 0);
    return code == 0 ? set_up_manager(r, &s) : code;
}

void repair_view_close(struct repair *r)
{
    struct manager *m = &r->manager;
    if (m->dir != NULL) {
        m->free_list = m->retired = NULL;
        manager_close(m);
        m->dir = NULL;
    }
    free(r->segment_present);
    free(r->huge_present);
    free(r->pending);
    free(r->suspect);
    free(r->seal);
    free(r->pairs);
    r->segment_present = r->huge_present = NULL;
    r->pending = NULL;
    r->suspect = NULL;
    r->seal = NULL;
    r->pairs = NULL;
    file_close(&r->view_dir, &r->view_file);
    dir_close(&r->view_dir);
}

/* --- strays --------------------------------------------------------------------------------------------------------------- */

/* A file of this pool whose own slot has none is no stray: it has the wrong name, or lies in the wrong directory. */
static bool is_misplaced(struct repair *r, const char *full)
{
    struct file f;
    struct pm_segment_header h;
    if (file_open(&r->view_dir, &f, full) != 0)
        return false;
    bool huge = strstr(full, "huge-") != NULL;
    bool own = file_read(&r->view_dir, &f, 0, &h, sizeof h) == 0 && h.magic == SEGMENT_MAGIC &&
               h.checksum == segment_header_checksum(&h, huge) && h.slot < r->slots &&
               memcmp(h.uuid, r->manager.geometry.uuid, sizeof h.uuid) == 0;
    file_close(&r->view_dir, &f);
    if (!own || h.slot < r->manager.first_slot || r->manager.table[h.slot] != 0 ||
        (h.slot < r->manager.slots && segment_is_present(manager_segment(&r->manager, h.slot))))
        return false;
    char right[32];
    if (huge)
        segment_huge_name(right, &r->manager.geometry, h.slot);
    else
        segment_name(right, &r->manager.geometry, h.slot);
    repair_refuse(r,
                  "%s is a file of this pool, and its slot %u has none; rename it to %s and repair again, or move it "
                  "away if it is a copy",
                  full, h.slot, right);
    return true;
}

static int find_stray(const char *name, void *arg)
{
    const struct names *names = arg;
    struct repair *r = names->r;
    bool huge;
    uint32_t slot;
    char full[64];
    if (strcmp(name, POOL_FILE_NAME_NEW) == 0 && names->directory == 0) {
        repair_move(r, name);
        repair_did(r, "%s was left by a creation that was cut off; moved away", name);
        return 0;
    }
    if (!members_parse(name, &huge, &slot)) /* a file of the user's */
        return 0;
    if (repair_parse_name(&r->manager.geometry, names->directory, name, full, &huge, &slot) && slot < r->slots) {
        uint64_t word = r->manager.table[slot];
        bool used = slot >= r->manager.first_slot && segment_word_is_valid(word, slot) &&
                    segment_word_state(word) != SEGMENT_STATE_FREE &&
                    huge == (segment_word_kind(word) == SEGMENT_KIND_HUGE);
        if (used || r->pending[slot])
            return 0;
    }
    if (is_misplaced(r, full))
        return 0;
    repair_move(r, full);
    repair_did(r, "%s belongs to no slot of the pool; moved away", full);
    return 0;
}

void repair_find_strays(struct repair *r)
{
    int code = foreach_name(r, find_stray);
    if (code != 0)
        repair_fail(r, code);
}
