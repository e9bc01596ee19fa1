/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mutate.c -- an input's bytes as changes of a pool's files.
 *
 *   byte 0      bit 0: which image; bit 1: put the checksums right afterwards; bit 2: files as well (below); bit 3: repair it
 *   byte 1      -
 *   then        records of 8 bytes:
 *     0  how    modulo HOW_COUNT
 *     1  where  modulo WHERE_COUNT
 *     2  2      which unit of that kind (modulo their number)
 *     4  1      which word of the unit
 *     5  1      argument
 *     6  2      second argument
 *
 * A unit is a line, or a table word. Words are changed in memory first, then the checksums of the units that were hit are put right
 * if the input asks for it, then the words go to the files. Changes of whole files come last.
 */
#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <xxhash.h>

#include "small/small_layout.h"
#include "tests/fuzz/fuzz.h"

enum how {
    HOW_INTERESTING, /* word = one of a table */
    HOW_VALUE,       /* word = the next 8 bytes of the input */
    HOW_BIT,
    HOW_ADD,
    HOW_PART,       /* 16 bits of the word */
    HOW_ZERO,       /* the whole unit */
    HOW_COPY,       /* the whole unit from another of its kind */
    HOW_BLOCK_OFF,  /* word = pa_off of a block */
    HOW_BLOCK_PPTR, /* two words = a block */
    HOW_OWNER_OFF,  /* word = pa_off of an owner */
    HOW_ENTRY,      /* a lane entry after the newest one */
    HOW_COUNT
};

enum where {
    WHERE_SUPERBLOCK,
    WHERE_ROOT,
    WHERE_LANE,
    WHERE_CORE,
    WHERE_TABLE,
    WHERE_HEADER,
    WHERE_SLAB,
    WHERE_INDEX,
    WHERE_TREE,
    WHERE_ROOT_BLOCK,
    WHERE_ANY,
    WHERE_FILE,
    WHERE_COUNT
};

struct record {
    uint8_t how, where;
    uint16_t index;
    uint8_t word, argument;
    uint16_t argument2;
};
_Static_assert(sizeof(struct record) == 8, "as in the input");

static const uint64_t interesting[] = {0,
                                       1,
                                       2,
                                       3,
                                       15,
                                       16,
                                       63,
                                       64,
                                       255,
                                       4095,
                                       4096,
                                       8191,
                                       65535,
                                       65536,
                                       FUZZ_SEGMENT_SIZE - 16,
                                       FUZZ_SEGMENT_SIZE,
                                       INT32_MAX,
                                       UINT32_MAX,
                                       1ull << 32,
                                       1ull << 40,
                                       1ull << 51,
                                       INT64_MAX,
                                       1ull << 63,
                                       UINT64_MAX - 15,
                                       UINT64_MAX - 1,
                                       UINT64_MAX};

/* Of the file that is being changed. */
struct unit {
    unsigned file;
    uint64_t offset, bytes; /* bytes 0 = there is none */
};

static const struct fuzz_file *file_of(const struct fuzz_mutation *m, unsigned file)
{
    return &m->image->files[file];
}

unsigned fuzz_file_of(const struct fuzz_image *im, uint64_t slot)
{
    for (unsigned i = 0; i < im->file_count; i++)
        if (im->files[i].slot == slot || (im->files[i].huge && slot > im->files[i].slot &&
                                          slot <= im->files[i].slot + (im->files[i].size >> FUZZ_SEGMENT_BITS)))
            return i;
    return 0;
}

static uint64_t get(const struct fuzz_mutation *m, unsigned file, uint64_t offset)
{
    uint64_t value;
    memcpy(&value, file_of(m, file)->data + offset, sizeof value);
    return value;
}

static void put(struct fuzz_mutation *m, unsigned file, uint64_t offset, uint64_t value)
{
    const struct fuzz_file *f = file_of(m, file);
    uint64_t before = get(m, file, offset);
    if (offset + sizeof value > f->size || m->write_count == FUZZ_WRITES_MAX || before == value)
        return;
    m->writes[m->write_count].file = file;
    m->writes[m->write_count].offset = offset;
    m->writes[m->write_count++].before = before;
    memcpy(f->data + offset, &value, sizeof value);
}

/* --- where -------------------------------------------------------------------------------------------------------------------- */

static struct unit in_pool_file(uint64_t offset, uint64_t bytes)
{
    return (struct unit){0, offset, bytes};
}

