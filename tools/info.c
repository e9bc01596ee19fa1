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

static const char *persistence_text(enum pa_persistence p)
{
    static const char *const texts[] = {"process", "eADR", "cache line", "page"};
    return (size_t)p < sizeof texts / sizeof *texts ? texts[p] : "unknown";
}

static const char *guarantee_text(enum pa_guarantee g)
{
    static const char *const texts[] = {"strict", "bounded", "gc"};
    return (size_t)g < sizeof texts / sizeof *texts ? texts[g] : "unknown";
}

#define UUID_TEXT 37
static char *uuid_to_text(char *buffer, const uint8_t uuid[16])
{
    char *to = buffer;
    for (int i = 0; i < 16; i++)
        to += sprintf(to, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
    return buffer;
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

static void print_table(const struct tool *t, const struct pool_files *files, const pa_info *p)
{
    char a[SIZE_TEXT], b[SIZE_TEXT], uuid[UUID_TEXT];
    const char *force = getenv("PMEM2_FORCE_GRANULARITY");
    printf("directory      %s\n", t->dir);
    printf("medium         %s%s%s%s\n", medium_of(t->dir), force ? " (PMEM2_FORCE_GRANULARITY=" : "",
           force ? force : "", force ? ")" : "");
    printf("persists       %s\n", persistence_text(p->persistence));
    printf("format         version %u, guarantee %s%s\n", p->format_version, guarantee_text(p->guarantee),
           p->flags & PA_SPARSE ? ", sparse" : "");
    printf("uuid           %s\n", uuid_to_text(uuid, p->uuid));
    printf("layout         %s\n", p->layout[0] != '\0' ? p->layout : "-");
    printf("segment size   %s, at most %u segments\n", size_to_text(a, p->segment_size), p->slots);
    printf("limit          %s\n", p->max_size != 0 ? size_to_text(a, p->max_size) : "none");
    printf("logs           %u of %u operations\n", p->lanes, p->lane_entries);
    printf("files          %zu, %s, of which %s held\n\n", files->count, size_to_text(a, files->bytes),
           size_to_text(b, files->resident_bytes));
    printf("%-24s %10s %12s %12s\n", "file", "segment", "size", "held");
    for (size_t i = 0; i < files->count; i++) {
        const struct pool_file *f = &files->list[i];
        printf("%-24s %10llu %12s %12s\n", f->name, (unsigned long long)f->slot, size_to_text(a, f->bytes),
               size_to_text(b, f->resident_bytes));
    }
}

static json_t *info_json(const struct tool *t, const struct pool_files *files, const pa_info *p)
{
    char uuid[UUID_TEXT];
    return json_pack("{s:b, s:s, s:s, s:s, s:i, s:s, s:b, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "ok", 1,
                     "dir", t->dir, "medium", medium_of(t->dir), "persistence", persistence_text(p->persistence),
                     "format_version", (int)p->format_version, "guarantee", guarantee_text(p->guarantee), "sparse",
                     (p->flags & PA_SPARSE) != 0, "uuid", uuid_to_text(uuid, p->uuid), "layout", p->layout,
                     "segment_size", json_size(p->segment_size), "max_size", json_size(p->max_size), "slots",
                     json_size(p->slots), "lanes", json_size(p->lanes), "lane_entries", json_size(p->lane_entries),
                     "file_bytes", json_size(files->bytes), "resident_bytes", json_size(files->resident_bytes), "files",
                     file_list(files));
}

/* The name comes from media: what is no text is not shown. */
static void clean_layout(char *layout)
{
    json_t *text = json_string(layout);
    for (char *c = layout; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 127 || (text == NULL && (unsigned char)*c > 127))
            *c = '?';
    json_decref(text);
}

static int info(const struct tool *t, const char *layout)
{
    pa_pool *pool;
    pa_info p = {0};
    int code = tool_open(t, PA_READ_ONLY, layout, &pool);
    if (code != 0)
        return tool_fail(t, code);
    struct pool_files files;
    code = pa_get_info(pool, &p);
    clean_layout(p.layout);
    int failure = pool_files_read(t->dir, &files); /* while the lock keeps it from changing */
    int closed = pa_close(pool);
    if (failure != 0)
        return tool_fail_text(t, "cannot list %s: %s", t->dir, strerror(failure));
    if (t->json)
        tool_print(info_json(t, &files, &p));
    else
        print_table(t, &files, &p);
    pool_files_release(&files);
    return code != 0 || closed != 0 ? tool_fail(t, code != 0 ? code : closed) : TOOL_OK;
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
