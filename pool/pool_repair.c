/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_repair.c -- pa_repair. See repair.h. */
#include <stdlib.h>

#include "base/error.h"
#include "pool/repair.h"

/* --- pa_check over what the plan would make ------------------------------------------------------------------------------- */

static void lay_over(void *context, const struct dir *d, enum file_op op, const char *name, uint64_t offset,
                     uint64_t size, void *address, const char *site)
{
    (void)d, (void)site;
    if ((op == FILE_OP_MAP || op == FILE_OP_READ) && address != NULL)
        repair_overlay(context, name, offset, size, address);
}

/* The files are mapped privately, so the patches reach nobody else. */
static int check_plan(struct repair *r, char **ret_report)
{
    struct file_hooks hooks = {.context = r, .after = lay_over};
    struct pool_params params = {.hooks = &hooks, .locked = true, .members_known = r->members_fixed};
    return pool_check_ex(r->path, &params, ret_report);
}

/* --- planning ------------------------------------------------------------------------------------------------------------- */

static void plan(struct repair *r)
{
    void (*const parts[])(struct repair * r) = {repair_files,   repair_lanes,        repair_slabs,
                                                repair_indexes, repair_files_finish, repair_roots};
    for (size_t i = 0; r->failed == 0 && r->refused == 0 && i < sizeof parts / sizeof *parts; i++)
        parts[i](r);
}

static void report_lines(struct repair *r, const char *what, const char *lines)
{
    const char *end;
    for (; (end = strchr(lines, '\n')) != NULL; lines = end + 1)
        if (strncmp(lines, "note: ", 6) != 0)
            fprintf(r->text, "%s%.*s\n", what, (int)(end - lines), lines);
}

static int refusal(const struct repair *r)
{
    return error_set(
        PA_ECORRUPT,
        "the pool in %s cannot be repaired, and nothing was changed; the report says why; restore it from a backup",
        r->path);
}

/* An unsound pool: a plan after which pa_check finds nothing, or none. */
static int plan_and_check(struct repair *r)
{
    char *report = NULL;
    plan(r);
    if (r->failed != 0)
        return r->failed;
    if (r->refused != 0)
        return refusal(r);
    int code = check_plan(r, &report);
    if (code == PA_ECORRUPT) {
        report_lines(r, "refused: it would still be unsound: ", report != NULL ? report : "");
        code = refusal(r);
    }
    free(report);
    return code;
}

/* --- all ------------------------------------------------------------------------------------------------------------------ */

static int begin(struct repair *r, const char *dir, const struct file_hooks *hooks)
{
    int code = dir_open(&r->dir, dir, false, false, hooks);
    if (code == 0)
        code = file_open(&r->dir, &r->file, POOL_FILE_NAME);
    if (code == PA_ENOENT && r->dir.fd >= 0)
        code = error_set(PA_ENOENT, "%s holds no pool (no " POOL_FILE_NAME ")", dir);
    return code == 0 ? file_lock(&r->dir, &r->file, false) : code;
}

static int repair(struct repair *r, const char *backup_dir, const struct file_hooks *hooks)
{
    char *report = NULL;
    bool resumed;
    int code = repair_resume(r, hooks, &resumed);
    if (code != 0)
        return code;
    code = check_plan(r, &report); /* nothing is planned yet */
    bool sound = code == 0;
    if (code == PA_ECORRUPT || code == PA_ENOENT) { /* the latter of a further directory */
        report_lines(r, "found: ", report != NULL ? report : "");
        code = 0;
    }
    free(report);
    if (code == 0)
        code = repair_view_open(r);
    if (code == 0 && !sound)
        code = plan_and_check(r);
    if (code == 0) {
        repair_find_strays(r);
        code = r->failed != 0 ? r->failed : r->refused != 0 ? refusal(r) : 0;
    }
    repair_view_close(r); /* before the files change */
    if (code == 0)
        code = repair_apply(r, backup_dir, hooks);
    if (code == 0) /* of an attempt that was cut off before it decided anything, or after its end */
        code = dir_unlink(&r->dir, REPAIR_REDO_NAME, false);
    return code;
}

int pool_repair_ex(const char *dir, const char *backup_dir, const struct file_hooks *hooks, char **ret_report)
{
    char *text = NULL;
    size_t size = 0;
    if (dir == NULL || dir[0] == '\0')
        return error_set(PA_EINVAL, "no directory named");
    struct repair r = {.path = dir,
                       .dir = {.fd = -1},
                       .file = {.fd = -1},
                       .view_dir = {.fd = -1},
                       .view_file = {.fd = -1}};
    r.text = open_memstream(&text, &size);
    if (r.text == NULL)
        return error_set(PA_ENOMEM, "no memory for the report");
    int code = begin(&r, dir, hooks);
    if (code == 0) {
        code = repair(&r, backup_dir, hooks);
        if (code == PA_ECORRUPT && r.refused == 0)
            repair_refuse(&r, "%s", pa_errormsg());
        if (code == PA_ECORRUPT)
            code = refusal(&r);
    }
    if (code == 0)
        fprintf(r.text, "%s: sound\n", dir);
    repair_plan_fini(&r);
    file_close(&r.dir, &r.file);
    dir_close(&r.dir);
    if (fclose(r.text) != 0)
        code = code != 0 ? code : error_set(PA_ENOMEM, "no memory for the report");
    if (ret_report != NULL)
        *ret_report = text;
    else
        free(text);
    return code;
}

int pa_repair(const char *dir, const char *backup_dir, char **ret_report)
{
    struct error_text before;
    error_save(&before);
    return error_end(pool_repair_ex(dir, backup_dir, NULL, ret_report), &before);
}
