/* SPDX-License-Identifier: BSD-3-Clause */
/* defrag.c -- pallocator defrag: give free space back to the file system. */
#include <stdio.h>
#include <string.h>

#include "tools/files.h"
#include "tools/progress.h"
#include "tools/tool.h"

struct watch {
    const char *dir;
    uint64_t resident_before;
};

/* What went back so far, as the file system sees it. */
static uint64_t released_so_far(void *arg)
{
    const struct watch *w = arg;
    uint64_t now = pool_files_resident(w->dir);
    return now != 0 && now < w->resident_before ? w->resident_before - now : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int run(const struct tool *t, pa_pool *pool, uint64_t target, uint64_t *ret_released)
{
    pa_stats s;
    int code = pa_get_stats(pool, &s);
    if (code != 0)
        return code;
    struct watch watch = {.dir = t->dir, .resident_before = s.resident_bytes};
    uint64_t most = s.resident_bytes > s.allocated_bytes ? s.resident_bytes - s.allocated_bytes : 0;
    struct progress progress = {.label = "giving back",
                                .total = smaller(target, most),
                                .sample = released_so_far,
                                .arg = &watch};
    progress_start(&progress);
    code = pa_defragment(pool, target, ret_released);
    progress_stop(&progress);
    return code;
}

static int defrag(const struct tool *t, const char *target_text)
{
    uint64_t target = UINT64_MAX, released = 0;
    if (target_text == NULL)
        return tool_fail_text(t, "--target is missing: bytes to give back, or \"all\"");
    if (strcmp(target_text, "all") != 0) {
        int result = tool_size_option(t, "--target", target_text, &target);
        if (result != TOOL_OK)
            return result;
    }
    pa_pool *pool;
    int code = tool_open(t, 0, NULL, &pool);
    if (code != 0)
        return tool_fail(t, code);
    code = run(t, pool, target, &released);
    int result = code != 0 ? tool_fail(t, code) : TOOL_OK; /* before pa_close, which may fail too */
    code = pa_close(pool);
    if (result == TOOL_OK && code != 0)
        result = tool_fail(t, code);
    char text[SIZE_TEXT];
    if (result != TOOL_OK && released != 0)
        fprintf(stderr, "pallocator: %s were given back before that\n", size_to_text(text, released));
    else if (result == TOOL_OK && t->json)
        tool_print(json_pack("{s:b, s:s, s:o}", "ok", 1, "dir", t->dir, "released_bytes", json_size(released)));
    else if (result == TOOL_OK)
        printf("gave %s back\n", size_to_text(text, released));
    return result;
}

int defrag_main(int argc, const char **argv)
{
    const char *target = NULL;
    struct poptOption options[] = {{"target", 't', POPT_ARG_STRING, &target, 0,
                                    "How much to give back; \"all\": all there is", "SIZE"},
                                   POPT_TABLEEND};
    struct tool t;
    int result = tool_begin(&t, argc, argv, options, true);
    if (result == TOOL_OK)
        result = defrag(&t, target);
    tool_end(&t);
    return result;
}
