/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_superblock.c -- a superblock of which one field is damaged. The others and the checksum prove the value that is found: 64
 * bits of checksum, and at most some hundred thousand values to try.
 */
#include "pool/repair.h"

#include "base/error.h"
#include "segment/members.h"

#define AT_MOST(n)   ((n) < REPAIR_TRIES_MAX ? (n) : REPAIR_TRIES_MAX)
#define MAX_MIB      AT_MOST(1ull << 24) /* max_size is tried in MiB, to 16 TiB */
#define SLOTS_TO_TRY AT_MOST(POOL_SLOTS_MAX)

static bool fits(const struct pm_superblock *s)
{
    return s->checksum == superblock_checksum(s) && superblock_is_sane(s);
}

/* The pool's identity and segment size as the header of a segment file tells them. */
struct witness {
    struct repair *r;
    uint32_t directory; /* that is being looked at */
    struct pm_segment_header header;
    bool found;
};

static int visit_file(const char *name, void *arg)
{
    struct witness *w = arg;
    uint32_t slot;
    struct file f;
    bool huge;
    char full[64];
    if (!members_parse(name, &huge, &slot))
        return 0;
    if (w->directory == 0)
        snprintf(full, sizeof full, "%.63s", name);
    else
        snprintf(full, sizeof full, "dir-%u/%.48s", w->directory, name);
    int code = file_open(&w->r->view_dir, &f, full);
    if (code != 0)
        return code == PA_ECORRUPT ? 0 : code;
    struct pm_segment_header h;
    code = file_read(&w->r->view_dir, &f, 0, &h, sizeof h);
    if (code == 0 && h.magic == SEGMENT_MAGIC && h.slot == slot && h.checksum == segment_header_checksum(&h, huge)) {
        w->header = h;
        w->found = true;
    }
    file_close(&w->r->view_dir, &f);
    if (code != 0 && code != PA_ECORRUPT)
        return code; /* a witness that cannot be heard is not one that has nothing to say */
    return w->found;
}

/* How many further directories there are, the superblock may not say any more. */
static int look_for_witness(struct repair *r, struct witness *w)
{
    int code = 0;
    for (w->directory = 0; code == 0 && w->directory <= PA_DIRS_MAX; w->directory++) {
        char directory[32];
        members_dir_name(directory, w->directory);
        if (w->directory == 0 || dir_has(&r->view_dir, directory))
            code = dir_foreach_in(&r->view_dir, directory, visit_file, w);
        if (w->directory != 0 && code < 0)
            code = 0; /* of what has that name nobody says that it is the pool's */
    }
    return code;
}

/* Fields whose value something else tells. */
static bool try_known(struct pm_superblock *s, const struct witness *w, uint64_t file_bytes)
{
    struct pm_superblock t = *s;
    t.magic = SUPERBLOCK_MAGIC;
    if (fits(&t))
        return *s = t, true;
    t.version = POOL_FORMAT_VERSION; /* the three share a word */
    t.guarantee = PA_GUARANTEE_STRICT;
    for (t.directories = 0; t.directories <= PA_DIRS_MAX; t.directories++)
        if (fits(&t))
            return *s = t, true;
    t = *s;
    t.file_bytes = file_bytes;
    if (fits(&t) || (t.table_offset = superblock_cores_offset(&t) + (uint64_t)t.lanes * POOL_CORE_BYTES, fits(&t)))
        return *s = t, true;
    t = *s;
    if (!w->found)
        return false;
    memcpy(t.uuid, w->header.uuid, sizeof t.uuid);
    if (fits(&t) || (t.segment_size = w->header.segment_size, fits(&t)))
        return *s = t, true;
    return false;
}

