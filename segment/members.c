/* SPDX-License-Identifier: BSD-3-Clause */
/* members.c -- see members.h. */
#define XXH_INLINE_ALL
#include "segment/members.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/error.h"

#define MEMBER_FILE_NAME_NEW "member.pa.new"

void members_dir_name(char name[32], uint32_t number)
{
    if (number == 0)
        snprintf(name, 32, ".");
    else
        snprintf(name, 32, "dir-%u", number);
}

void members_name(char name[32], const struct pm_superblock *s, const char *kind, uint32_t slot)
{
    uint32_t number = slot % (1u + s->directories);
    if (number == 0)
        snprintf(name, 32, "%s-%08x.pa", kind, slot);
    else
        snprintf(name, 32, "dir-%u/%s-%08x.pa", number, kind, slot);
}

bool members_parse(const char *name, bool *ret_huge, uint32_t *ret_slot)
{
    *ret_huge = strncmp(name, "huge-", 5) == 0;
    if (!*ret_huge && strncmp(name, "segment-", 8) != 0)
        return false;
    const char *digits = strchr(name, '-') + 1;
    if (strspn(digits, "0123456789abcdef") != 8 || strcmp(digits + 8, ".pa") != 0)
        return false;
    *ret_slot = (uint32_t)strtoul(digits, NULL, 16);
    return true;
}

/* --- member.pa ------------------------------------------------------------------------------------------------------------ */

/* The file's content; path_bytes of the path follow. */
struct member {
    struct pm_member head;
    char path[PATH_MAX];
};

static uint64_t checksum_of(const struct member *m)
{
    struct member copy = *m;
    copy.head.checksum = 0;
    return XXH3_64bits(&copy, sizeof copy.head + copy.head.path_bytes);
}

static int describe(struct dir *d, const struct pm_superblock *s, uint32_t number, struct member *ret)
{
    *ret = (struct member){.head = {.magic = MEMBER_MAGIC,
                                    .version = POOL_FORMAT_VERSION,
                                    .number = (uint16_t)number,
                                    .directories = s->directories}};
    memcpy(ret->head.uuid, s->uuid, sizeof s->uuid);
    int code = dir_real_path(d, ret->path);
    ret->head.path_bytes = strlen(ret->path);
    ret->head.checksum = checksum_of(ret);
    return code;
}

/* PA_ENOENT if there is none. */
static int read_member(struct dir *d, const char *name, struct member *ret)
{
    struct file f;
    *ret = (struct member){0};
    int code = file_open(d, &f, name);
    if (code != 0)
        return code;
    size_t size = f.size < sizeof *ret ? (size_t)f.size : sizeof *ret - 1;
    bool whole = size >= sizeof ret->head && file_read(d, &f, 0, ret, size) == 0 && ret->head.magic == MEMBER_MAGIC &&
                 ret->head.path_bytes == size - sizeof ret->head && ret->head.checksum == checksum_of(ret);
    file_close(d, &f);
    if (!whole)
        return error_set(PA_ECORRUPT, "%s/%s is damaged; restore it from a backup", d->path, name);
    return 0;
}

static int write_member(struct dir *sub, const struct member *m)
{
    struct file f;
    uint64_t size = sizeof m->head + m->head.path_bytes;
    int code = dir_unlink(sub, MEMBER_FILE_NAME_NEW, false);
    if (code == 0)
        code = file_create(sub, &f, MEMBER_FILE_NAME_NEW, size, true);
    if (code != 0)
        return code;
    code = file_write(sub, &f, 0, m, size);
    if (code == 0)
        code = file_sync(sub, &f);
    file_close(sub, &f);
    if (code == 0)
        code = dir_rename(sub, MEMBER_FILE_NAME_NEW, MEMBER_FILE_NAME);
    return code == 0 ? dir_sync(sub) : code;
}

/* --- creation ------------------------------------------------------------------------------------------------------------- */

static int visit_for_others(const char *name, void *arg)
{
    const struct dir *sub = arg;
    if (strcmp(name, POOL_FILE_NAME) == 0 || strcmp(name, POOL_FILE_NAME_NEW) == 0 ||
        strncmp(name, "segment-", 8) == 0 || strncmp(name, "huge-", 5) == 0)
        return error_set(PA_EEXIST, "%s holds %s, which belongs to a pool; choose another directory", sub->path, name);
    return 0;
}

