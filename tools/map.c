/* SPDX-License-Identifier: BSD-3-Clause */
/* map.c -- pallocator map: collect the picture. map_text.c and map_svg.c draw it. */
#include "tools/map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tools/progress.h"
#include "tools/stats.h"
#include "tools/tool.h"

#define CELLS_MAX 4096
#define CELLS_FIT (-1) /* as many as suit the terminal or the picture */
#define FILES_FEW 16u  /* as many get two lines each */

static uint64_t cell_start(const struct map *m, const struct map_file *f, unsigned cell)
{
    return (uint64_t)((unsigned __int128)f->file->bytes * cell / m->cells);
}

uint64_t map_cell_bytes(const struct map *m, const struct map_file *f, unsigned cell)
{
    return cell_start(m, f, cell + 1) - cell_start(m, f, cell);
}

uint64_t map_missing_bytes(const struct map_file *f)
{
    return f->file->bytes > f->file->resident_bytes ? f->file->bytes - f->file->resident_bytes : 0;
}

/* Reserved space that was never written looks like a hole to SEEK_HOLE; in a file that misses no space nothing is one. */
enum map_kind map_kind_of(const struct map *m, const struct map_file *f, unsigned cell)
{
    const struct map_cell *c = &f->cells[cell];
    if (f->file->slot == 0)
        return MAP_META;
    if (c->used_bytes != 0)
        return MAP_USED;
    return map_missing_bytes(f) != 0 && c->empty_bytes > map_cell_bytes(m, f, cell) / 2 ? MAP_HOLE : MAP_FREE;
}

unsigned map_level_of(const struct map *m, const struct map_file *f, unsigned cell)
{
    uint64_t all = map_cell_bytes(m, f, cell), used = f->cells[cell].used_bytes;
    if (all == 0 || used >= all)
        return MAP_LEVELS - 1;
    unsigned level = (unsigned)((double)used * MAP_LEVELS / (double)all);
    return level < MAP_LEVELS ? level : MAP_LEVELS - 1;
}

/* Spread a range over the cells that it touches; used: as block bytes, else as empty ones. */
static void add_range(const struct map *m, struct map_file *f, uint64_t offset, uint64_t size, bool used)
{
    uint64_t bytes = f->file->bytes;
    if (offset >= bytes || size == 0)
        return;
    uint64_t end = size < bytes - offset ? offset + size : bytes;
    unsigned cell = (unsigned)((unsigned __int128)offset * m->cells / bytes);
    while (cell > 0 && cell_start(m, f, cell) > offset)
        cell--;
    for (; cell < m->cells && offset < end; cell++) {
        uint64_t next = cell_start(m, f, cell + 1);
        if (next <= offset)
            continue;
        uint64_t part = (next < end ? next : end) - offset;
        if (used)
            f->cells[cell].used_bytes += part;
        else
            f->cells[cell].empty_bytes += part;
        offset += part;
    }
}

struct walk {
    struct map *map;
    struct progress progress;
    struct map_file *last; /* most blocks lie in the same file as the one before */
};

static int add_block(pa_pptr block, size_t usable_size, void *arg)
{
    struct walk *w = arg;
    if (w->last == NULL || w->last->file->slot != block.segment) {
        struct pool_file *file = pool_files_find(&w->map->files, block.segment);
        w->last = file == NULL ? NULL : &w->map->list[file - w->map->files.list];
    }
    if (w->last != NULL) {
        w->last->blocks++;
        w->last->used_bytes += usable_size;
        add_range(w->map, w->last, block.offset, usable_size, true);
    }
    atomic_fetch_add_explicit(&w->progress.done, 1, memory_order_relaxed);
    return 0;
}

struct empty_walk {
    const struct map *map;
    struct map_file *file;
};

static void add_empty(uint64_t offset, uint64_t size, void *arg)
{
    struct empty_walk *w = arg;
    w->file->empty_bytes += size;
    add_range(w->map, w->file, offset, size, false);
}

/* 0 or an errno value. */
static int read_files(struct map *m)
{
    int failure = pool_files_read(m->dir, &m->files);
    if (failure != 0)
        return failure;
    m->list = calloc(m->files.count, sizeof *m->list);
    if (m->list == NULL && m->files.count != 0)
        return ENOMEM;
    for (size_t i = 0; i < m->files.count; i++) {
        struct map_file *f = &m->list[i];
        f->file = &m->files.list[i];
        f->cells = calloc(m->cells, sizeof *f->cells);
        if (f->cells == NULL)
            return ENOMEM;
        struct empty_walk w = {m, f};
        failure = pool_file_empty_ranges(m->dir, f->file, add_empty, &w);
        if (failure != 0)
            return failure;
    }
    return 0;
}

static void release(struct map *m)
{
    for (size_t i = 0; m->list != NULL && i < m->files.count; i++)
        free(m->list[i].cells);
    free(m->list);
    pool_files_release(&m->files);
}