static struct unit leaf_line(const struct fuzz_image *im, bool of_index, unsigned index)
{
    struct unit candidates[FUZZ_LEAVES_MAX * 40];
    unsigned n = 0;
    for (unsigned i = 0; i < im->leaf_count; i++) {
        const struct fuzz_leaf *l = &im->leaves[i];
        uint64_t bytes = l->is_header ? offsetof(struct pm_tree_header, head) : sizeof(struct pm_tree_leaf);
        for (uint64_t at = 0; l->of_index == of_index && at < bytes; at += 64)
            candidates[n++] = (struct unit){fuzz_file_of(im, l->off >> FUZZ_SEGMENT_BITS),
                                            (l->off & (FUZZ_SEGMENT_SIZE - 1)) + at, 64};
    }
    return n == 0 ? (struct unit){0} : candidates[index % n];
}

static struct unit unit_at(const struct fuzz_image *im, enum where where, unsigned index)
{
    const struct pm_superblock *g = &im->geometry;
    unsigned others = im->file_count - 1;
    switch (where) {
    case WHERE_SUPERBLOCK:
        return in_pool_file(0, 152);
    case WHERE_ROOT:
        return in_pool_file(POOL_ROOT_OFFSET, 64);
    case WHERE_LANE:
        return in_pool_file(POOL_LANES_OFFSET + index % (g->lanes * g->lane_entries) * 64u, 64);
    case WHERE_CORE:
        return in_pool_file(superblock_cores_offset(g) + index % g->lanes * POOL_CORE_BYTES, POOL_CORE_BYTES);
    case WHERE_TABLE:
        return in_pool_file(g->table_offset + index % g->slots * 8u, 8);
    case WHERE_HEADER:
        return (struct unit){1 + index % others, 0, 64};
    case WHERE_SLAB:
        return (struct unit){1 + index / 256 % others,
                             SEGMENT_HEADER_BYTES + index % 256 % (small_slabs_of(FUZZ_SEGMENT_SIZE) * SLAB_LINES) * 64,
                             64};
    case WHERE_INDEX:
        return leaf_line(im, true, index);
    case WHERE_TREE:
        return leaf_line(im, false, index);
    case WHERE_ROOT_BLOCK:
        return (struct unit){fuzz_file_of(im, im->root.segment), im->root.offset + index % (FUZZ_ROOT_BYTES / 64) * 64,
                             64};
    case WHERE_ANY:
        return (struct unit){index % im->file_count,
                             index / im->file_count % (im->files[index % im->file_count].size / 64) * 64, 64};
    default:
        return (struct unit){0};
    }
}

/* --- how ---------------------------------------------------------------------------------------------------------------------- */

static uint32_t newest_entry(const struct fuzz_mutation *m, unsigned lane, uint64_t *ret_lsn)
{
    const struct pm_superblock *g = &m->image->geometry;
    uint32_t newest = g->lane_entries - 1;
    *ret_lsn = 0;
    for (uint32_t i = 0; i < g->lane_entries; i++) {
        uint64_t lsn = get(m, 0, POOL_LANES_OFFSET + (lane * g->lane_entries + i) * 64ull);
        if (lsn > *ret_lsn) {
            *ret_lsn = lsn;
            newest = i;
        }
    }
    return newest;
}

static uint64_t entry_checksum(const struct pm_lane_entry *e)
{
    return XXH3_64bits(e, offsetof(struct pm_lane_entry, checksum));
}

static pa_off off_of(pa_pptr p)
{
    return (p.segment << FUZZ_SEGMENT_BITS) + p.offset;
}

static pa_off owner_off(const struct fuzz_image *im, unsigned i)
{
    return off_of(im->root) + FUZZ_OWNERS_OFFSET + i % FUZZ_OWNERS * sizeof(pa_pptr);
}

/* A committed entry that says what the record makes up. */
static void append_entry(struct fuzz_mutation *m, const struct record *r)
{
    const struct fuzz_image *im = m->image;
    unsigned lane = r->index % im->geometry.lanes;
    uint64_t lsn, words[8];
    uint32_t at = (newest_entry(m, lane, &lsn) + 1) % im->geometry.lane_entries;
    struct pm_lane_entry e = {.lsn = lsn + 1 + (r->word >= 128 ? r->word : 0),
                              .op = r->argument % LANE_OP_COUNT,
                              .class_index = (uint8_t)(r->index >> 8),
                              .flags = r->argument / LANE_OP_COUNT,
                              .changes = r->word & 3,
                              .block = off_of(im->owners[r->argument2 % FUZZ_OWNERS].at),
                              .dst = owner_off(im, r->argument2 / 256 * 3)};
    uint32_t slot = (uint32_t)(e.block >> FUZZ_SEGMENT_BITS);
    memcpy(e.argument, &slot, sizeof slot);
    e.checksum = entry_checksum(&e);
    memcpy(words, &e, sizeof words);
    for (unsigned i = 0; i < 8; i++)
        put(m, 0, POOL_LANES_OFFSET + (lane * im->geometry.lane_entries + at) * 64ull + i * 8, words[i]);
    m->forged = true;
}

