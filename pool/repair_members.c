/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_members.c -- further directories. A link that leads nowhere, or to what says itself that it is another's, only the user can
 * correct. A member.pa that is lost or damaged is made anew where the directory holds a file of this pool in its place.
 */
#include <stdlib.h>

#include "base/error.h"
#include "pool/repair.h"
#include "segment/members.h"

struct witness {
    struct repair *r;
    const struct pm_superblock *s;
    uint32_t directory;
    bool own;
};

static int visit_file(const char *name, void *arg)
{
    struct witness *w = arg;
    char full[64];
    bool huge;
    uint32_t slot;
    w->own = repair_parse_name(w->s, w->directory, name, full, &huge, &slot) && slot < w->s->slots &&
             segment_file_claim(&w->r->view_dir, full, w->s, slot, huge) == SEGMENT_CLAIM_OWN;
    return w->own;
}

static int make_member(struct repair *r, const struct pm_superblock *s, uint32_t number)
{
    struct witness w = {r, s, number, false};
    char link[32], name[64], *bytes = NULL;
    size_t size;
    members_dir_name(link, number);
    int code = dir_foreach_in(&r->view_dir, link, visit_file, &w);
    if (code < 0)
        return code;
    if (!w.own) {
        repair_refuse(r,
                      "%s/" MEMBER_FILE_NAME
                      " is missing or damaged, and no file in %s tells that it is directory %u of this pool; lead the "
                      "link to the right directory, or restore " MEMBER_FILE_NAME " from a backup",
                      link, link, number);
        return PA_ECORRUPT;
    }
    code = members_content(&r->view_dir, s, number, &bytes, &size);
    if (code != 0)
        return code;
    snprintf(name, sizeof name, "%s/" MEMBER_FILE_NAME, link);
    repair_make_file(r, name, bytes, size);
    free(bytes);
    r->members_fixed = true;
    repair_did(r, "%s was missing or damaged; made anew, as a file of the pool lies beside it", name);
    return r->failed;
}

static int look_at(struct repair *r, const struct pm_superblock *s, uint32_t number)
{
    char link[32];
    members_dir_name(link, number);
    switch (members_look(&r->view_dir, s, number)) {
    case MEMBER_SOUND:
        return 0;
    case MEMBER_DAMAGED:
        return make_member(r, s, number);
    case MEMBER_NOWHERE:
        repair_refuse(r,
                      "%s leads to no directory; mount that directory, or lead the link to where it is now (ln -sfn), "
                      "and repair again",
                      link);
        return error_set(PA_ENOENT,
                         "%s/%s leads to no directory; mount that directory, or lead the link to where it is now "
                         "(ln -sfn), and repair again",
                         r->path, link);
    case MEMBER_OF_OTHERS:
        repair_refuse(r,
                      "%s leads to a directory of another pool, or to another one of this pool; lead the link to "
                      "directory %u (ln -sfn), and repair again",
                      link, number);
        return PA_ECORRUPT;
    default:
        return error_set(PA_EACCES, "cannot look at %s/%s: %s", r->path, link, "its member.pa cannot be read");
    }
}

int repair_members(struct repair *r, const struct pm_superblock *s)
{
    int code = 0;
    r->directories = s->directories;
    for (uint32_t k = 1; code == 0 && k <= s->directories; k++)
        code = look_at(r, s, k);
    return code;
}
