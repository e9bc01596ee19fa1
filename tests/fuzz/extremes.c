/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * extremes.c -- every field of every structure on media at the ends of its range, beside its valid bounds and beside its own value, with its
 * checksum put right and not. Each pool is then judged as the fuzzer's are (judge.c).
 *
 *   fuzz_extremes [--only=N] [--thorough=1]
 *
 * Cases are numbered; a finding tells its number and the field. thorough: every value of both images, without the checksum too.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "small/small_layout.h"
#include "tests/fuzz/fuzz.h"

#define BOUNDS_MAX 5

/* bits from shift on of the 8-byte word at offset; bounds: 0 = no more. */
struct field {
    const char *name;
    uint32_t offset, shift, bits;
    uint64_t bounds[BOUNDS_MAX];
};

#define WORD(type, field, ...)                                                                                         \
    {                                                                                                                  \
#type "." #field, offsetof(struct type, field), 0, 64,                                                         \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define PART(type, field, ...)                                                                                         \
    {                                                                                                                  \
#type "." #field, offsetof(struct type, field) & ~7u, 8 * (offsetof(struct type, field) & 7),                  \
            8 * sizeof(((struct type *)NULL)->field),                                                                  \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define BITS(name, offset, shift, bits, ...)                                                                           \
    {                                                                                                                  \
        name, offset, shift, bits,                                                                                     \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }

#define POOL_END (16ull << FUZZ_SEGMENT_BITS) /* of the prepared pools' slots */

static const struct field superblock_fields[] = {
    WORD(pm_superblock, magic, SUPERBLOCK_MAGIC_REPAIR),
    PART(pm_superblock, version, POOL_FORMAT_VERSION),
    PART(pm_superblock, guarantee, PA_GUARANTEE_GC),
    PART(pm_superblock, directories, PA_DIRS_MAX),
    BITS("pm_superblock.uuid", 16, 0, 64),
    BITS("pm_superblock.uuid, second half", 24, 0, 64),
    WORD(pm_superblock, segment_size, SEGMENT_SIZE_MIN, SEGMENT_SIZE_MAX, 2 * SEGMENT_SIZE_MIN, 2 * SEGMENT_SIZE_MAX),
    WORD(pm_superblock, file_bytes, FUZZ_SEGMENT_SIZE, POOL_END),
    WORD(pm_superblock, table_offset, FUZZ_SEGMENT_SIZE),
    PART(pm_superblock, slots, 2, POOL_SLOTS_MAX),
    PART(pm_superblock, lanes, 1, POOL_LANES_MAX),
    PART(pm_superblock, lane_entries, 16, 65536, 32),
    PART(pm_superblock, flags, PA_SPARSE),
    WORD(pm_superblock, max_size, FUZZ_SEGMENT_SIZE, POOL_END),
    BITS("pm_superblock.layout", 80, 0, 64),
    BITS("pm_superblock.layout, its end", 136, 0, 64),
    WORD(pm_superblock, checksum),
};
static const struct field root_fields[] = {
    WORD(pm_root, root.segment, 16, 131072),
    WORD(pm_root, root.offset, FUZZ_SEGMENT_SIZE),
    WORD(pm_root, size, FUZZ_ROOT_BYTES, FUZZ_SEGMENT_SIZE),
    WORD(pm_root, check, ROOT_MAKING),
};
static const struct field core_fields[] = {
    WORD(pm_core, index.segment, 16),   WORD(pm_core, index.offset, FUZZ_SEGMENT_SIZE),
    WORD(pm_core, staging.segment, 16), WORD(pm_core, staging.offset, FUZZ_SEGMENT_SIZE),
    WORD(pm_core, young.segment, 16),   WORD(pm_core, young.offset, FUZZ_SEGMENT_SIZE),
    BITS("pm_core.zero", 48, 0, 64),    BITS("pm_core.zero, second", 56, 0, 64),
};
static const struct field entry_fields[] = {
    WORD(pm_lane_entry, lsn),
    PART(pm_lane_entry, op, 1, LANE_OP_COUNT),
    PART(pm_lane_entry, class_index, 35, 37, 39),
    PART(pm_lane_entry, flags, 1, 2, 4, 7),
    PART(pm_lane_entry, changes, 3),
    PART(pm_lane_entry, staging, 2),
    PART(pm_lane_entry, zero),
    WORD(pm_lane_entry, block, FUZZ_SEGMENT_SIZE, POOL_END),
    WORD(pm_lane_entry, dst, FUZZ_SEGMENT_SIZE, POOL_END),
    BITS("pm_lane_entry.argument, leaf or slot", 32, 0, 40, 16, POOL_END / 64),
    BITS("pm_lane_entry.argument, slot set", 32, 40, 6, 40, 62),
    BITS("pm_lane_entry.argument, slot cleared", 32, 46, 6, 40, 62),
    BITS("pm_lane_entry.argument, role", 32, 52, 3, 4),
    BITS("pm_lane_entry.argument, pages", 32, 55, 9),
    BITS("pm_lane_entry.argument, second", 40, 0, 64),
    BITS("pm_lane_entry.argument, third", 48, 0, 64),
    WORD(pm_lane_entry, checksum),
};
static const struct field table_fields[] = {
    BITS("table word", 0, 0, 64),           BITS("table word, state", 0, 0, 4, 3),
    BITS("table word, kind", 0, 4, 4, 3),   BITS("table word, owner", 0, 8, 16, 2, 4),
    BITS("table word, more", 0, 24, 24, 1), BITS("table word, checksum", 0, 48, 16),
};
static const struct field header_fields[] = {
    WORD(pm_segment_header, magic),
    PART(pm_segment_header, version, POOL_FORMAT_VERSION),
    PART(pm_segment_header, slot, 16),
    BITS("pm_segment_header.uuid", 16, 0, 64),
    WORD(pm_segment_header, segment_size, FUZZ_SEGMENT_SIZE),
    WORD(pm_segment_header, file_bytes, FUZZ_SEGMENT_SIZE),
    WORD(pm_segment_header, born),
    BITS("pm_segment_header.extent, pages", 48, 0, 32, 256, 1),
    BITS("pm_segment_header.extent, first page", 48, 32, 16, 1),
    BITS("pm_segment_header.extent, checksum", 48, 48, 16),
    WORD(pm_segment_header, checksum),
};
static const struct field slab_fields[] = {
    WORD(pm_slab_line, lsn),
    BITS("pm_slab_line.tag, class", 8, 0, 8, 36, 38, 39, 40),
    BITS("pm_slab_line.tag, line", 8, 8, 8, SLAB_LINES),
    BITS("pm_slab_line.tag, slab", 8, 16, 16, 15),
    BITS("pm_slab_line.tag, checksum", 8, 32, 32),
    BITS("pm_slab_line.bits, first", 16, 0, 64),
    BITS("pm_slab_line.bits, last", 56, 0, 64),
};
static const struct field tree_fields[] = {
    WORD(pm_tree_header, magic),
    WORD(pm_tree_header, version, TREE_VERSION),
    WORD(pm_tree_header, self, POOL_END),
    WORD(pm_tree_header, rule, 2),
    WORD(pm_tree_header, leaf_bytes, 768),
    WORD(pm_tree_header, logs, TREE_LOGS),
    BITS("pm_tree_header.reserved", 48, 0, 64),
    WORD(pm_tree_header, checksum),
    WORD(pm_tree_header, generation),
    WORD(pm_tree_header, closed),
    BITS("first micro-log, owner.segment", 128, 0, 64, 16),
    BITS("first micro-log, owner.offset", 136, 0, 64, FUZZ_SEGMENT_SIZE),
    BITS("first micro-log, left", 144, 0, 64, POOL_END),
    BITS("first micro-log, right", 152, 0, 64, POOL_END),
    BITS("first micro-log, after", 160, 0, 64, POOL_END),
    BITS("first micro-log, op", 168, 0, 64, 2),
    BITS("last micro-log, owner.segment", 128 + 25 * 64, 0, 64, 16),
    BITS("last micro-log, left", 128 + 25 * 64 + 16, 0, 64, POOL_END),
};
static const struct field leaf_fields[] = {
    BITS("leaf, bitmap", 0, 0, 64, 1ull << 40),
    BITS("leaf, lsn or lock", 8, 0, 64),
    BITS("leaf, next", 16, 0, 64, FUZZ_SEGMENT_SIZE, POOL_END),
    BITS("leaf, fingerprints", 24, 0, 64),
    BITS("leaf, key of slot 0", 64, 0, 64, POOL_END),
    BITS("leaf, pages of slot 0", 72, 0, 32, 256),
    BITS("leaf, state of slot 0", 72, 32, 32, 3),
    BITS("leaf, key of slot 1", 80, 0, 64, FUZZ_SEGMENT_SIZE, POOL_END),
    BITS("leaf, pages of slot 1", 88, 0, 32, 256),
    BITS("leaf, state of slot 1", 88, 32, 32, 3),
    BITS("leaf, key of slot 39", 64 + 39 * 16, 0, 64, POOL_END),
    BITS("leaf, low", 704, 0, 64, POOL_END),
    BITS("leaf, check", 712, 0, 64),
    BITS("leaf, reserved", 720, 0, 64),
};

/* --- one case ------------------------------------------------------------------------------------------------------------------- */

static struct {
    uint64_t number, only, done;
    bool all, thorough;
    char text[200];
} run = {.all = true};

static void tell(int signal_number)
{
    (void)!write(STDERR_FILENO, run.text, strlen(run.text));
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void one_case(const struct fuzz_image *im, unsigned file, uint64_t offset, const struct field *f, uint64_t value,
                     bool fix)
{
    struct fuzz_mutation m;
    uint64_t mask = f->bits == 64 ? UINT64_MAX : ((1ull << f->bits) - 1) << f->shift, old;
    memcpy(&old, im->files[file].data + offset, sizeof old);
    uint64_t changed = (old & ~mask) | (value << f->shift & mask);
    if (changed == old || (run.number++, !run.all && run.number != run.only))
        return;
    snprintf(run.text, sizeof run.text, "fuzz_extremes --only=%" PRIu64 ": %s at %s+%" PRIu64 " = %#" PRIx64 "%s\n",
             run.number, f->name, im->files[file].name, offset, changed, fix ? ", checksum put right" : "");
    if (!run.all)
        fputs(run.text, stderr);
    fuzz_restore(im);
    fuzz_set(im, file, offset, changed, fix, &m);
    /* A value of a superblock is looked for by trying all there are. */
    m.repair = run.number % 8 == 0 && !(file == 0 && offset < POOL_ROOT_OFFSET);
    fuzz_judge(&m);
    run.done++;
}

/* fixed: the unit has a checksum that can be put right. */
static void one_field(const struct fuzz_image *im, unsigned file, uint64_t offset, const struct field *f, bool fixed)
{
    uint64_t max = f->bits == 64 ? UINT64_MAX : (1ull << f->bits) - 1, sign = 1ull << (f->bits - 1), word;
    memcpy(&word, im->files[file].data + offset, sizeof word);
    uint64_t old = word >> f->shift & max;
    uint64_t values[8 + 3 * BOUNDS_MAX] = {0, max, 1, max - 1, sign, sign - 1, old + 1, old - 1};
    unsigned n = 8;
    for (unsigned i = 0; i < BOUNDS_MAX && f->bounds[i] != 0; i++)
        for (uint64_t near = f->bounds[i] - 1; near <= f->bounds[i] + 1; near++)
            values[n++] = near;
    for (unsigned i = 0; i < n; i++) {
        one_case(im, file, offset, f, values[i], fixed);
        if (fixed && (run.thorough || i < 2))
            one_case(im, file, offset, f, values[i], false);
    }
}

#define FIELDS(im, file, offset, list, fixed) fields(im, file, offset, list, sizeof(list) / sizeof *(list), fixed)

static void fields(const struct fuzz_image *im, unsigned file, uint64_t offset, const struct field *list, size_t n,
                   bool fixed)
{
    for (size_t i = 0; i < n; i++)
        one_field(im, file, offset + list[i].offset, &list[i], fixed);
}

/* --- structures ----------------------------------------------------------------------------------------------------------------- */

/* An entry of each operation that the log shows. */
static void entries(const struct fuzz_image *im)
{
    const struct pm_superblock *g = &im->geometry;
    unsigned seen = 0;
    for (uint32_t i = 0; i < g->lanes * g->lane_entries; i++) {
        uint64_t offset = POOL_LANES_OFFSET + i * sizeof(struct pm_lane_entry);
        const struct pm_lane_entry *e = (const struct pm_lane_entry *)(im->files[0].data + offset);
        if (e->op >= LANE_OP_COUNT || (seen >> e->op & 1) != 0)
            continue;
        seen |= 1u << e->op;
        FIELDS(im, 0, offset, entry_fields, true);
    }
}

static void pool_file(const struct fuzz_image *im)
{
    const struct pm_superblock *g = &im->geometry;
    FIELDS(im, 0, 0, superblock_fields, true);
    FIELDS(im, 0, POOL_ROOT_OFFSET, root_fields, true);
    for (uint32_t i = 0; i < g->lanes; i++)
        FIELDS(im, 0, superblock_cores_offset(g) + i * POOL_CORE_BYTES, core_fields, false);
    entries(im);
    for (uint32_t slot = 0; slot < 8 && slot < g->slots; slot++)
        FIELDS(im, 0, g->table_offset + slot * 8ull, table_fields, true);
}

/* The first line of a slab of each size class, and of one that was never formatted. */
static void slab_lines(const struct fuzz_image *im, unsigned file)
{
    uint64_t seen = 0;
    for (uint32_t slab = 0; slab < small_slabs_of(FUZZ_SEGMENT_SIZE); slab++) {
        uint64_t offset = SEGMENT_HEADER_BYTES + (uint64_t)slab * SLAB_META_BYTES;
        const struct pm_slab_line *line = (const struct pm_slab_line *)(im->files[file].data + offset);
        if ((seen >> (line->tag & 63) & 1) != 0)
            continue;
        seen |= 1ull << (line->tag & 63);
        FIELDS(im, file, offset, slab_fields, true);
    }
}

static void trees(const struct fuzz_image *im)
{
    unsigned leaves[2] = {0};
    for (unsigned i = 0; i < im->leaf_count; i++) {
        const struct fuzz_leaf *l = &im->leaves[i];
        unsigned file = fuzz_file_of(im, l->off >> FUZZ_SEGMENT_BITS);
        uint64_t offset = l->off & (FUZZ_SEGMENT_SIZE - 1);
        if (l->is_header)
            FIELDS(im, file, offset, tree_fields, true);
        else if (leaves[l->of_index]++ < 3)
            FIELDS(im, file, offset, leaf_fields, true);
    }
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "--only=%" SCNu64, &run.only) == 1)
            run.all = false;
        else if (strcmp(argv[i], "--thorough=1") == 0)
            run.thorough = true;
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], tell);
    if (!fuzz_setup())
        return EXIT_FAILURE;
    for (unsigned image = 0; image < FUZZ_IMAGES; image++) {
        const struct fuzz_image *im = fuzz_image(image);
        if (image == 1 || run.thorough)
            pool_file(im);
        for (unsigned i = 1; i < im->file_count; i++) {
            FIELDS(im, i, 0, header_fields, true);
            if (!im->files[i].huge && (image == 0 || run.thorough))
                slab_lines(im, i);
        }
        if (image == 1 || run.thorough)
            trees(im);
    }
    printf("fuzz_extremes: %" PRIu64 " cases: %" PRIu64 " told by pa_check, %" PRIu64 " refused by pa_open, %" PRIu64
           " unsound ones used, %" PRIu64 " sound, %" PRIu64 " repaired, %" PRIu64 " not; no finding\n",
           run.done, fuzz_totals.told, fuzz_totals.refused, fuzz_totals.used_unsound, fuzz_totals.sound,
           fuzz_totals.repaired, fuzz_totals.not_repaired);
    fuzz_cleanup();
    return EXIT_SUCCESS;
}