static void change(struct fuzz_mutation *m, const struct record *r, uint64_t next)
{
    const struct fuzz_image *im = m->image;
    struct unit u = unit_at(im, r->where % WHERE_COUNT, r->index);
    enum how how = r->how % HOW_COUNT;
    if (how == HOW_ENTRY) {
        append_entry(m, r);
        return;
    }
    if (u.bytes == 0)
        return;
    uint64_t at = u.offset + r->word % (u.bytes / 8) * 8, old = get(m, u.file, at);
    const struct fuzz_block *block = &im->owners[r->argument2 % FUZZ_OWNERS];
    switch (how) {
    case HOW_INTERESTING:
        put(m, u.file, at, interesting[r->argument % (sizeof interesting / sizeof *interesting)]);
        break;
    case HOW_VALUE:
        put(m, u.file, at, next);
        break;
    case HOW_BIT:
        put(m, u.file, at, old ^ 1ull << r->argument % 64);
        break;
    case HOW_ADD:
        put(m, u.file, at, old + (uint64_t)(int64_t)(int8_t)r->argument);
        break;
    case HOW_PART: {
        unsigned shift = r->argument % 7 * 8;
        put(m, u.file, at, (old & ~(0xffffull << shift)) | (uint64_t)r->argument2 << shift);
        break;
    }
    case HOW_BLOCK_OFF:
        put(m, u.file, at, off_of(block->at) + r->argument % 4 * 16);
        break;
    case HOW_OWNER_OFF:
        put(m, u.file, at, owner_off(im, r->argument2));
        break;
    case HOW_BLOCK_PPTR:
        at &= ~15ull;
        put(m, u.file, at, block->at.segment);
        put(m, u.file, at + 8, block->at.offset);
        break;
    case HOW_COPY: {
        struct unit from = unit_at(im, r->where % WHERE_COUNT, r->argument2);
        for (uint64_t i = 0; i < u.bytes; i += 8)
            put(m, u.file, u.offset + i, get(m, from.file, from.offset + i));
        m->forged = true;
        break;
    }
    default: /* HOW_ZERO */
        for (uint64_t i = 0; i < u.bytes; i += 8)
            put(m, u.file, u.offset + i, 0);
        m->forged = true; /* as if it had never been written */
    }
}

/* --- checksums ---------------------------------------------------------------------------------------------------------------- */

static void fix_superblock(struct fuzz_mutation *m)
{
    struct pm_superblock s;
    memcpy(&s, file_of(m, 0)->data, sizeof s);
    put(m, 0, offsetof(struct pm_superblock, checksum), XXH3_64bits(&s, offsetof(struct pm_superblock, checksum)));
}

static void fix_root(struct fuzz_mutation *m)
{
    struct pm_root root;
    memcpy(&root, file_of(m, 0)->data + POOL_ROOT_OFFSET, sizeof root);
    put(m, 0, POOL_ROOT_OFFSET + offsetof(struct pm_root, check), superblock_root_check(&root));
}

static void fix_entry(struct fuzz_mutation *m, uint64_t offset)
{
    struct pm_lane_entry e;
    memcpy(&e, file_of(m, 0)->data + offset, sizeof e);
    put(m, 0, offset + offsetof(struct pm_lane_entry, checksum), entry_checksum(&e));
}

static void fix_word(struct fuzz_mutation *m, uint64_t offset)
{
    uint64_t low = get(m, 0, offset) & 0xffffffffffffu;
    uint32_t slot = (uint32_t)((offset - m->image->geometry.table_offset) / 8);
    put(m, 0, offset, low == 0 ? 0 : low | segment_word_checksum(low, slot) << 48);
}

static void fix_header(struct fuzz_mutation *m, unsigned file)
{
    struct pm_segment_header h;
    const struct fuzz_file *f = file_of(m, file);
    memcpy(&h, f->data, sizeof h);
    if (f->huge) {
        uint64_t low = h.extent & 0xffffffffffffu;
        put(m, file, offsetof(struct pm_segment_header, extent), low | segment_word_checksum(low, f->slot) << 48);
        h.extent = 0;
    }
    put(m, file, offsetof(struct pm_segment_header, checksum),
        XXH3_64bits(&h, offsetof(struct pm_segment_header, checksum)));
}

