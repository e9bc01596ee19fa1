/* SPDX-License-Identifier: BSD-3-Clause */
/* wreck.c -- see wreck.h. */
#include "tests/support/wreck.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/run.h"

#define FILES_MAX 256u

struct wreck wreck;

/* --- a pool with blocks of every kind ------------------------------------------------------------------------------------- */

size_t wreck_size_of(size_t i)
{
    static const size_t sizes[] = {16, 64, 200, 1000, 5000, 16000, 30000, 100000};
    return i == 0 ? 3u << 20 : sizes[i % 8];
}

static void fill(pa_pool *pool)
{
    struct owners o;
    CK_OK(owners_open(&o, pool, WRECK_OWNERS));
    for (size_t i = 0; i < WRECK_OWNERS; i++) {
        if (i % 8 >= 6 && i > 80)
            continue;
        CK_OK(pa_allocate(pool, owners_at(&o, i), wreck_size_of(i)));
        block_fill(pa_direct(pool, *owners_at(&o, i)), wreck_size_of(i), i);
    }
    for (size_t i = 3; i < WRECK_OWNERS; i += 5)
        CK_OK(pa_deallocate(pool, owners_at(&o, i)));
    for (size_t i = 0; i < WRECK_OWNERS; i++)
        wreck.owners[i] = *owners_at(&o, i);
}

pa_pool *wreck_make(bool close, unsigned dirs)
{
    pa_options options;
    pa_options_init(&options);
    options.segment_size = WRECK_SEGMENT;
    options.max_size = WRECK_MAX_SIZE;
    options.cores = 1;
    options.layout = "repair";
    options.flags = PA_NO_BACKGROUND;
    const char *paths[WRECK_DIRS_MAX];
    wreck = (struct wreck){.dir = temp_new(), .dirs = dirs};
    for (unsigned k = 0; k < dirs; k++) {
        wreck.more[k] = temp_new();
        paths[k] = wreck.more[k].text;
    }
    options.dirs = dirs != 0 ? paths : NULL;
    options.ndirs = dirs;
    struct pool_params params = {.lanes = 2, .lane_entries = 64};
    pa_pool *pool = NULL;
    CK_OK(pool_create_ex(wreck.dir.text, &options, &params, &pool));
    wreck.geometry = pool->manager.geometry;
    fill(pool);
    if (!close)
        return pool;
    CK_OK(pa_close(pool));
    return NULL;
}

pa_pool *wreck_open(void)
{
    pa_options options;
    pa_options_init(&options);
    options.cores = 1;
    options.flags = PA_NO_BACKGROUND;
    pa_pool *pool = NULL;
    CK_OK(pa_open(wreck.dir.text, &options, &pool));
    return pool;
}

void wreck_allocate(const struct owners *o, size_t i, size_t size)
{
    CK_OK(pa_allocate(o->pool, owners_at(o, i), size));
    block_fill(pa_direct(o->pool, *owners_at(o, i)), wreck_size_of(i) < size ? wreck_size_of(i) : size, i);
    wreck.owners[i] = *owners_at(o, i);
}

struct wreck_image wreck_crash(uint32_t operations)
{
    struct owners o;
    uint64_t head = small_first_slab_of(WRECK_SEGMENT);
    wreck_make(true, 0);
    pa_pool *pool = wreck_open();
    CK_OK(owners_open(&o, pool, WRECK_OWNERS));
    struct wreck_image before = wreck_save();
    uint32_t done = 0;
    for (size_t i = 3; i < WRECK_OWNERS && done < operations; i += 5, done++)
        wreck_allocate(&o, i, wreck_size_of(i));
    pool_abandon(pool);
    for (size_t i = 0; i < before.n; i++) /* the line areas as they were */
        if (strncmp(before.names[i], "segment-", 8) == 0)
            wreck_put(before.names[i], SEGMENT_HEADER_BYTES, before.data[i] + SEGMENT_HEADER_BYTES,
                      head - SEGMENT_HEADER_BYTES);
    return before;
}

