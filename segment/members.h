/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * members.h -- further directories of a pool, over which its segment and huge files are spread.
 *
 * The pool's own directory holds a symbolic link dir-K to the K-th of them, and the K-th holds the file member.pa, which names the
 * pool. A file of slot s lies in directory s modulo (1 + directories), where 0 is the pool's own; so its name is enough to find it,
 * and no table says where it is.
 */
#ifndef SEGMENT_MEMBERS_H
#define SEGMENT_MEMBERS_H

#include "segment/superblock.h"

#define MEMBER_FILE_NAME "member.pa"
#define MEMBER_MAGIC     0x31424d454d415031u

/*
 * member.pa, written once before the pool file gets its name.
 *
 *   off size
 *     0    8  magic
 *     8    4  version     POOL_FORMAT_VERSION
 *    12    2  number      1 .. directories
 *    14    2  directories as in the superblock
 *    16   16  uuid        of the pool
 *    32    8  path_bytes  of the pool directory's path, which follows the header: for whoever finds the file, and for a pa_create
 *                         that begins again after a crash
 *    40    8  checksum    XXH3 of the bytes before and the path
 */
struct pm_member {
    uint64_t magic;
    uint32_t version;
    uint16_t number, directories;
    uint8_t uuid[16];
    uint64_t path_bytes;
    uint64_t checksum;
};
_Static_assert(sizeof(struct pm_member) == 48, "layout");

/** Name of a slot's file, kind "segment" or "huge", relative to the pool's directory. */
void members_name(char name[32], const struct pm_superblock *s, const char *kind, uint32_t slot);
/** Is it the name of a segment's or a huge block's file, spelled as the library does? */
bool members_parse(const char *name, bool *ret_huge, uint32_t *ret_slot);
/** Name of a directory by its number: "dir-K", or "." for 0. */
void members_dir_name(char name[32], uint32_t number);
/** Make the directories (s->directories of them) members of the pool that is being created in d, durably. PA_EEXIST if one belongs to
 *  another pool, or if d holds a file of the user's by the name of a link; PA_EINVAL if one is there twice. */
int members_create(struct dir *d, const struct pm_superblock *s, const char *const *dirs);
/** A creation failed: the directories are nobody's. */
void members_uncreate(struct dir *d, const struct pm_superblock *s);
/** Check that every link leads to its member. dirs not NULL: lead the links there first, where they do not. PA_ENOENT, PA_ECORRUPT. */
int members_open(struct dir *d, const struct pm_superblock *s, const char *const *dirs);
/** PA_EEXIST if d is a member of a pool. */
int members_refuse(struct dir *d);
/** What the link of that number leads to, for repair. */
enum member_state {
    MEMBER_SOUND,
    MEMBER_NOWHERE,   /* no directory */
    MEMBER_DAMAGED,   /* a directory without a sound member.pa */
    MEMBER_OF_OTHERS, /* another pool's, or another number's */
    MEMBER_UNREADABLE /* a system error, whose sentence is set */
};
enum member_state members_look(struct dir *d, const struct pm_superblock *s, uint32_t number);
/** What its member.pa has to hold; the caller frees it. */
int members_content(struct dir *d, const struct pm_superblock *s, uint32_t number, char **ret, size_t *ret_size);

#endif