/* A member.pa of this very pool directory is of a creation that a crash cut off, as there is no pool yet. */
static int claim(struct dir *sub, const struct member *wanted)
{
    struct member found;
    int code = dir_foreach(sub, visit_for_others, sub);
    if (code != 0)
        return code;
    code = read_member(sub, MEMBER_FILE_NAME, &found);
    if (code == PA_ENOENT)
        return write_member(sub, wanted);
    if (code != 0)
        return code;
    if (memcmp(found.head.uuid, wanted->head.uuid, sizeof found.head.uuid) == 0)
        return error_set(PA_EINVAL, "the directory %s is named twice", sub->path);
    if (strcmp(found.path, wanted->path) != 0)
        return error_set(PA_EEXIST,
                         "%s belongs to the pool in %s; choose another directory, or remove " MEMBER_FILE_NAME
                         " if that pool is gone",
                         sub->path, found.path);
    return write_member(sub, wanted);
}

static int create_one(struct dir *d, const struct pm_superblock *s, uint32_t number, const char *path)
{
    struct dir sub;
    struct member wanted;
    char link[32], real[PATH_MAX];
    members_dir_name(link, number);
    int code = describe(d, s, number, &wanted);
    if (code != 0)
        return code;
    code = dir_open(&sub, path, true, false, d->hooks);
    if (code != 0)
        return code;
    code = claim(&sub, &wanted);
    if (code == 0)
        code = dir_real_path(&sub, real);
    if (code == 0)
        code = dir_link(d, real, link);
    dir_close(&sub);
    return code;
}

/* What has a link's name already: a link that a creation here, which a crash cut off, has made leads to a member that names this
 * directory. Anything else is the user's. */
static int refuse_occupied(struct dir *d, const struct pm_superblock *s, uint32_t number)
{
    char link[32], name[64];
    struct member wanted, found;
    members_dir_name(link, number);
    int code = dir_link_is_possible(d, link);
    if (code != 0 || !dir_has(d, link))
        return code;
    code = describe(d, s, number, &wanted);
    if (code != 0)
        return code;
    snprintf(name, sizeof name, "%s/" MEMBER_FILE_NAME, link);
    if (read_member(d, name, &found) == 0 && strcmp(found.path, wanted.path) == 0)
        return 0;
    return error_set(PA_EEXIST,
                     "%s/%s is in the way: the pool needs the name for its link to directory %u; rename it, move it "
                     "elsewhere, or choose another directory for the pool",
                     d->path, link, number);
}

/*
 * Further directories of a new pool: step 4 of superblock_publish.
 *
 * First it is made sure that no file of the user's has the name of a link. Then:
 *
 * step                                    | durable after it         | a crash here
 * ----------------------------------------+--------------------------+-------------------------------------------------------
 * 1 member.pa in each, synced; its        | a member of no pool yet  | pa_create in the same directory takes it again: the
 *   directory synced                      |                          | path in it is its own
 * 2 links dir-K                           | maybe                    | as 1; links are replaced
 * 3 directory sync                        | the links                | as 2
 */
int members_create(struct dir *d, const struct pm_superblock *s, const char *const *dirs)
{
    int code = 0;
    for (uint32_t k = 1; code == 0 && k <= s->directories; k++)
        code = refuse_occupied(d, s, k);
    for (uint32_t k = 1; code == 0 && k <= s->directories; k++)
        code = create_one(d, s, k, dirs[k - 1]);
    if (code == 0 && s->directories != 0)
        code = dir_sync(d); /* before the pool file's name: it promises the links */
    return code;
}

/* The link first, durably: one that leads to a directory without a member.pa might be the user's own, and the next creation refuses it. */
static void uncreate_one(struct dir *d, const char *link)
{
    struct dir sub;
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", d->path, link);
    if (n < 0 || (size_t)n >= sizeof path || dir_open(&sub, path, false, false, d->hooks) != 0)
        return;
    if (dir_unlink(d, link, false) == 0 && dir_sync(d) == 0)
        (void)dir_unlink(&sub, MEMBER_FILE_NAME, false);
    dir_close(&sub);
}

void members_uncreate(struct dir *d, const struct pm_superblock *s)
{
    for (uint32_t k = 1; k <= s->directories; k++) {
        char link[32], name[64];
        struct member found;
        members_dir_name(link, k);
        snprintf(name, sizeof name, "%s/" MEMBER_FILE_NAME, link);
        if (read_member(d, name, &found) != 0 || memcmp(found.head.uuid, s->uuid, sizeof s->uuid) != 0)
            continue; /* not made by this creation: perhaps the user's own */
        uncreate_one(d, link);
    }
}