/* As small_slab.c computes it, said a second time: so a change of the format does not go unnoticed. */
static void fix_slab_line(struct fuzz_mutation *m, unsigned file, uint64_t offset)
{
    struct pm_slab_line line;
    memcpy(&line, file_of(m, file)->data + offset, sizeof line);
    uint64_t sum = mix64(~line.lsn ^ mix64(((line.tag & 255) - 1) & 255));
    for (uint32_t w = 0; w < SLAB_LINE_WORDS; w++)
        sum ^= mix64(line.bits[w] + (w + 1) * 0x9e3779b97f4a7c15u);
    put(m, file, offset + offsetof(struct pm_slab_line, tag), (uint32_t)line.tag | sum >> 32 << 32);
}

static void fix_leaf(struct fuzz_mutation *m, const struct fuzz_leaf *l, unsigned file, uint64_t base, uint64_t word)
{
    const char *data = file_of(m, file)->data + base;
    if (l->is_header) {
        struct pm_tree_header h;
        memcpy(&h, data, sizeof h);
        if (word < offsetof(struct pm_tree_header, generation))
            put(m, file, base + offsetof(struct pm_tree_header, checksum), tree_header_checksum(&h));
        return;
    }
    struct pm_tree_leaf leaf;
    memcpy(&leaf, data, sizeof leaf);
    if (word >= offsetof(struct pm_tree_leaf, low))
        put(m, file, base + offsetof(struct pm_tree_leaf, check), tree_leaf_check(l->off, l->header, leaf.low));
    else if (word >= offsetof(struct pm_tree_leaf, entry)) {
        unsigned slot = (unsigned)(word - offsetof(struct pm_tree_leaf, entry)) / sizeof leaf.entry[0];
        uint64_t at = base + offsetof(struct pm_tree_leaf, fingerprint) + slot / 8 * 8, shift = slot % 8 * 8;
        put(m, file, at,
            (get(m, file, at) & ~(255ull << shift)) | (uint64_t)tree_fingerprint(leaf.entry[slot].key) << shift);
    }
}

static void fix_pool_word(struct fuzz_mutation *m, uint64_t offset)
{
    const struct pm_superblock *g = &m->image->geometry;
    if (offset < sizeof(struct pm_superblock))
        fix_superblock(m);
    else if (offset >= POOL_ROOT_OFFSET && offset < POOL_ROOT_OFFSET + sizeof(struct pm_root))
        fix_root(m);
    else if (offset >= POOL_LANES_OFFSET && offset < superblock_cores_offset(g))
        fix_entry(m, offset & ~63ull);
    else if (offset >= g->table_offset && offset < g->table_offset + g->slots * 8ull)
        fix_word(m, offset);
}

static void fix_segment_word(struct fuzz_mutation *m, unsigned file, uint64_t offset)
{
    const struct fuzz_image *im = m->image;
    uint64_t lines_end = SEGMENT_HEADER_BYTES + (uint64_t)small_slabs_of(FUZZ_SEGMENT_SIZE) * SLAB_META_BYTES;
    pa_off off = fuzz_pool_offset(&im->files[file], offset);
    if (offset < sizeof(struct pm_segment_header))
        fix_header(m, file);
    else if (!im->files[file].huge && offset >= SEGMENT_HEADER_BYTES && offset < lines_end)
        fix_slab_line(m, file, offset & ~63ull);
    for (unsigned i = 0; i < im->leaf_count; i++) {
        const struct fuzz_leaf *l = &im->leaves[i];
        uint64_t bytes = l->is_header ? offsetof(struct pm_tree_header, head) : sizeof(struct pm_tree_leaf);
        if (off >= l->off && off < l->off + bytes)
            fix_leaf(m, l, file, offset - (off - l->off), off - l->off);
    }
}

/* Of the units that were hit; the fixes are not hits. */
static void fix_checksums(struct fuzz_mutation *m)
{
    unsigned n = m->write_count;
    for (unsigned i = 0; i < n; i++)
        if (m->writes[i].file == 0)
            fix_pool_word(m, m->writes[i].offset);
        else
            fix_segment_word(m, m->writes[i].file, m->writes[i].offset);
    m->forged = true;
}

/* --- files -------------------------------------------------------------------------------------------------------------------- */