/* Counts: every value that they may have. */
static bool try_counts(struct pm_superblock *s)
{
    struct pm_superblock t = *s;
    for (t.slots = 2; t.slots <= SLOTS_TO_TRY; t.slots++)
        if (fits(&t))
            return *s = t, true;
    t = *s;
    uint64_t lane_bytes = (uint64_t)t.lane_entries * sizeof(struct pm_lane_entry) + POOL_CORE_BYTES;
    t.lanes = (uint32_t)((t.table_offset - POOL_LANES_OFFSET) / lane_bytes); /* shares a word with slots */
    for (t.slots = 2; t.slots <= SLOTS_TO_TRY; t.slots++)
        if (fits(&t))
            return *s = t, true;
    t = *s;
    for (uint64_t mib = 0; mib <= MAX_MIB; mib++)
        if (t.max_size = mib << 20, fits(&t))
            return *s = t, true;
    for (unsigned flags = 0; flags <= PA_SPARSE; flags += PA_SPARSE) { /* the two share a word */
        t = *s;
        t.flags = flags;
        for (t.lane_entries = LANE_ENTRIES_MIN; t.lane_entries <= LANE_ENTRIES_MAX; t.lane_entries *= 2)
            if (fits(&t))
                return *s = t, true;
    }
    t = *s;
    for (t.segment_size = SEGMENT_SIZE_MIN; t.segment_size <= SEGMENT_SIZE_MAX; t.segment_size *= 2)
        if (fits(&t))
            return *s = t, true;
    return false;
}

static bool try_bytes(struct pm_superblock *s)
{
    unsigned char *bytes = (unsigned char *)s;
    for (size_t i = 0; i < sizeof *s; i++) {
        unsigned char old = bytes[i];
        for (unsigned value = 0; value < 256; value++)
            if (bytes[i] = (unsigned char)value, fits(s))
                return true;
        bytes[i] = old;
    }
    return false;
}

/* Printable up to its end, zero behind it. */
static bool is_layout(const char *layout, size_t size)
{
    size_t n = strnlen(layout, size);
    for (size_t i = 0; i < size; i++)
        if (i < n ? (unsigned char)layout[i] < ' ' || layout[i] == 127 : layout[i] != 0)
            return false;
    return true;
}

/* The checksum itself: then all else agrees, also with the files. */
static bool try_checksum(struct pm_superblock *s, const struct witness *w, uint64_t file_bytes)
{
    bool agrees =
        w->found && memcmp(s->uuid, w->header.uuid, sizeof s->uuid) == 0 && s->segment_size == w->header.segment_size;
    if (!agrees || s->magic != SUPERBLOCK_MAGIC || s->version != POOL_FORMAT_VERSION || s->file_bytes != file_bytes ||
        !superblock_is_sane(s) || !is_layout(s->layout, sizeof s->layout))
        return false;
    s->checksum = superblock_checksum(s);
    return true;
}

int repair_superblock(struct repair *r, struct pm_superblock *s)
{
    struct witness w = {.r = r};
    uint64_t file_bytes = r->view_file.size;
    int code = file_read(&r->view_dir, &r->view_file, 0, s, sizeof *s);
    if (code == PA_ECORRUPT)
        repair_refuse(r, POOL_FILE_NAME " is shorter than a superblock; restore it from a backup");
    if (code != 0)
        return code;
    if (s->magic == SUPERBLOCK_MAGIC && s->version != POOL_FORMAT_VERSION && s->checksum == superblock_checksum(s))
        return error_set(PA_EVERSION, "%s/" POOL_FILE_NAME " has format version %u, this library reads version %u",
                         r->path, s->version, POOL_FORMAT_VERSION);
    if (s->magic == SUPERBLOCK_MAGIC && s->version == POOL_FORMAT_VERSION && fits(s) && s->file_bytes == file_bytes)
        return 0;
    code = look_for_witness(r, &w);
    if (code < 0)
        return code;
    struct pm_superblock found = *s;
    bool restored = try_known(&found, &w, file_bytes) || try_counts(&found) || try_bytes(&found);
    bool guessed = !restored && try_checksum(&found, &w, file_bytes);
    if ((!restored && !guessed) || found.magic != SUPERBLOCK_MAGIC || found.version != POOL_FORMAT_VERSION ||
        found.file_bytes != file_bytes) {
        repair_refuse(r, POOL_FILE_NAME ": the superblock is damaged in more than one place, or the file has another "
                                        "size than it says; restore it from a backup");
        return PA_ECORRUPT;
    }
    *s = found;
    repair_patch_file(r, POOL_FILE_NAME, 0, &found, sizeof found);
    repair_did(r, POOL_FILE_NAME ": the superblock's damaged field was restored%s",
               guessed ? "; it was the checksum, so nothing vouches for layout and max_size" : " (its checksum fits)");
    return r->failed;
}
