/* SPDX-License-Identifier: BSD-3-Clause */
#include "examples/kv_input.h"

#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_FILES "/var/lib/dpkg/info/*.md5sums"
#define PATH_LIMIT    1024u

static char *read_file(const char *path, size_t *ret_size)
{
    FILE *f = fopen(path, "re");
    char *text = NULL;
    size_t size = 0, room = 0;
    if (f == NULL)
        return NULL;
    for (;;) {
        if (size == room) {
            room = room ? 2 * room : 1u << 16;
            char *grown = realloc(text, room + 1);
            if (grown == NULL)
                goto fail;
            text = grown;
        }
        size_t n = fread(text + size, 1, room - size, f);
        size += n;
        if (n == 0)
            break;
    }
    if (ferror(f))
        goto fail;
    fclose(f);
    *ret_size = size;
    return text;
fail:
    free(text);
    fclose(f);
    return NULL;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/** "<32 hex digits>, space, space or asterisk, path"; md5sum marks a path with escapes by a backslash before the digits. */
static bool parse_line(const char *p, size_t length, struct kv_line *ret)
{
    if (length > 0 && *p == '\\') {
        p++;
        length--;
    }
    if (length < 35 || length - 34 > PATH_LIMIT || p[32] != ' ' || (p[33] != ' ' && p[33] != '*'))
        return false;
    uint64_t key = 0;
    for (int i = 0; i < 32; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0)
            return false;
        if (i < 16)
            key = key << 4 | (uint64_t)digit;
    }
    *ret = (struct kv_line){key, p + 34, (uint32_t)(length - 34)};
    return true;
}

static int add_line(struct kv_input *input, size_t *room, const struct kv_line *line)
{
    if (input->line_count == *room) {
        size_t more = *room ? 2 * *room : 4096;
        struct kv_line *grown = realloc(input->lines, more * sizeof *grown);
        if (grown == NULL)
            return -1;
        input->lines = grown;
        *room = more;
    }
    input->lines[input->line_count++] = *line;
    return 0;
}

static int add_text(struct kv_input *input, char *text)
{
    char **grown = realloc(input->texts, (input->text_count + 1) * sizeof *grown);
    if (grown == NULL) {
        free(text);
        return -1;
    }
    input->texts = grown;
    input->texts[input->text_count++] = text;
    return 0;
}

static int add_file(struct kv_input *input, size_t *room, const char *path)
{
    size_t size;
    char *text = read_file(path, &size);
    if (text == NULL || add_text(input, text) < 0)
        return -1;
    input->files++;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end != NULL ? (size_t)(end - text) - at : size - at;
        struct kv_line line;
        if (parse_line(text + at, length, &line)) {
            if (add_line(input, room, &line) < 0)
                return -1;
        } else {
            input->skipped += length > 0;
        }
        at += length + 1;
    }
    return 0;
}

/* The finaliser of splitmix64: a bijection, so distinct keys stay distinct within one copy. */
static uint64_t mix64(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static int add_copies(struct kv_input *input, size_t *room, unsigned repeat)
{
    size_t originals = input->line_count, bytes = 0;
    for (size_t i = 0; i < originals; i++)
        bytes += input->lines[i].length + 11;
    for (unsigned copy = 1; copy < repeat; copy++) {
        char *text = malloc(bytes + 1), *at = text;
        if (text == NULL || add_text(input, text) < 0)
            return -1;
        for (size_t i = 0; i < originals; i++) {
            struct kv_line line = input->lines[i];
            memcpy(at, line.value, line.length);
            int suffix = snprintf(at + line.length, 12, "#%u", copy);
            line = (struct kv_line){mix64(line.key + copy), at, line.length + (uint32_t)suffix};
            at += line.length;
            if (add_line(input, room, &line) < 0)
                return -1;
        }
    }
    return 0;
}

/** The last line of each key, by an open hash table. */
static int find_records(struct kv_input *input)
{
    size_t slots = 16;
    while (slots < 2 * input->line_count)
        slots *= 2;
    uint32_t *table = calloc(slots, sizeof *table); /* record number + 1 */
    input->records = malloc((input->line_count + 1) * sizeof *input->records);
    if (table == NULL || input->records == NULL) {
        free(table);
        return -1;
    }
    for (size_t i = 0; i < input->line_count; i++) {
        const struct kv_line *line = &input->lines[i];
        size_t slot = mix64(line->key) & (slots - 1);
        while (table[slot] != 0 && input->records[table[slot] - 1].key != line->key)
            slot = (slot + 1) & (slots - 1);
        if (table[slot] == 0)
            table[slot] = (uint32_t)++input->record_count;
        input->records[table[slot] - 1] = *line;
    }
    free(table);
    for (size_t i = 0; i < input->record_count; i++)
        input->value_bytes += input->records[i].length;
    return 0;
}

static int read_all(struct kv_input *input, char *const *files, size_t count, unsigned repeat, char *error, size_t size)
{
    size_t room = 0;
    for (size_t i = 0; i < count; i++) {
        if (add_file(input, &room, files[i]) < 0) {
            snprintf(error, size, "%s: %s", files[i], strerror(errno));
            return -1;
        }
    }
    if (input->line_count == 0) {
        snprintf(error, size, "no md5sum line found (\"<32 hex digits>  <path>\"); name a file with --data");
        return -1;
    }
    if (input->line_count > UINT32_MAX / 2 / repeat || add_copies(input, &room, repeat) < 0 ||
        find_records(input) < 0) {
        snprintf(error, size, "the input does not fit in memory");
        return -1;
    }
    return 0;
}

int kv_input_read(struct kv_input *input, char *const *files, size_t count, unsigned repeat, char *error, size_t size)
{
    memset(input, 0, sizeof *input);
    glob_t found = {0};
    if (count == 0) {
        if (glob(DEFAULT_FILES, 0, NULL, &found) != 0) {
            snprintf(error, size, "no %s here; name a file with --data", DEFAULT_FILES);
            return -1;
        }
        files = found.gl_pathv;
        count = found.gl_pathc;
    }
    int r = read_all(input, files, count, repeat, error, size);
    globfree(&found);
    if (r < 0)
        kv_input_free(input);
    return r;
}

void kv_input_free(struct kv_input *input)
{
    for (size_t i = 0; i < input->text_count; i++)
        free(input->texts[i]);
    free(input->texts);
    free(input->lines);
    free(input->records);
    memset(input, 0, sizeof *input);
}
