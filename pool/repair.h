/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair.h -- pa_repair: a sound pool out of an unsound one, all or nothing. docs/REPAIR.md has the findings one by one.
 *
 * Glossary. View: the pool's files mapped privately, where repair tries things out. Patch: bytes that a file is to get; made in the
 * view at once. Redo file: all patches and moves of a repair, in the pool's directory.
 *
 * Everything is decided on the view; then pa_check itself runs on a private mapping with the patches applied. Only if it finds nothing:
 *
 * step                                        | durable after it        | a crash here
 * --------------------------------------------+-------------------------+----------------------------------------------------
 * 1 old bytes to the backup directory, syncs  | the copy                | the pool is as it was
 * 2 redo file (checksummed), sync, dir sync   | what is to be done      | the pool is as it was; the next repair begins again
 * 3 superblock's magic = REPAIR, sync         | the decision            | no open succeeds; the next repair goes on with 4
 * 4 patches written, files made anew (written | maybe parts, then all   | as 3: writing them again changes nothing
 *   under another name, synced, renamed) or   |                         |
 *   moved, syncs                              |                         |
 * 5 superblock's magic as it was, sync        | the sound pool          | the next repair removes the redo file
 * 6 redo file removed, dir sync               | the end                 | nothing to do
 *
 * One thread, under the pool's exclusive lock from beginning to end.
 */
#ifndef POOL_REPAIR_H
#define POOL_REPAIR_H

#include <stdio.h>

#include "pool/pool.h"

#define REPAIR_REDO_NAME  "pool.pa.repair"
#define REPAIR_NAME_BYTES 64u
#ifndef REPAIR_TRIES_MAX              /* the fuzzer has less patience */
#define REPAIR_TRIES_MAX (1ull << 27) /* values of a damaged word that are tried: about a second */
#endif

struct repair_patch {
    char name[REPAIR_NAME_BYTES]; /* "dir-1/..." in a further directory */
    bool whole;                   /* the file is made anew, with these bytes */
    uint64_t offset;
    uint32_t size;
    unsigned char *bytes; /* new ones; owned */
};

/** A pair of a block index, as repair found or made it. */
struct repair_pair {
    pa_off key;
    uint32_t pages;
    uint8_t state; /* enum big_state */
};

struct repair {
    const char *path;
    struct dir dir;   /* where the changes go */
    struct file file; /* pool.pa there; holds the lock */
    FILE *text;       /* the report */
    int failed;       /* first system error, sticky */
    unsigned done, refused;
    unsigned sound_indexes, doubtful_indexes;
    uint32_t directories; /* further ones */
    bool members_fixed;   /* a member.pa is to be made anew: no check can find it yet */
    /* The view. */
    struct dir view_dir;
    struct file view_file;
    struct media media;
    struct media_tally tally;
    struct manager manager;   /* dir is NULL until it is set up */
    uint8_t *segment_present; /* per slot: such a file is in the directory */
    uint8_t *huge_present;
    bool *pending;             /* per slot: the table word is to be made, see repair_files_finish */
    bool *suspect;             /* per slot: slab lines were lost, not found again */
    uint32_t slots;            /* of the arrays */
    uint64_t lsn;              /* highest in the lanes */
    uint64_t lanes_lsn;        /* that, before repair_raise_lsn */
    unsigned entries_fixed;    /* lane entries that were restored or given up */
    uint64_t *seal;            /* per lane: an allocation numbered so may be lost; 0 = none */
    struct repair_pair *pairs; /* of all block indexes, by key */
    size_t pair_count, pair_capacity;
    /* The plan. */
    struct repair_patch *patches;
    size_t patch_count, patch_capacity;
    char (*moves)[REPAIR_NAME_BYTES];
    size_t move_count, move_capacity;
};

