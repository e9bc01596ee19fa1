/* SPDX-License-Identifier: BSD-3-Clause */
/* create.c -- pallocator create: make a pool. */
#include <stdio.h>
#include <stdlib.h>

#include "tools/tool.h"

struct create {
    const char *segment_size, *max_size, *layout, *durability;
    const char **also; /* NULL-terminated */
    int sparse;
};

static int fill_options(const struct tool *t, const struct create *c, pa_options *o)
{
    pa_options_init(o);
    o->layout = c->layout;
    o->flags = c->sparse ? PA_SPARSE : 0;
    o->dirs = c->also;
    while (c->also != NULL && c->also[o->ndirs] != NULL)
        o->ndirs++;
    int result = tool_size_option(t, "--segment-size", c->segment_size, &o->segment_size);
    if (result == TOOL_OK)
        result = tool_size_option(t, "--max-size", c->max_size, &o->max_size);
    if (result == TOOL_OK)
        result = tool_durability_option(t, c->durability, &o->durability);
    return result;
}

static int create(const struct tool *t, const struct create *c)
{
    pa_options o;
    int result = fill_options(t, c, &o);
    if (result != TOOL_OK)
        return result;
    pa_pool *pool;
    int code = pa_create(t->dir, &o, &pool);
    if (code == 0)
        code = pa_close(pool);
    if (code != 0)
        return tool_fail(t, code);
    if (t->json)
        tool_print(json_pack("{s:b, s:s}", "ok", 1, "dir", t->dir));
    else
        printf("created a pool in %s\n", t->dir);
    return TOOL_OK;
}

int create_main(int argc, const char **argv)
{
    struct create c = {0};
    struct poptOption options[] =
        {{"segment-size", 's', POPT_ARG_STRING, &c.segment_size, 0, "Power of two, 1M to 16G (default: 128M)", "SIZE"},
         {"max-size", 'm', POPT_ARG_STRING, &c.max_size, 0, "The files together never grow past it", "SIZE"},
         {"layout", 'l', POPT_ARG_STRING, &c.layout, 0, "The application's layout name, at most 63 bytes", "NAME"},
         {"sparse", 0, POPT_ARG_NONE, &c.sparse, 0, "Do not reserve space in the file system", NULL},
         {"durability", 'd', POPT_ARG_STRING, &c.durability, 0, "Refuse unless it can be had: auto, power or process",
          "WHAT"},
         {"also", 'a', POPT_ARG_ARGV, &c.also, 0, "A further directory for the pool's files; may be repeated", "DIR"},
         POPT_TABLEEND};
    struct tool t;
    int result = tool_begin(&t, argc, argv, options, true);
    if (result == TOOL_OK)
        result = create(&t, &c);
    tool_end(&t);
    free(c.also);
    return result;
}
