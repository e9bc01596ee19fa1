/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * superblock.h -- the pool file: its bytes, its creation, and its validation. What is read is input: every field is checked
 * against the others and against the file's size before it is used.
 */
#ifndef SEGMENT_SUPERBLOCK_H
#define SEGMENT_SUPERBLOCK_H

#include <pallocator.h>

#include "log/lane_layout.h"
#include "pmem/file.h"

#define POOL_FILE_NAME      "pool.pa"
#define POOL_FILE_NAME_NEW  "pool.pa.new"
#define POOL_FORMAT_VERSION 2u
#define POOL_PAGE_BYTES     4096u
#define POOL_ROOT_OFFSET    POOL_PAGE_BYTES
#define POOL_LANES_OFFSET   (2 * POOL_PAGE_BYTES)
#define POOL_LANES_MAX      1024u
#define POOL_CORE_BYTES     64u /* sizeof(struct pm_core) */

#define SUPERBLOCK_MAGIC        0x314c4f4f50415031u /* "1PAPOOL1" */
#define SUPERBLOCK_MAGIC_REPAIR 0x524c4f4f50415031u /* "1PAPOOLR": a repair is at work, see pool/repair.h */

#define SEGMENT_SIZE_MIN     (1ull << 20)
#define SEGMENT_SIZE_MAX     (16ull << 30)
#define SEGMENT_SIZE_DEFAULT (128ull << 20)
#define POOL_RESERVE_BYTES   (16ull << 40)
#define POOL_SLOTS_MAX       131072u

/*
 * The pool file: superblock at 0, root line at 4,096, lanes at 8,192, then a core line per lane, then the segment table
 * (8 bytes a slot), then zero up to a whole page. It is mapped at slot 0 and the slots after that if it is longer than a segment.
 *
 *   off size
 *     0    8  magic
 *     8    4  version          other versions: PA_EVERSION; nothing else is read
 *    12    2  guarantee        enum pa_guarantee
 *    14    2  directories      besides the pool's own; see members.h
 *    16   16  uuid             also in each segment's header
 *    32    8  segment_size     power of two, 1 MiB .. 16 GiB
 *    40    8  file_bytes       of the pool file
 *    48    8  table_offset
 *    56    4  slots            entries of the segment table, the pool file's own included
 *    60    4  lanes
 *    64    4  lane_entries     power of two
 *    68    4  flags            PA_SPARSE
 *    72    8  max_size         0 = no limit
 *    80   64  layout           NUL-terminated
 *   144    8  checksum         XXH3 of bytes 0..143
 *
 * Written once, before the file gets its final name; never changed.
 */
struct pm_superblock {
    uint64_t magic;
    uint32_t version;
    uint16_t guarantee, directories;
    uint8_t uuid[16];
    uint64_t segment_size;
    uint64_t file_bytes;
    uint64_t table_offset;
    uint32_t slots;
    uint32_t lanes;
    uint32_t lane_entries;
    uint32_t flags;
    uint64_t max_size;
    char layout[64];
    uint64_t checksum;
};
_Static_assert(sizeof(struct pm_superblock) == 152, "layout");

/*
 * The root line at offset 4,096. check decides: zero: no root yet, root is null. ROOT_MAKING: root is null, or names a block that is
 * nobody's yet; pa_root begins again. Else the root is ready, and check fits size and root. So no single lost word makes a
 * ready root look like one in the making.
 *
 *   0   16  root    owner pointer of the root block, changed by its allocation
 *  16    8  size    bytes asked for
 *  24    8  check   0, ROOT_MAKING, or the mix of size and root; stored after size, in the same line
 */
#define ROOT_MAKING 0x676e696b616d7461u
struct pm_root {
    pa_pptr root;
    uint64_t size;
    uint64_t check;
};
_Static_assert(sizeof(struct pm_root) <= MEDIA_LINE_BYTES, "the root line is one line");

/*
 * The core line, one per lane. Its words are owner pointers that operations of this lane change.
 *
 *   0   16  index    header block of the big allocator's block index; null until the first big block
 *  16   16  staging  block that pa_reallocate has filled and not yet put in the old one's place; freed at open
 *  32   16  young    header block of the lane's second block index, for what is allocated while the first is being read
 *  48   16  zero
 */
struct pm_core {
    pa_pptr index;
    pa_pptr staging;
    pa_pptr young;
    uint64_t zero[2];
};
_Static_assert(sizeof(struct pm_core) == POOL_CORE_BYTES, "one line");

/** What is asked of a new pool file; the rest follows. */
struct superblock_request {
    const char *layout;
    uint64_t segment_size, max_size;
    uint32_t lanes, lane_entries, slots; /* slots: 0 = as many as max_size or the reservation allow */
    uint32_t guarantee, flags;
    const char *const *dirs; /* [ndirs] further directories */
    uint32_t ndirs;
};

/** Create, fill and map the pool file as pool.pa.new, locked, with its address range reserved around it. */
int superblock_create(struct dir *d, struct file *f, const struct superblock_request *request);
/** Fill the new file, make it durable and give it its final name. */
int superblock_publish(struct dir *d, struct file *f, const struct media *m, const struct superblock_request *request);
/** Open, lock, validate and map pool.pa; layout NULL = any; ndirs 0 = the directories that the links lead to. */
int superblock_open(struct dir *d, struct file *f, const char *layout, bool wait, const char *const *dirs,
                    uint32_t ndirs, struct pm_superblock *ret_copy);

static inline const struct pm_superblock *superblock_of(const struct file *f)
{
    return (const struct pm_superblock *)f->address;
}
static inline uint64_t superblock_lanes_bytes(const struct pm_superblock *s)
{
    return (uint64_t)s->lanes * s->lane_entries * sizeof(struct pm_lane_entry);
}
static inline uint64_t superblock_cores_offset(const struct pm_superblock *s)
{
    return POOL_LANES_OFFSET + superblock_lanes_bytes(s);
}
/** Slots that the pool file itself covers. */
static inline uint32_t superblock_own_slots(const struct pm_superblock *s)
{
    return (uint32_t)((s->file_bytes + s->segment_size - 1) / s->segment_size);
}
/** Is every field in its range, and do they agree with each other? Magic, version and checksum apart. */
bool superblock_is_sane(const struct pm_superblock *s);
/** What the checksum has to be. */
uint64_t superblock_checksum(const struct pm_superblock *s);
uint64_t superblock_root_check(const struct pm_root *root);

#endif
