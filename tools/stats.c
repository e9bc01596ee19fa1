/* SPDX-License-Identifier: BSD-3-Clause */
/* stats.c -- pallocator stats: what is allocated, free and held. */
#include <stdio.h>

#include "tools/stats.h"
#include "tools/tool.h"

json_t *stats_json(const pa_stats *s)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "allocated_bytes", json_size(s->allocated_bytes),
                     "allocated_blocks", json_size(s->allocated_blocks), "segment_files", json_size(s->segment_files),
                     "huge_files", json_size(s->huge_files), "file_bytes", json_size(s->file_bytes), "resident_bytes",
                     json_size(s->resident_bytes), "largest_free_block", json_size(s->largest_free_block), "hole_bytes",
                     json_size(s->hole_bytes));
}

static void print_size(const char *label, uint64_t size)
{
    char text[SIZE_TEXT];
    printf("%-20s %20llu  %s\n", label, (unsigned long long)size, size_to_text(text, size));
}

static void print_count(const char *label, uint64_t count)
{
    printf("%-20s %20llu\n", label, (unsigned long long)count);
}

static void print_table(const pa_stats *s)
{
    print_size("allocated bytes", s->allocated_bytes);
    print_count("allocated blocks", s->allocated_blocks);
    print_size("largest free block", s->largest_free_block);
    print_count("segment files", s->segment_files);
    print_count("huge files", s->huge_files);
    print_size("file bytes", s->file_bytes);
    print_size("resident bytes", s->resident_bytes);
    print_size("hole bytes", s->hole_bytes);
    if (s->allocated_bytes != 0)
        printf("%-20s %20.2f\n", "resident / allocated", (double)s->resident_bytes / (double)s->allocated_bytes);
}

static int stats(const struct tool *t)
{
    pa_pool *pool;
    int code = tool_open(t, PA_READ_ONLY, NULL, &pool);
    if (code != 0)
        return tool_fail(t, code);
    pa_stats s;
    code = pa_get_stats(pool, &s);
    int result = code != 0 ? tool_fail(t, code) : TOOL_OK;
    code = pa_close(pool);
    if (result == TOOL_OK && code != 0)
        result = tool_fail(t, code);
    if (result != TOOL_OK)
        return result;
    if (t->json)
        tool_print(json_pack("{s:b, s:s, s:o}", "ok", 1, "dir", t->dir, "stats", stats_json(&s)));
    else
        print_table(&s);
    return TOOL_OK;
}

int stats_main(int argc, const char **argv)
{
    struct poptOption options[] = {POPT_TABLEEND};
    struct tool t;
    int result = tool_begin(&t, argc, argv, options, true);
    if (result == TOOL_OK)
        result = stats(&t);
    tool_end(&t);
    return result;
}