/* --- the plan (repair_plan.c) --- */
/** Give bytes of the view, and later of their file, new contents. */
void repair_patch(struct repair *r, void *address, const void *bytes, size_t size);
/** The same for a file that is not in the view. */
void repair_patch_file(struct repair *r, const char *name, uint64_t offset, const void *bytes, size_t size);
static inline void repair_patch64(struct repair *r, uint64_t *address, uint64_t value)
{
    repair_patch(r, address, &value, sizeof value);
}
void repair_move(struct repair *r, const char *name);
/** The file is to have just these bytes. */
void repair_make_file(struct repair *r, const char *name, const void *bytes, size_t size);
/** A line of the report: what was done, and what cannot be. */
void repair_note(struct repair *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void repair_did(struct repair *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void repair_refuse(struct repair *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Remember a system error, whose sentence is set. */
void repair_fail(struct repair *r, int code);
void repair_plan_fini(struct repair *r);
/** Make the patches of a file in a buffer that shows [offset, offset + size) of it. */
void repair_overlay(const struct repair *r, const char *name, uint64_t offset, uint64_t size, void *buffer);
/** Apply and finish: the step table above. backup_dir as in pa_repair. */
int repair_apply(struct repair *r, const char *backup_dir, const struct file_hooks *hooks);
/** Finish a repair that was cut off; *ret_did. PA_ECORRUPT if its redo file is damaged. */
int repair_resume(struct repair *r, const struct file_hooks *hooks, bool *ret_did);

/* --- the parts, in the order in which they run; each works on what the ones before it have made --- */
/** repair_superblock.c: the superblock, restored if it must be. PA_ECORRUPT after a refusal, PA_EVERSION. */
int repair_superblock(struct repair *r, struct pm_superblock *s);
/** repair_view.c: map what is there. 0, or PA_ECORRUPT if there is no pool to be seen at all. */
int repair_view_open(struct repair *r);
void repair_view_close(struct repair *r);
/** repair_members.c: every dir-K leads to its directory, or its member.pa is planned anew. PA_ENOENT, PA_ECORRUPT after a refusal. */
int repair_members(struct repair *r, const struct pm_superblock *s);
/** Is name, in the directory of that number, spelled as the library does for its slot, and is it there that it belongs? ret_name: with
 *  the directory. */
bool repair_parse_name(const struct pm_superblock *geometry, uint32_t directory, const char *name, char ret_name[64],
                       bool *ret_huge, uint32_t *ret_slot);
/** Files that no slot has; pa_check notes them. */
void repair_find_strays(struct repair *r);
/** Table words, headers, extents. */
void repair_files(struct repair *r);
/** repair_lane.c: rings without a gap; sets lsn and seal. */
void repair_lanes(struct repair *r);
/** repair_slab.c: replay of the lanes in the view, and all slab lines valid after it. */
void repair_slabs(struct repair *r);
/** repair_lane.c: the highest LSN of the lanes becomes at least lsn. */
void repair_raise_lsn(struct repair *r, uint64_t lsn);
/** repair_index.c: block indexes; gathers pairs. */
void repair_indexes(struct repair *r);
/** repair_files.c: the words of segments whose kind the contents had to tell. */
void repair_files_finish(struct repair *r);
/** repair_root.c: root line, staging owners. */
void repair_roots(struct repair *r);

/** repair_lane.c: an entry of any lane about the slot that its file (born: see the header) is concerned by: small, big, or NONE. */
enum segment_kind repair_lane_hint(const struct repair *r, uint32_t slot, uint64_t born);
/** Class of the newest small entry about a slab; -1 = none. */
int repair_lane_class(const struct repair *r, uint32_t slot, uint32_t slab);
/** Could the core with that lane have looked after a segment or block index of owner? Depends on the number of cores then. */
bool repair_may_own(uint32_t lane, unsigned owner, uint32_t lanes);
/** repair_root.c: usable size of the block at p, 0 if there is none. */
uint64_t repair_usable(const struct repair *r, pa_pptr p);

static inline struct pm_slab_line *repair_lines(const struct segment *s, uint32_t slab)
{
    return (struct pm_slab_line *)((char *)s->file.address + SEGMENT_HEADER_BYTES) + (size_t)slab * SLAB_LINES;
}
static inline bool repair_is_kind(const struct segment *s, enum segment_kind kind)
{
    return segment_is_present(s) && atomic_load(&s->kind) == kind;
}

#endif