static int work_fd(void)
{
    int fd = open(fuzz_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        fuzz_fail("cannot open %s: %s", fuzz_dir(), strerror(errno));
    return fd;
}

/* Words into the files, and the image as it was. */
static void write_out(struct fuzz_mutation *m)
{
    int dir = work_fd(), fd = -1;
    unsigned open_file = FUZZ_FILES_MAX;
    for (unsigned i = 0; i < m->write_count; i++) {
        unsigned file = m->writes[i].file;
        if (file != open_file) {
            if (fd >= 0)
                close(fd);
            fd = openat(dir, file_of(m, file)->name, O_RDWR | O_CLOEXEC);
            open_file = file;
        }
        uint64_t at = m->writes[i].offset;
        if (fd < 0 || pwrite(fd, file_of(m, file)->data + at, 8, (off_t)at) != 8)
            fuzz_fail("cannot write %s: %s", file_of(m, file)->name, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    close(dir);
    for (unsigned i = m->write_count; i-- > 0;)
        memcpy(file_of(m, m->writes[i].file)->data + m->writes[i].offset, &m->writes[i].before, 8);
}

static void change_size(int dir, const char *name, const struct record *r)
{
    static const uint64_t sizes[] = {0,
                                     1,
                                     64,
                                     151,
                                     152,
                                     4095,
                                     4096,
                                     8192,
                                     65536,
                                     FUZZ_SEGMENT_SIZE - 1,
                                     FUZZ_SEGMENT_SIZE,
                                     FUZZ_SEGMENT_SIZE + 1,
                                     2 * FUZZ_SEGMENT_SIZE,
                                     1ull << 32};
    int fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    if (ftruncate(fd, (off_t)sizes[r->argument2 % (sizeof sizes / sizeof *sizes)]) != 0)
        errno = 0; /* no regular file any more */
    close(fd);
}

static void make_socket(int dir, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", dir, name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!bind(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
}

static void change_file(struct fuzz_mutation *m, const struct record *r)
{
    const struct fuzz_image *im = m->image;
    const char *name = im->files[r->index % im->file_count].name;
    const char *other = im->files[r->argument2 % im->file_count].name;
    char stray[32];
    int dir = work_fd();
    m->structural = true;
    switch (r->argument % 10) {
    case 0:
        unlinkat(dir, name, 0);
        break;
    case 1:
        renameat2(dir, name, dir, other, 2 /* RENAME_EXCHANGE */);
        break;
    case 2:
        unlinkat(dir, name, 0);
        (void)!mkdirat(dir, name, 0700);
        break;
    case 3:
        unlinkat(dir, name, 0);
        (void)!symlinkat(other, dir, name);
        break;
    case 4:
        unlinkat(dir, name, 0);
        (void)!mkfifoat(dir, name, 0600);
        break;
    case 5:
        unlinkat(dir, name, 0);
        make_socket(dir, name);
        break;
    case 6:
        unlinkat(dir, name, 0);
        (void)!linkat(dir, other, dir, name, 0);
        break;
    case 7: /* a file in another slot too */
        snprintf(stray, sizeof stray, r->word & 1 ? "huge-%08x.pa" : "segment-%08x.pa", r->argument2 % 20);
        (void)!linkat(dir, name, dir, stray, 0);
        break;
    default:
        change_size(dir, name, r);
    }
    close(dir);
}

void fuzz_set(const struct fuzz_image *image, unsigned file, uint64_t offset, uint64_t value, bool fix,
              struct fuzz_mutation *m)
{
    m->image = image;
    m->write_count = 0;
    m->forged = m->structural = m->repair = false;
    put(m, file, offset, value);
    if (fix)
        fix_checksums(m);
    write_out(m);
}

/* --- the program ---------------------------------------------------------------------------------------------------------------- */

void fuzz_mutate(const struct fuzz_image *image, const uint8_t *data, size_t size, struct fuzz_mutation *m)
{
    m->image = image;
    m->write_count = 0;
    m->forged = m->structural = false;
    uint8_t flags = size > 0 ? data[0] : 0;
    m->repair = (flags & 8) != 0;
    struct record files[4];
    unsigned file_changes = 0;
    for (size_t at = 2; at + sizeof(struct record) <= size; at += sizeof(struct record)) {
        struct record r;
        uint64_t next = 0;
        memcpy(&r, data + at, sizeof r);
        if (r.how % HOW_COUNT == HOW_VALUE && at + 2 * sizeof r <= size) {
            at += sizeof r;
            memcpy(&next, data + at, sizeof next);
        }
        if (r.where % WHERE_COUNT != WHERE_FILE)
            change(m, &r, next);
        else if ((flags & 4) != 0 && file_changes < sizeof files / sizeof *files)
            files[file_changes++] = r;
    }
    if ((flags & 2) != 0)
        fix_checksums(m);
    write_out(m);
    for (unsigned i = 0; i < file_changes; i++)
        change_file(m, &files[i]);
}
