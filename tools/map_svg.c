/* SPDX-License-Identifier: BSD-3-Clause */
/* map_svg.c -- the picture as an SVG file. Neighbouring cells of one look become one rectangle. */
#include <errno.h>
#include <stdio.h>

#include "tools/map.h"
#include "tools/tool.h"

#define CELL_WIDTH  6u
#define ROW_HEIGHT  12u
#define LABEL       16u
#define GAP         10u
#define MARGIN      12u
#define HEAD        56u
#define LOOKS       7u /* meta, free, hole, and the levels of used */
#define LOOK_LEVEL0 3u

static const struct {
    const char *name, *fill;
} looks[LOOKS] = {{"log and table", "#d9a441"}, {"free", "#c9ced6"},        {"given back", "#ffffff"},
                  {"used to 1/4", "#b5d3ea"},   {"used to 1/2", "#7db2db"}, {"used to 3/4", "#3f8ac4"},
                  {"used more", "#13588f"}};

static unsigned look_of(const struct map *m, const struct map_file *f, unsigned cell)
{
    switch (map_kind_of(m, f, cell)) {
    case MAP_META:
        return 0;
    case MAP_FREE:
        return 1;
    case MAP_HOLE:
        return 2;
    case MAP_USED:
        break;
    }
    return LOOK_LEVEL0 + map_level_of(m, f, cell);
}

static void put_text(FILE *out, const char *text)
{
    for (; *text != '\0'; text++)
        switch (*text) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        default:
            if ((unsigned char)*text >= ' ')
                fputc(*text, out);
        }
}

static unsigned rows_of(const struct map *m)
{
    return (m->cells + m->row - 1) / m->row;
}

static unsigned file_height(const struct map *m)
{
    return LABEL + rows_of(m) * ROW_HEIGHT + GAP;
}

static void put_row(FILE *out, const struct map *m, const struct map_file *f, unsigned first, unsigned y)
{
    unsigned end = first + m->row < m->cells ? first + m->row : m->cells;
    for (unsigned cell = first, next; cell < end; cell = next) {
        unsigned look = look_of(m, f, cell);
        for (next = cell + 1; next < end && look_of(m, f, next) == look;)
            next++;
        fprintf(out, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\"/>\n",
                MARGIN + (cell - first) * CELL_WIDTH, y, (next - cell) * CELL_WIDTH, ROW_HEIGHT - 1, looks[look].fill);
    }
    fprintf(
        out,
        "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"none\" stroke=\"#8a919b\" stroke-width=\"0.5\"/>\n",
        MARGIN, y, (end - first) * CELL_WIDTH, ROW_HEIGHT - 1);
}

static void put_file(FILE *out, const struct map *m, const struct map_file *f, unsigned y)
{
    char size[SIZE_TEXT], used[SIZE_TEXT], missing[SIZE_TEXT];
    fprintf(out, "<text x=\"%u\" y=\"%u\">%s  %s, %s in %llu blocks, %s not held</text>\n", MARGIN, y + LABEL - 5,
            f->file->name, size_to_text(size, f->file->bytes), size_to_text(used, f->used_bytes),
            (unsigned long long)f->blocks, size_to_text(missing, map_missing_bytes(f)));
    for (unsigned row = 0; row < rows_of(m); row++)
        put_row(out, m, f, row * m->row, y + LABEL + row * ROW_HEIGHT);
}

static void put_head(FILE *out, const struct map *m)
{
    char size[SIZE_TEXT], held[SIZE_TEXT], used[SIZE_TEXT];
    fprintf(out, "<text x=\"%u\" y=\"%u\">", MARGIN, MARGIN + 10);
    put_text(out, m->dir);
    fprintf(out, ": %zu files, %s, of which %s held; %s in %llu blocks</text>\n", m->files.count,
            size_to_text(size, m->files.bytes), size_to_text(held, m->files.resident_bytes),
            size_to_text(used, m->stats.allocated_bytes), (unsigned long long)m->stats.allocated_blocks);
    for (unsigned i = 0; i < LOOKS; i++)
        fprintf(
            out,
            "<rect x=\"%u\" y=\"%u\" width=\"10\" height=\"10\" fill=\"%s\" stroke=\"#8a919b\" stroke-width=\"0.5\"/>"
            "<text x=\"%u\" y=\"%u\">%s</text>\n",
            MARGIN + i * 108, HEAD - 22, looks[i].fill, MARGIN + i * 108 + 14, HEAD - 13, looks[i].name);
}

int map_write_svg(const struct map *m, const char *path)
{
    FILE *out = fopen(path, "w");
    if (out == NULL)
        return errno;
    unsigned cells = m->cells < m->row ? m->cells : m->row;
    unsigned width = 2 * MARGIN + cells * CELL_WIDTH;
    unsigned least = 2 * MARGIN + LOOKS * 108;
    unsigned long height = HEAD + (unsigned long)m->files.count * file_height(m) + MARGIN;
    width = width < least ? least : width;
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%lu\" font-family=\"sans-serif\" "
            "font-size=\"11\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fbfbfa\"/>\n",
            width, height);
    put_head(out, m);
    for (size_t i = 0; i < m->files.count; i++)
        put_file(out, m, &m->list[i], HEAD + (unsigned)i * file_height(m));
    fputs("</svg>\n", out);
    int failure = ferror(out) ? EIO : 0;
    if (fclose(out) != 0 && failure == 0)
        failure = errno;
    return failure;
}