/* --- is it whole? --------------------------------------------------------------------------------------------------------- */

void wreck_survives(pa_pool *pool, const char *when)
{
    struct owners o;
    CK_OK(owners_open(&o, pool, WRECK_OWNERS));
    for (size_t i = 0; i < WRECK_OWNERS; i++) {
        pa_pptr p = *owners_at(&o, i);
        size_t size = wreck_size_of(i);
        EXPECT(memcmp(&p, &wreck.owners[i], sizeof p) == 0, "%s: owner %zu changed", when, i);
        if (pa_is_null(p))
            continue;
        bool lost = wreck.pairs_are_lost && (size > 16384 || i % 5 == 3) && pa_usable_size(pool, p) == 0;
        EXPECT(lost || pa_usable_size(pool, p) >= size, "%s: block %zu is not allocated any more", when, i);
        EXPECT(block_is(pa_direct(pool, p), size, i), "%s: block %zu has other contents", when, i);
    }
}

void wreck_no_overlap(pa_pool *pool)
{
    struct blocks all = {0};
    CK_OK(blocks_collect(&all, pool));
    blocks_sort(&all);
    for (size_t i = 1; i < all.n; i++)
        EXPECT(all.at[i - 1].off + all.at[i - 1].size <= all.at[i].off, "blocks overlap at %#llx",
               (unsigned long long)all.at[i].off);
    blocks_free(&all);
}

#define TABLE_BYTES 12000u

void wreck_fill_and_empty(pa_pool *pool, void (*survives)(pa_pool *pool, const char *when))
{
    static const size_t sizes[] = {500000, 100000, 30000, 16000, 5000, 1000, 200, 64, 16};
    pa_pptr *first = pa_direct(pool, pool_root_line(pool)->root);
    pa_pptr *table = &first[OWNERS_TABLES_MAX - 1];
    int code = pa_allocate(pool, table, TABLE_BYTES);
    if (code == PA_ENOSPC) /* all that was free has become used */
        return;
    CK_OK(code);
    pa_pptr *at = pa_direct(pool, *table);
    memset(at, 0, TABLE_BYTES);
    size_t n = 0, most = TABLE_BYTES / sizeof *at;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (size_t count = 0; n < most && count < 83; count++) {
            code = pa_allocate(pool, &at[n], sizes[k]);
            if (code == PA_ENOSPC)
                break;
            CK_OK(code);
            memset(pa_direct(pool, at[n]), 0xa5, sizes[k]);
            n++;
        }
    wreck_no_overlap(pool);
    survives(pool, "with the pool full");
    while (n > 0)
        CK_OK(pa_deallocate(pool, &at[--n]));
    CK_OK(pa_deallocate(pool, table));
}

/* --- files ---------------------------------------------------------------------------------------------------------------- */

struct temp_path wreck_file(const char *name)
{
    return temp_join(wreck.dir.text, name);
}

void wreck_name(char name[32], uint64_t slot, bool huge)
{
    if (huge)
        segment_huge_name(name, &wreck.geometry, (uint32_t)slot);
    else
        segment_name(name, &wreck.geometry, (uint32_t)slot);
}

void wreck_put(const char *name, uint64_t offset, const void *bytes, size_t size)
{
    struct temp_path path = wreck_file(name);
    temp_write_at(path.text, offset, bytes, size);
}

void wreck_get(const char *name, uint64_t offset, void *bytes, size_t size)
{
    struct temp_path path = wreck_file(name);
    size_t length;
    char *data = temp_read_file(path.text, &length);
    ck_assert_uint_ge(length, offset + size);
    memcpy(bytes, data + offset, size);
    free(data);
}

static bool is_link(const char *name)
{
    return strncmp(name, "dir-", 4) == 0;
}