int members_refuse(struct dir *d)
{
    struct member found;
    int code = read_member(d, MEMBER_FILE_NAME, &found);
    if (code == PA_ENOENT)
        return 0;
    return code != 0 ? code
                     : error_set(PA_EEXIST, "%s is a further directory of the pool in %s; choose another directory",
                                 d->path, found.path);
}

/* --- repair --------------------------------------------------------------------------------------------------------------- */

static bool is_member(const struct member *m, const struct pm_superblock *s, uint32_t number)
{
    return m->head.version == POOL_FORMAT_VERSION && m->head.number == number &&
           m->head.directories == s->directories && memcmp(m->head.uuid, s->uuid, sizeof s->uuid) == 0;
}

static int stop_at_first(const char *name, void *arg)
{
    (void)name;
    (void)arg;
    return 1;
}

enum member_state members_look(struct dir *d, const struct pm_superblock *s, uint32_t number)
{
    char link[32], name[64];
    struct member found;
    members_dir_name(link, number);
    snprintf(name, sizeof name, "%s/" MEMBER_FILE_NAME, link);
    int code = dir_foreach_in(d, link, stop_at_first, NULL);
    if (code < 0)
        return MEMBER_NOWHERE;
    code = read_member(d, name, &found);
    if (code == PA_ENOENT || code == PA_ECORRUPT)
        return MEMBER_DAMAGED;
    if (code != 0)
        return MEMBER_UNREADABLE;
    return is_member(&found, s, number) ? MEMBER_SOUND : MEMBER_OF_OTHERS;
}

int members_content(struct dir *d, const struct pm_superblock *s, uint32_t number, char **ret, size_t *ret_size)
{
    struct member *m = malloc(sizeof *m);
    if (m == NULL)
        return error_set(PA_ENOMEM, "no memory for the " MEMBER_FILE_NAME " of directory %u", number);
    int code = describe(d, s, number, m);
    if (code != 0) {
        free(m);
        return code;
    }
    *ret = (char *)m;
    *ret_size = sizeof m->head + m->head.path_bytes;
    return 0;
}

/* --- open ----------------------------------------------------------------------------------------------------------------- */

/* Only to a directory that says itself that it is the one. */
static int lead_link(struct dir *d, const struct pm_superblock *s, uint32_t number, const char *path)
{
    struct dir sub;
    struct member found;
    char link[32], real[PATH_MAX];
    members_dir_name(link, number);
    int code = dir_open(&sub, path, false, d->read_only, d->hooks);
    if (code != 0)
        return code;
    code = read_member(&sub, MEMBER_FILE_NAME, &found);
    if (code == PA_ENOENT || (code == 0 && !is_member(&found, s, number)))
        code = error_set(PA_EINVAL, "%s is not directory %u of the pool in %s", path, number, d->path);
    if (code == 0)
        code = dir_real_path(&sub, real);
    if (code == 0 && !d->read_only && !dir_link_is(d, link, real))
        code = dir_link(d, real, link); /* durable with the sync of every open: manager_open */
    dir_close(&sub);
    return code;
}

static int open_one(struct dir *d, const struct pm_superblock *s, uint32_t number, const char *path)
{
    char link[32], name[64];
    struct member found;
    members_dir_name(link, number);
    snprintf(name, sizeof name, "%s/" MEMBER_FILE_NAME, link);
    int code = path != NULL ? lead_link(d, s, number, path) : 0;
    if (code != 0)
        return code;
    code = read_member(d, name, &found);
    if (code == PA_ENOENT)
        return error_set(PA_ENOENT,
                         "%s/%s leads to no directory with a " MEMBER_FILE_NAME "; mount that directory, or lead the "
                         "link to where it is now",
                         d->path, link);
    if (code == 0 && !is_member(&found, s, number))
        return error_set(PA_ECORRUPT, "%s/%s leads to a directory of another pool (in %s); correct the link", d->path,
                         link, found.path);
    return code;
}

int members_open(struct dir *d, const struct pm_superblock *s, const char *const *dirs)
{
    int code = 0;
    if (d->members_known)
        return 0;
    for (uint32_t k = 1; code == 0 && k <= s->directories; k++)
        code = open_one(d, s, k, dirs != NULL ? dirs[k - 1] : NULL);
    return code;
}
