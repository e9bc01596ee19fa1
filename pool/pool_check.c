/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_check.c -- pa_check: everything that open trusts, and everything that it leaves for later, without a change. */
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "pool/pool.h"

struct report {
    FILE *text;
    int code; /* of the first finding */
    pa_pool *pool;
};

/* Note the thread's last failure as a finding. */
static void finding(struct report *r, int code)
{
    fprintf(r->text, "%s\n", pa_errormsg());
    if (r->code == 0)
        r->code = code;
}

static void check_segments(struct report *r)
{
    struct manager *m = &r->pool->manager;
    for (uint32_t slot = 0; slot < atomic_load(&m->slots_end); slot++) {
        struct segment *s = manager_segment(m, slot);
        if (!segment_is_present(s))
            continue;
        if (atomic_load(&s->kind) == SEGMENT_KIND_HUGE)
            continue;                         /* open has looked at all there is: header, extent, slots */
        int code = small_check_segment(m, s); /* whatever the kind: the line area keeps what it holds */
        if (code != 0)
            finding(r, code);
    }
}

static void check_indexes(struct report *r)
{
    for (unsigned i = 0; i < r->pool->big_count; i++) {
        struct big *o = &r->pool->bigs[i];
        lock_acquire(&pool_big_core(r->pool, o)->lock);
        int code = big_check(o);
        lock_release(&pool_big_core(r->pool, o)->lock);
        if (code != 0)
            finding(r, code);
    }
}

static void check_root(struct report *r)
{
    const struct pm_root *line = pool_root_line(r->pool);
    bool null = pa_is_null(line->root);
    bool none = null && line->size == 0 && line->check == 0;
    bool unfinished = line->check == ROOT_MAKING && (null || pool_usable_size(r->pool, line->root) != 0);
    bool ready = line->check == superblock_root_check(line) && pool_usable_size(r->pool, line->root) >= line->size;
    if (!none && !unfinished && !ready)
        finding(r, error_set(PA_ECORRUPT,
                             "%s/" POOL_FILE_NAME ": the root line at offset %u is damaged; restore the file from a "
                             "backup",
                             r->pool->dir.path, POOL_ROOT_OFFSET));
}

/* A reallocation that a crash cut off leaves a block there, which the next open frees. */
static void check_staged(struct report *r)
{
    const struct manager *m = &r->pool->manager;
    for (uint32_t i = 0; i < m->geometry.lanes; i++) {
        pa_pptr staged = manager_core_line(m, i)->staging;
        if (!pa_is_null(staged) && pool_usable_size(r->pool, staged) == 0)
            finding(r, error_set(PA_ECORRUPT,
                                 "%s/" POOL_FILE_NAME ": the staging owner of core line %u is damaged; restore the "
                                 "file from a backup",
                                 r->pool->dir.path, i));
    }
}

/* Is it a whole segment of this very pool? Then its slot was not free when it was made, and never freed since. */
static bool is_own_segment(struct report *r, const char *name, unsigned slot)
{
    struct manager *m = &r->pool->manager;
    struct file f;
    if (slot < m->first_slot || slot >= m->slots || segment_is_present(manager_segment(m, slot)) ||
        file_open(&r->pool->dir, &f, name) != 0)
        return false;
    bool own = f.size == m->geometry.segment_size && file_map(&r->pool->dir, &f, (uint64_t)slot << m->shift) == 0 &&
               segment_header_check(&r->pool->dir, &f, &m->geometry, slot) == 0;
    file_close(&r->pool->dir, &f);
    return own;
}

/* A file whose slot has none of its kind. */
static int check_name(const char *name, void *arg)
{
    struct report *r = arg;
    unsigned slot;
    char exact[32];
    bool huge = sscanf(name, "huge-%8x.pa", &slot) == 1;
    if (!huge && sscanf(name, "segment-%8x.pa", &slot) != 1)
        return 0;
    if (huge)
        segment_huge_name(exact, slot);
    else
        segment_name(exact, slot);
    const struct manager *m = &r->pool->manager;
    if (strcmp(exact, name) == 0 && slot < m->geometry.slots &&
        segment_word_state(m->table[slot]) != SEGMENT_STATE_FREE &&
        huge == (segment_word_kind(m->table[slot]) == SEGMENT_KIND_HUGE))
        return 0;
    if (!huge && strcmp(exact, name) == 0 && slot < m->slots && m->table[slot] == 0 && is_own_segment(r, name, slot)) {
        finding(r, error_set(PA_ECORRUPT,
                             "%s/" POOL_FILE_NAME ": table word of slot %u is zero, but %s is a segment of this pool; "
                             "restore the file from a backup",
                             r->pool->dir.path, slot, name));
        return 0;
    }
    fprintf(r->text, "note: %s/%s belongs to no slot of the pool; it is not used and may be removed\n",
            r->pool->dir.path, name);
    return 0;
}

static void check_all(struct report *r, const char *dir)
{
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    int code = pa_open(dir, &o, &r->pool);
    if (code != 0) {
        finding(r, code);
        return;
    }
    check_segments(r);
    check_indexes(r);
    check_root(r);
    check_staged(r);
    code = dir_foreach(&r->pool->dir, check_name, r);
    if (code != 0)
        finding(r, code);
    if (r->code == 0)
        fprintf(r->text, "%s: sound\n", dir);
    pa_close(r->pool);
}

int pa_check(const char *dir, char **ret_report)
{
    char *text = NULL;
    size_t size = 0;
    struct report r = {.text = open_memstream(&text, &size)};
    if (r.text == NULL)
        return error_set(PA_ENOMEM, "no memory for the report");
    check_all(&r, dir);
    if (fclose(r.text) != 0) {
        free(text);
        return error_set(PA_ENOMEM, "no memory for the report");
    }
    if (ret_report != NULL)
        *ret_report = text;
    else
        free(text);
    return r.code;
}