size_t wreck_files(char (*names)[64], size_t max)
{
    char found[FILES_MAX][64];
    size_t n = 0;
    for (unsigned k = 0; k <= wreck.dirs; k++) {
        size_t count = temp_list(k == 0 ? wreck.dir.text : wreck.more[k - 1].text, "", found, FILES_MAX);
        for (size_t i = 0; i < count && n < max; i++) {
            if ((k == 0 && is_link(found[i])) || strncmp(found[i], "repair-", 7) == 0)
                continue;
            if (k == 0)
                snprintf(names[n++], 64, "%.63s", found[i]);
            else
                snprintf(names[n++], 64, "dir-%u/%.48s", k, found[i]);
        }
    }
    return n;
}

uint64_t wreck_hash(void)
{
    uint64_t h = 0;
    char names[FILES_MAX][64], target[TEMP_PATH_MAX];
    size_t n = temp_list(wreck.dir.text, "", names, FILES_MAX);
    for (size_t i = 0; i < n; i++) {
        struct temp_path path = wreck_file(names[i]);
        ssize_t length = readlink(path.text, target, sizeof target);
        for (ssize_t c = 0; c < length; c++)
            h = (h ^ (unsigned char)target[c]) * 1099511628211u;
        for (const char *c = names[i]; *c != '\0'; c++)
            h = (h ^ (unsigned char)*c) * 1099511628211u;
    }
    n = wreck_files(names, FILES_MAX);
    for (size_t i = 0; i < n; i++) {
        struct temp_path path = wreck_file(names[i]);
        if (access(path.text, R_OK) != 0)
            continue;
        size_t size;
        char *data = temp_read_file(path.text, &size);
        h = (h ^ size ^ i) * 1099511628211u;
        for (size_t at = 0; at + 8 <= size; at += 8) {
            uint64_t word;
            memcpy(&word, data + at, sizeof word);
            h = (h ^ word) * 1099511628211u;
            h ^= h >> 29;
        }
        free(data);
    }
    return h;
}

/* --- images --------------------------------------------------------------------------------------------------------------- */

/* Images end with the test's process; until then they are reached from here. */
static struct kept_image {
    struct wreck_image image;
    struct kept_image *next;
} * kept_images;

static void keep_image(const struct wreck_image *image)
{
    struct kept_image *kept = malloc(sizeof *kept);
    ck_assert_ptr_nonnull(kept);
    *kept = (struct kept_image){.image = *image, .next = kept_images};
    kept_images = kept;
}

struct wreck_image wreck_save(void)
{
    struct wreck_image image = {.names = calloc(FILES_MAX, 64),
                                .data = calloc(FILES_MAX, sizeof(char *)),
                                .sizes = calloc(FILES_MAX, sizeof(size_t))};
    image.n = wreck_files(image.names, FILES_MAX);
    for (size_t i = 0; i < image.n; i++) {
        struct temp_path path = wreck_file(image.names[i]);
        image.data[i] = temp_read_file(path.text, &image.sizes[i]);
    }
    keep_image(&image);
    return image;
}

static bool is_in(const struct wreck_image *image, const char *name)
{
    for (size_t i = 0; i < image->n; i++)
        if (strcmp(image->names[i], name) == 0)
            return true;
    return false;
}

void wreck_restore(const struct wreck_image *image)
{
    char names[FILES_MAX][64];
    size_t n = temp_list(wreck.dir.text, "", names, FILES_MAX);
    for (size_t i = 0; i < n; i++)
        if (!is_in(image, names[i])) {
            struct temp_path path = wreck_file(names[i]);
            temp_remove(path.text);
        }
    for (unsigned k = 1; k <= wreck.dirs; k++) {
        char link[64];
        snprintf(link, sizeof link, "dir-%u", k);
        struct temp_path path = wreck_file(link);
        ck_assert_int_eq(symlink(wreck.more[k - 1].text, path.text), 0);
    }
    n = wreck_files(names, FILES_MAX);
    for (size_t i = 0; i < n; i++)
        if (!is_in(image, names[i])) {
            struct temp_path path = wreck_file(names[i]);
            temp_remove(path.text);
        }
    for (size_t i = 0; i < image->n; i++) {
        struct temp_path path = wreck_file(image->names[i]);
        temp_restore_file(path.text, image->data[i], image->sizes[i]);
    }
}
