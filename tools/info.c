/* SPDX-License-Identifier: BSD-3-Clause */
/* info.c -- pallocator info: what the pool consists of. */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "tools/files.h"
#include "tools/tool.h"

/* The smallest distance that is the start of segment 1. */
static uint64_t segment_size_of(const pa_pool *pool)
{
    for (pa_off distance = 1; distance != 0; distance <<= 1) {
        pa_pptr p = pa_off_pptr(pool, distance);
        if (p.segment == 1 && p.offset == 0)
            return distance;
    }
    return 0;
}

/* What the directory is on, which decides what PA_DURABILITY_AUTO means. */
static const char *medium_of(const char *dir)
{
    struct statfs s;
    struct statx x;
    if (statfs(dir, &s) == 0 && (s.f_type == TMPFS_MAGIC || s.f_type == RAMFS_MAGIC))
        return "memory file system";
    char path[4096];
    snprintf(path, sizeof path, "%s/pool.pa", dir);
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, &x) == 0 && (x.stx_attributes & STATX_ATTR_DAX))
        return "DAX file system";
    return "file system without DAX";
}

static json_t *file_list(const struct pool_files *files)
{
    json_t *list = json_array();
    for (size_t i = 0; i < files->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o}", "name", files->list[i].name, "slot",
                                              json_size(files->list[i].slot), "bytes", json_size(files->list[i].bytes),
                                              "resident_bytes", json_size(files->list[i].resident_bytes)));
    return list;
}

static void print_table(const struct tool *t, const struct pool_files *files, uint64_t segment_size)
{
    char a[SIZE_TEXT], b[SIZE_TEXT];
    const char *force = getenv("PMEM2_FORCE_GRANULARITY");
    printf("directory      %s\n", t->dir);
    printf("medium         %s%s%s%s\n", medium_of(t->dir), force ? " (PMEM2_FORCE_GRANULARITY=" : "",
           force ? force : "", force ? ")" : "");
    printf("segment size   %s\n", size_to_text(a, segment_size));
    printf("files          %zu, %s, of which %s held\n\n", files->count, size_to_text(a, files->bytes),
           size_to_text(b, files->resident_bytes));
    printf("%-24s %10s %12s %12s\n", "file", "segment", "size", "held");
    for (size_t i = 0; i < files->count; i++) {
        const struct pool_file *f = &files->list[i];
        printf("%-24s %10llu %12s %12s\n", f->name, (unsigned long long)f->slot, size_to_text(a, f->bytes),
               size_to_text(b, f->resident_bytes));
    }
}

static int info(const struct tool *t, const char *layout)
{
    pa_pool *pool;
    int code = tool_open(t, PA_READ_ONLY, layout, &pool);
    if (code != 0)
        return tool_fail(t, code);
    uint64_t segment_size = segment_size_of(pool);
    struct pool_files files;
    int failure = pool_files_read(t->dir, &files); /* while the lock keeps it from changing */
    code = pa_close(pool);
    if (failure != 0)
        return tool_fail_text(t, "cannot list %s: %s", t->dir, strerror(failure));
    if (t->json)
        tool_print(json_pack("{s:b, s:s, s:s, s:o, s:o, s:o, s:o}", "ok", 1, "dir", t->dir, "medium", medium_of(t->dir),
                             "segment_size", json_size(segment_size), "file_bytes", json_size(files.bytes),
                             "resident_bytes", json_size(files.resident_bytes), "files", file_list(&files)));
    else
        print_table(t, &files, segment_size);
    pool_files_release(&files);
    return code != 0 ? tool_fail(t, code) : TOOL_OK;
}

int info_main(int argc, const char **argv)
{
    const char *layout = NULL;
    struct poptOption options[] = {{"layout", 'l', POPT_ARG_STRING, &layout, 0,
                                    "Fail unless the pool has this layout name", "NAME"},
                                   POPT_TABLEEND};
    struct tool t;
    int result = tool_begin(&t, argc, argv, options, true);
    if (result == TOOL_OK)
        result = info(&t, layout);
    tool_end(&t);
    return result;
}
