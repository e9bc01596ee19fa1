/* SPDX-License-Identifier: BSD-3-Clause */
/* points.c -- the crash points of a trace, and telling where one is. See explore.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/explore/explore.h"

#define LINES_SHOWN 12u

static bool is_store(const struct trace_event *e)
{
    return e->kind == TRACE_STORE || e->kind == TRACE_STORE_NT;
}

static bool is_mark(const struct trace_event *e)
{
    return e->kind == TRACE_BEGIN || e->kind == TRACE_END;
}

static void set_site(struct point *p, const struct trace_event *e)
{
    p->site = e->site;
    p->step = e->step;
    p->has_site = true;
}

/* Is a crash before event i worth a look? */
static bool is_point(const struct trace *t, size_t i, bool every_store, struct point *ret)
{
    *ret = (struct point){.event = i};
    if (i < t->count && !is_store(&t->events[i]) && !is_mark(&t->events[i])) {
        set_site(ret, &t->events[i]);
        return every_store || t->events[i].kind != TRACE_FLUSH;
    }
    if (i > 0 && t->events[i - 1].kind == TRACE_END)
        return true; /* the operation must hold from here on */
    if (i > 0 && is_store(&t->events[i - 1]) && every_store) {
        set_site(ret, &t->events[i - 1]);
        return true;
    }
    return i == t->count;
}

struct point *points_of(const struct trace *t, size_t from, bool every_store, size_t *ret_count)
{
    struct point *points = malloc((t->count + 1) * sizeof *points);
    if (points == NULL)
        abort();
    size_t count = 0;
    for (size_t i = from; i <= t->count; i++)
        if (is_point(t, i, every_store, &points[count]))
            count++;
    *ret_count = count;
    return points;
}

size_t points_near_skips(const struct trace *t, struct point *points, size_t count, unsigned near)
{
    size_t left = 0, skip = 0; /* the last skip at or before the point is the nearest */
    for (size_t i = 0; i < count; i++) {
        while (skip < t->skips_count && t->skips[skip] <= points[i].event)
            skip++;
        if (skip > 0 && points[i].event - t->skips[skip - 1] <= near)
            points[left++] = points[i];
    }
    return left;
}

/* --- in words ------------------------------------------------------------------------------------------------------------ */

void explain_point(const struct trace *t, size_t event, const struct sites *sites, char *text, size_t size)
{
    if (event < t->count && !is_mark(&t->events[event]))
        snprintf(text, size, "before event %zu of %zu: %s at %s", event, t->count,
                 trace_kind_name(t->events[event].kind), sites->at[t->events[event].site].name);
    else if (event > 0 && event <= t->count && !is_mark(&t->events[event - 1]))
        snprintf(text, size, "after event %zu of %zu: %s at %s", event - 1, t->count,
                 trace_kind_name(t->events[event - 1].kind), sites->at[t->events[event - 1].site].name);
    else
        snprintf(text, size, "before event %zu of %zu, between operations", event, t->count);
}

static const char *name_of(const struct image *image, const struct choice *c, uint32_t inode)
{
    static struct name_entry names[NAMES_MAX];
    unsigned count = image_names(image, c, names);
    for (unsigned i = 0; i < count; i++)
        if (names[i].inode == inode)
            return names[i].name;
    return "(removed file)";
}

static const char *site_of(const struct trace *t, const struct sites *sites, uint32_t event)
{
    return event < t->count ? sites->at[t->events[event].site].name : "?";
}

static size_t explain_line(const struct image *image, const struct choice *c, size_t i, const struct trace *t,
                           const struct sites *sites, char *text, size_t size)
{
    const struct pending *p = &image->lines[i];
    const char *how = c->prefix[i] == 0 ? "lost" : c->prefix[i] == p->count ? "kept" : "part";
    int n = snprintf(text, size, "    line %3zu %s %u of %u stores, %s+0x%llx:", i, how, c->prefix[i], p->count,
                     name_of(image, c, p->inode), (unsigned long long)p->line * MEDIA_LINE_BYTES);
    size_t used = (size_t)n;
    const char *last = "";
    for (uint32_t k = 0; k < p->count && used < size; k++) {
        const char *site = p->stores[k].earlier ? "earlier" : site_of(t, sites, p->stores[k].event);
        if (strcmp(site, last) != 0)
            used += (size_t)snprintf(text + used, size - used, " %s%s", k >= c->prefix[i] ? "-" : "+", site);
        last = site;
    }
    if (used < size)
        used += (size_t)snprintf(text + used, size - used, "\n");
    return used;
}

void explain_choice(const struct image *image, const struct choice *c, const struct trace *t, const struct sites *sites,
                    char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    /* The most recent lines last in image.lines matter most: start from the end. */
    for (size_t i = c->count, shown = 0; i-- > 0 && used + 256 < size && shown < LINES_SHOWN; shown++)
        used += explain_line(image, c, i, t, sites, text + used, size - used);
    if (c->count > LINES_SHOWN && used < size)
        used += (size_t)snprintf(text + used, size - used, "    (%zu older lines)\n", c->count - LINES_SHOWN);
    for (unsigned i = 0; i < image->name_ops_count && used + 128 < size; i++)
        used += (size_t)snprintf(text + used, size - used, "    %s %s %s\n", trace_kind_name(image->name_ops[i].kind),
                                 image->name_ops[i].name, c->file[i] != 0 ? "happened" : "lost");
    for (uint32_t i = 0; i < image->inodes_count && used + 128 < size; i++)
        if (image->inodes[i].space_count > 0)
            used += (size_t)snprintf(text + used, size - used, "    size of %s is %llu\n", name_of(image, c, i),
                                     (unsigned long long)image_size(image, c, i));
}
