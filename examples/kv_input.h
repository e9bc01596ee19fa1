/* SPDX-License-Identifier: BSD-3-Clause */
/* kv_input.h -- md5sum lists as records: key = the first 16 hex digits, value = the path. */
#ifndef EXAMPLES_KV_INPUT_H
#define EXAMPLES_KV_INPUT_H

#include <stddef.h>
#include <stdint.h>

struct kv_line {
    uint64_t key;
    const char *value; /* not terminated */
    uint32_t length;
};

struct kv_input {
    struct kv_line *lines; /* in order of the files */
    size_t line_count;
    struct kv_line *records; /* one per distinct key: its last line, since a later put replaces an earlier one */
    size_t record_count;
    size_t skipped; /* lines that are no "<32 hex digits> [ *]<path>", or whose path is empty or too long */
    size_t files;
    uint64_t value_bytes; /* of the records */
    char **texts;         /* the files' contents, one more for the copies */
    size_t text_count;
};

/** Read the files, or every /var/lib/dpkg/info/ *.md5sums if there is none. repeat > 1 adds copies of every line with other keys and
 *  "#<copy>" behind the path. Returns 0, or -1 with a sentence in error. */
int kv_input_read(struct kv_input *input, char *const *files, size_t count, unsigned repeat, char *error, size_t size);
void kv_input_free(struct kv_input *input);

#endif
