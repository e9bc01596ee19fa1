/* SPDX-License-Identifier: BSD-3-Clause */
/* map_text.c -- the picture on a terminal: shades where the locale has them, colours where they are wanted. */
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/map.h"
#include "tools/tool.h"

struct style {
    const char *used[MAP_LEVELS];
    const char *meta, *free, *hole;
    bool colours;
};

static struct style choose_style(void)
{
    static const struct style plain = {{"-", "+", "*", "#"}, "=", ".", " ", false};
    static const struct style shades = {{"░", "▒", "▓", "█"}, "▚", "·", " ", false};
    setlocale(LC_CTYPE, "");
    struct style s = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? shades : plain;
    const char *terminal = getenv("TERM"), *none = getenv("NO_COLOR");
    s.colours =
        isatty(STDOUT_FILENO) && terminal != NULL && strcmp(terminal, "dumb") != 0 && (none == NULL || none[0] == '\0');
    return s;
}

static const char *const colours[] =
    {[MAP_META] = "\033[33m", [MAP_USED] = "\033[36m", [MAP_FREE] = "\033[90m", [MAP_HOLE] = ""};

static const char *glyph(const struct map *m, const struct map_file *f, unsigned cell, const struct style *s)
{
    switch (map_kind_of(m, f, cell)) {
    case MAP_META:
        return s->meta;
    case MAP_USED:
        return s->used[map_level_of(m, f, cell)];
    case MAP_FREE:
        return s->free;
    case MAP_HOLE:
        break;
    }
    return s->hole;
}

static void print_row(const struct map *m, const struct map_file *f, unsigned first, const struct style *s)
{
    const char *colour = "";
    putchar('|');
    for (unsigned cell = first; cell < first + m->row && cell < m->cells; cell++) {
        const char *wanted = colours[map_kind_of(m, f, cell)];
        if (s->colours && wanted != colour)
            printf("\033[0m%s", wanted);
        colour = wanted;
        fputs(glyph(m, f, cell, s), stdout);
    }
    puts(s->colours ? "\033[0m|" : "|");
}

static void print_file(const struct map *m, const struct map_file *f, const struct style *s)
{
    char size[SIZE_TEXT], used[SIZE_TEXT], missing[SIZE_TEXT];
    printf("%s  %s", f->file->name, size_to_text(size, f->file->bytes));
    if (f->file->slot != 0)
        printf(", %s in %llu blocks", size_to_text(used, f->used_bytes), (unsigned long long)f->blocks);
    if (map_missing_bytes(f) != 0)
        printf(", %s not held", size_to_text(missing, map_missing_bytes(f)));
    putchar('\n');
    if (f->file->slot == 0)
        return; /* the same all over */
    for (unsigned first = 0; first < m->cells; first += m->row)
        print_row(m, f, first, s);
}

void map_print(const struct map *m)
{
    struct style s = choose_style();
    char size[SIZE_TEXT], used[SIZE_TEXT], held[SIZE_TEXT];
    printf("%s: %zu files, %s, of which %s held; %s in %llu blocks\n", m->dir, m->files.count,
           size_to_text(size, m->files.bytes), size_to_text(held, m->files.resident_bytes),
           size_to_text(used, m->stats.allocated_bytes), (unsigned long long)m->stats.allocated_blocks);
    printf("used: \"%s\" to 1/4, \"%s\" to 1/2, \"%s\" to 3/4, \"%s\" more; free: \"%s\"; given back: \"%s\"\n",
           s.used[0], s.used[1], s.used[2], s.used[3], s.free, s.hole);
    for (size_t i = 0; i < m->files.count; i++) {
        putchar('\n');
        print_file(m, &m->list[i], &s);
    }
}