static int collect(const struct tool *t, struct map *m, pa_pool *pool)
{
    int code = pa_get_stats(pool, &m->stats);
    if (code != 0)
        return tool_fail(t, code);
    int failure = read_files(m);
    if (failure != 0)
        return tool_fail_text(t, "cannot examine the files in %s: %s", m->dir, strerror(failure));
    struct walk w = {.map = m, .progress = {.label = "reading blocks", .total = m->stats.allocated_blocks}};
    progress_start(&w.progress);
    code = pa_foreach(pool, add_block, &w);
    progress_stop(&w.progress);
    return code != 0 ? tool_fail(t, code) : TOOL_OK;
}

/* One letter per cell, as in enum map_kind; and the bytes behind it. */
static void add_cells(json_t *object, const struct map *m, const struct map_file *f)
{
    static const char letters[] = "mufh";
    char kinds[CELLS_MAX];
    json_t *used = json_array(), *empty = json_array();
    for (unsigned i = 0; i < m->cells; i++) {
        kinds[i] = letters[map_kind_of(m, f, i)];
        json_array_append_new(used, json_size(f->cells[i].used_bytes));
        json_array_append_new(empty, json_size(f->cells[i].empty_bytes));
    }
    json_object_set_new(object, "cells", json_stringn(kinds, m->cells));
    json_object_set_new(object, "cell_used_bytes", used);
    json_object_set_new(object, "cell_empty_bytes", empty);
}

static json_t *file_json(const struct map *m, const struct map_file *f)
{
    json_t *object = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "name", f->file->name, "slot",
                               json_size(f->file->slot), "bytes", json_size(f->file->bytes), "resident_bytes",
                               json_size(f->file->resident_bytes), "blocks", json_size(f->blocks), "used_bytes",
                               json_size(f->used_bytes), "empty_bytes", json_size(f->empty_bytes));
    add_cells(object, m, f);
    return object;
}

static json_t *map_json(const struct map *m)
{
    json_t *files = json_array();
    for (size_t i = 0; i < m->files.count; i++)
        json_array_append_new(files, file_json(m, &m->list[i]));
    return json_pack("{s:b, s:s, s:o, s:o}", "ok", 1, "dir", m->dir, "stats", stats_json(&m->stats), "files", files);
}

/* Cells in a line: what the terminal takes beside the margin, a power of two so that cells mean round sizes. */
static unsigned row_cells(void)
{
    struct winsize size;
    unsigned columns = 80;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0)
        columns = size.ws_col;
    unsigned row = 16;
    while (row * 2 + 2 <= columns && row < 256)
        row *= 2;
    return row;
}

static void choose_cells(struct map *m, int wanted, bool svg)
{
    struct pool_files files;
    bool few = pool_files_read(m->dir, &files) == 0 && files.count <= FILES_FEW;
    pool_files_release(&files);
    m->row = svg ? 128 : row_cells();
    m->cells = wanted != CELLS_FIT ? (unsigned)wanted : few ? 2 * m->row : m->row;
}

static int map(const struct tool *t, int cells, const char *svg)
{
    if (cells != CELLS_FIT && (cells < 1 || cells > CELLS_MAX))
        return tool_fail_text(t, "--cells %d is not between 1 and %u", cells, CELLS_MAX);
    struct map m = {.dir = t->dir};
    pa_pool *pool;
    int code = tool_open(t, PA_READ_ONLY, NULL, &pool);
    if (code != 0)
        return tool_fail(t, code);
    choose_cells(&m, cells, svg != NULL);
    int result = collect(t, &m, pool);
    code = pa_close(pool);
    if (result == TOOL_OK && code != 0)
        result = tool_fail(t, code);
    int failure = result == TOOL_OK && svg != NULL ? map_write_svg(&m, svg) : 0;
    if (failure != 0)
        result = tool_fail_text(t, "cannot write %s: %s", svg, strerror(failure));
    if (result == TOOL_OK && t->json)
        tool_print(map_json(&m));
    else if (result == TOOL_OK && svg == NULL)
        map_print(&m);
    release(&m);
    return result;
}

int map_main(int argc, const char **argv)
{
    const char *svg = NULL;
    int cells = CELLS_FIT;
    struct poptOption options[] = {{"svg", 0, POPT_ARG_STRING, &svg, 0, "Write the picture to FILE instead", "FILE"},
                                   {"cells", 'c', POPT_ARG_INT, &cells, 0,
                                    "Cells per file (default: two lines, or one if files are many)", "N"},
                                   POPT_TABLEEND};
    struct tool t;
    int result = tool_begin(&t, argc, argv, options, true);
    if (result == TOOL_OK)
        result = map(&t, cells, svg);
    tool_end(&t);
    return result;
}
