/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * map.h -- the picture of a pool: each file cut into the same number of cells. A cell's blocks come from pa_foreach, what the
 * file system holds of it from SEEK_HOLE and st_blocks.
 */
#ifndef TOOLS_MAP_H
#define TOOLS_MAP_H

#include <pallocator.h>

#include "tools/files.h"

struct map_cell {
    uint64_t used_bytes;  /* in allocated blocks */
    uint64_t empty_bytes; /* in ranges without data: given back, or reserved and never written */
};

struct map_file {
    struct pool_file *file;
    uint64_t blocks, used_bytes, empty_bytes;
    struct map_cell *cells; /* [map.cells] */
};

struct map {
    const char *dir;
    struct pool_files files;
    struct map_file *list; /* [files.count] */
    unsigned cells, row;   /* per file; per line of the picture */
    pa_stats stats;
};

enum map_kind {
    MAP_META, /* the pool file: table and logs */
    MAP_USED, /* at least one byte of a block */
    MAP_FREE, /* no block; the file system holds space for it */
    MAP_HOLE  /* no block, and given back */
};

#define MAP_LEVELS 4u /* of used cells: up to a quarter, up to half... */

/** Bytes of the file that the cell covers. */
uint64_t map_cell_bytes(const struct map *m, const struct map_file *f, unsigned cell);
enum map_kind map_kind_of(const struct map *m, const struct map_file *f, unsigned cell);
/** 0 .. MAP_LEVELS - 1. */
unsigned map_level_of(const struct map *m, const struct map_file *f, unsigned cell);
/** Bytes of the file that the file system has not given. */
uint64_t map_missing_bytes(const struct map_file *f);

void map_print(const struct map *m);
/** Write the picture; 0 or an errno value. */
int map_write_svg(const struct map *m, const char *path);

#endif
