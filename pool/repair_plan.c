/* SPDX-License-Identifier: BSD-3-Clause */
/* repair_plan.c -- patches and moves: collecting them, and carrying them out. The step table is in repair.h. */
#define XXH_INLINE_ALL
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <xxhash.h>

#include "base/error.h"
#include "pmem/file_copy.h"
#include "pool/repair.h"
#include "segment/members.h"

/* --- the report ----------------------------------------------------------------------------------------------------------- */

static void line(struct repair *r, const char *what, const char *format, va_list arguments)
{
    fputs(what, r->text);
    vfprintf(r->text, format, arguments);
    fputc('\n', r->text);
}

void repair_note(struct repair *r, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    line(r, "note: ", format, arguments);
    va_end(arguments);
}

void repair_did(struct repair *r, const char *format, ...)
{
    va_list arguments;
    r->done++;
    va_start(arguments, format);
    line(r, "repaired: ", format, arguments);
    va_end(arguments);
}

void repair_refuse(struct repair *r, const char *format, ...)
{
    va_list arguments;
    r->refused++;
    va_start(arguments, format);
    line(r, "refused: ", format, arguments);
    va_end(arguments);
}

void repair_fail(struct repair *r, int code)
{
    if (r->failed == 0)
        r->failed = code;
}

/* --- collecting ----------------------------------------------------------------------------------------------------------- */

/* Room for one more element; false and a sticky failure without memory. */
static bool grow(struct repair *r, void **list, size_t count, size_t *capacity, size_t element)
{
    if (count < *capacity)
        return true;
    size_t more = *capacity == 0 ? 16 : 2 * *capacity;
    void *larger = realloc(*list, more * element);
    if (larger == NULL) {
        repair_fail(r, error_set(PA_ENOMEM, "no memory to note what is to be repaired in %s", r->path));
        return false;
    }
    *list = larger;
    *capacity = more;
    return true;
}

void repair_patch_file(struct repair *r, const char *name, uint64_t offset, const void *bytes, size_t size)
{
    void *list = r->patches;
    bool room = grow(r, &list, r->patch_count, &r->patch_capacity, sizeof *r->patches);
    r->patches = list;
    if (!room)
        return;
    struct repair_patch *p = &r->patches[r->patch_count];
    *p = (struct repair_patch){.offset = offset, .size = (uint32_t)size, .bytes = malloc(size)};
    snprintf(p->name, sizeof p->name, "%s", name);
    if (p->bytes == NULL) {
        repair_fail(r, error_set(PA_ENOMEM, "no memory to note what is to be repaired in %s", r->path));
        return;
    }
    memcpy(p->bytes, bytes, size);
    r->patch_count++;
}

void repair_make_file(struct repair *r, const char *name, const void *bytes, size_t size)
{
    size_t before = r->patch_count;
    repair_patch_file(r, name, 0, bytes, size);
    if (r->patch_count > before)
        r->patches[before].whole = true;
}

void repair_patch(struct repair *r, void *address, const void *bytes, size_t size)
{
    const struct manager *m = &r->manager;
    uint64_t off = (uint64_t)((char *)address - m->base);
    uint32_t slot = (uint32_t)(off >> m->shift);
    if (slot < m->first_slot) {
        repair_patch_file(r, POOL_FILE_NAME, off, bytes, size);
    } else {
        const struct segment *s = manager_segment(m, slot);
        repair_patch_file(r, s->file.name, off - ((uint64_t)s->slot << m->shift), bytes, size);
    }
    media_write(&r->media, address, bytes, size);
}

void repair_move(struct repair *r, const char *name)
{
    void *list = r->moves;
    bool room = grow(r, &list, r->move_count, &r->move_capacity, sizeof *r->moves);
    r->moves = list;
    if (room)
        snprintf(r->moves[r->move_count++], REPAIR_NAME_BYTES, "%s", name);
}

void repair_plan_fini(struct repair *r)
{
    for (size_t i = 0; i < r->patch_count; i++)
        free(r->patches[i].bytes);
    free(r->patches);
    free(r->moves);
    r->patches = NULL;
    r->moves = NULL;
    r->patch_count = r->patch_capacity = r->move_count = r->move_capacity = 0;
}

void repair_overlay(const struct repair *r, const char *name, uint64_t offset, uint64_t size, void *buffer)
{
    for (size_t i = 0; i < r->patch_count; i++) {
        const struct repair_patch *p = &r->patches[i];
        uint64_t from = p->offset > offset ? p->offset : offset;
        uint64_t end = p->offset + p->size < offset + size ? p->offset + p->size : offset + size;
        if (from < end && strcmp(p->name, name) == 0)
            memcpy((char *)buffer + (from - offset), p->bytes + (from - p->offset), end - from);
    }
}

/* --- step 1: the copy ----------------------------------------------------------------------------------------------------- */

static int patch_order(const void *a, const void *b)
{
    const struct repair_patch *x = *(const struct repair_patch *const *)a, *y = *(const struct repair_patch *const *)b;
    int names = strcmp(x->name, y->name);
    return names != 0 ? names : (x->offset > y->offset) - (x->offset < y->offset);
}

static int copy_range(struct repair *r, struct file *in, struct dir *backup, struct file *out, uint64_t from,
                      uint64_t end)
{
    char page[POOL_PAGE_BYTES];
    for (uint64_t at = from & ~(uint64_t)(sizeof page - 1); at < end; at += sizeof page) {
        size_t n = in->size - at < sizeof page ? (size_t)(in->size - at) : sizeof page;
        int code = file_read(&r->dir, in, at, page, n);
        if (code == 0)
            code = file_write(backup, out, at, page, n);
        if (code != 0)
            return code;
    }
    return 0;
}

/* A file of the same name and size with the old bytes of all pages that change at their offsets, of pool.pa all bytes. */
static int back_up_file(struct repair *r, struct dir *backup, struct repair_patch *const *patches, size_t n)
{
    struct file in = {.fd = -1}, out = {.fd = -1};
    const char *name = patches[0]->name;
    bool whole = strcmp(name, POOL_FILE_NAME) == 0 || patches[0]->whole;
    int code = file_open(&r->dir, &in, name);
    if (code == PA_ENOENT && patches[0]->whole)
        return 0; /* it is made anew because it is missing */
    if (code == 0)
        code = file_create(backup, &out, name, in.size, true);
    if (code == 0 && whole)
        code = copy_range(r, &in, backup, &out, 0, in.size);
    else
        for (size_t i = 0; code == 0 && i < n; i++)
            code = copy_range(r, &in, backup, &out, patches[i]->offset, patches[i]->offset + patches[i]->size);
    if (code == 0)
        code = file_sync(backup, &out);
    if (code == 0 && strchr(name, '/') != NULL)
        code = dir_sync_of(backup, name);
    file_close(&r->dir, &in);
    file_close(backup, &out);
    return code;
}

static int back_up_files(struct repair *r, struct dir *backup)
{
    struct repair_patch **sorted = malloc((r->patch_count + 1) * sizeof(struct repair_patch *));
    if (sorted == NULL)
        return error_set(PA_ENOMEM, "no memory to copy what is to be repaired in %s", r->path);
    for (size_t i = 0; i < r->patch_count; i++)
        sorted[i] = &r->patches[i];
    qsort(sorted, r->patch_count, sizeof *sorted, patch_order);
    int code = 0;
    for (size_t i = 0, n; code == 0 && i < r->patch_count; i += n) {
        for (n = 1; i + n < r->patch_count && strcmp(sorted[i]->name, sorted[i + n]->name) == 0;)
            n++;
        code = back_up_file(r, backup, sorted + i, n);
    }
    free(sorted);
    return code == 0 ? dir_sync(backup) : code;
}

/* A new directory in parent, named after the time. */
static int make_backup_dir(const char *parent, const struct file_hooks *hooks, struct dir *ret)
{
    char stamp[32], path[4096];
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm) == NULL || strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &tm) == 0)
        snprintf(stamp, sizeof stamp, "%lld", (long long)now);
    for (unsigned i = 0; i < 1000; i++) {
        int n = i == 0 ? snprintf(path, sizeof path, "%s/repair-%s", parent, stamp)
                       : snprintf(path, sizeof path, "%s/repair-%s-%u", parent, stamp, i);
        if (n < 0 || (size_t)n >= sizeof path)
            return error_set(PA_EINVAL, "the name of the backup directory %s is too long", parent);
        int code = dir_open(ret, path, false, false, NULL);
        if (code == 0) { /* somebody else's, or of an attempt that was cut off */
            dir_close(ret);
            continue;
        }
        return code == PA_ENOENT ? dir_open(ret, path, true, false, hooks) : code;
    }
    return error_set(PA_EEXIST, "%s holds too many backups of the same second; try again", parent);
}

/* Places for what comes from further directories. Their names are durable. */
static int make_parts(const struct repair *r, const struct dir *backup, const struct file_hooks *hooks)
{
    int code = 0;
    for (uint32_t k = 1; code == 0 && k <= r->directories; k++) {
        char path[4096 + 32], name[32];
        struct dir part;
        members_dir_name(name, k);
        snprintf(path, sizeof path, "%s/%s", backup->path, name);
        code = dir_open(&part, path, true, false, hooks);
        if (code == 0)
            dir_close(&part);
    }
    return code;
}

static int open_backup(struct repair *r, const char *backup_dir, const struct file_hooks *hooks, struct dir *ret)
{
    struct dir parent;
    int code = dir_open(&parent, backup_dir != NULL ? backup_dir : r->path, backup_dir != NULL, false, hooks);
    if (code != 0)
        return code;
    code = make_backup_dir(parent.path, hooks, ret);
    if (code == 0) {
        code = dir_sync(&parent); /* the copies are of no use without their directory's name */
        if (code == 0)
            code = make_parts(r, ret, hooks);
        if (code != 0)
            dir_close(ret);
    }
    dir_close(&parent);
    return code;
}

/* --- step 2: the redo file ------------------------------------------------------------------------------------------------ */

#define REDO_MAGIC 0x314f444552415031u /* "1PAREDO1" */

struct redo_header {
    uint64_t magic, checksum; /* checksum: XXH3 of all that follows */
    uint64_t bytes, records;
    char backup[4096];
};
struct redo_record {
    char name[REPAIR_NAME_BYTES];
    uint64_t offset;
    uint32_t size, what; /* size bytes follow; enum redo_what */
};
enum redo_what {
    REDO_PATCH,
    REDO_MOVE, /* into the backup directory, size is 0 */
    REDO_MAKE  /* the whole file */
};

static size_t redo_bytes(const struct repair *r)
{
    size_t n = sizeof(struct redo_header) + r->move_count * sizeof(struct redo_record);
    for (size_t i = 0; i < r->patch_count; i++)
        n += sizeof(struct redo_record) + r->patches[i].size;
    return n;
}

static char *put_record(char *to, const char *name, uint64_t offset, uint32_t size, enum redo_what what,
                        const void *bytes)
{
    struct redo_record record = {.offset = offset, .size = size, .what = what};
    snprintf(record.name, sizeof record.name, "%s", name);
    memcpy(to, &record, sizeof record);
    if (size != 0)
        memcpy(to + sizeof record, bytes, size);
    return to + sizeof record + size;
}

static uint64_t redo_checksum(const char *redo, size_t bytes)
{
    size_t from = offsetof(struct redo_header, bytes);
    return XXH3_64bits(redo + from, bytes - from);
}

/* The whole redo file in memory; the caller frees it. NULL without memory. */
static char *make_redo(const struct repair *r, const char *backup, size_t *ret_bytes)
{
    size_t bytes = redo_bytes(r);
    char *redo = calloc(1, bytes);
    if (redo == NULL)
        return NULL;
    struct redo_header *h = (struct redo_header *)redo;
    *h = (struct redo_header){.magic = REDO_MAGIC, .bytes = bytes, .records = r->patch_count + r->move_count};
    snprintf(h->backup, sizeof h->backup, "%s", backup);
    char *to = redo + sizeof *h;
    for (size_t i = 0; i < r->patch_count; i++)
        to = put_record(to, r->patches[i].name, r->patches[i].offset, r->patches[i].size,
                        r->patches[i].whole ? REDO_MAKE : REDO_PATCH, r->patches[i].bytes);
    for (size_t i = 0; i < r->move_count; i++)
        to = put_record(to, r->moves[i], 0, 0, REDO_MOVE, NULL);
    h->checksum = redo_checksum(redo, bytes);
    *ret_bytes = bytes;
    return redo;
}

static int write_redo(struct repair *r, const char *redo, size_t bytes)
{
    struct file f = {.fd = -1};
    int code = dir_unlink(&r->dir, REPAIR_REDO_NAME, false); /* of an attempt that decided nothing */
    if (code == 0)
        code = file_create(&r->dir, &f, REPAIR_REDO_NAME, bytes, false);
    if (code == 0)
        code = file_write(&r->dir, &f, 0, redo, bytes);
    if (code == 0)
        code = file_sync(&r->dir, &f);
    if (code == 0)
        code = dir_sync(&r->dir);
    file_close(&r->dir, &f);
    return code;
}

/* In the pool's directory, or in a further one. */
static bool is_name(const char *name)
{
    unsigned number;
    const char *slash = strchr(name, '/');
    return slash == NULL ||
           (sscanf(name, "dir-%2u/", &number) == 1 && strchr(slash + 1, '/') == NULL && slash[1] != '.');
}

/* Everything that the checksum does not promise: it was written by this code, so only sizes are looked at. */
static bool redo_is_valid(const char *redo, size_t bytes)
{
    const struct redo_header *h = (const struct redo_header *)redo;
    if (bytes < sizeof *h || h->magic != REDO_MAGIC || h->bytes != bytes || h->checksum != redo_checksum(redo, bytes) ||
        memchr(h->backup, 0, sizeof h->backup) == NULL)
        return false;
    size_t at = sizeof *h;
    for (uint64_t i = 0; i < h->records; i++) {
        struct redo_record record;
        if (bytes - at < sizeof record)
            return false;
        memcpy(&record, redo + at, sizeof record);
        at += sizeof record;
        if (record.size > bytes - at || memchr(record.name, 0, sizeof record.name) == NULL || !is_name(record.name))
            return false;
        at += record.size;
    }
    return at == bytes;
}

static int read_redo(struct repair *r, char **ret, size_t *ret_bytes)
{
    struct file f;
    int code = file_open(&r->dir, &f, REPAIR_REDO_NAME);
    if (code != 0)
        return code;
    char *redo = malloc(f.size + 1);
    if (redo == NULL)
        code = error_set(PA_ENOMEM, "no memory to read %s/" REPAIR_REDO_NAME, r->path);
    if (code == 0)
        code = file_read(&r->dir, &f, 0, redo, f.size);
    if (code == 0 && !redo_is_valid(redo, f.size))
        code = error_set(PA_ECORRUPT, "%s/" REPAIR_REDO_NAME " is damaged", r->path);
    *ret_bytes = f.size;
    file_close(&r->dir, &f);
    if (code != 0)
        free(redo);
    else
        *ret = redo;
    return code;
}

/* --- steps 3 to 6 --------------------------------------------------------------------------------------------------------- */

static int set_magic(struct repair *r, uint64_t magic)
{
    int code = file_write(&r->dir, &r->file, 0, &magic, sizeof magic);
    return code == 0 ? file_sync(&r->dir, &r->file) : code;
}

static int write_record(struct repair *r, struct file *f, const struct redo_record *record, const char *bytes)
{
    int code = 0;
    if (strcmp(f->name, record->name) != 0 || f->fd < 0) {
        if (f->fd >= 0)
            code = file_sync(&r->dir, f);
        file_close(&r->dir, f);
        if (code == 0)
            code = file_open(&r->dir, f, record->name);
    }
    uint64_t skip = 0; /* the magic comes last of all */
    if (strcmp(record->name, POOL_FILE_NAME) == 0 && record->offset < sizeof(uint64_t))
        skip = sizeof(uint64_t) - record->offset < record->size ? sizeof(uint64_t) - record->offset : record->size;
    if (code == 0)
        code = file_write(&r->dir, f, record->offset + skip, bytes + skip, record->size - skip);
    return code;
}

static int make_record(struct repair *r, const struct redo_record *record, const char *bytes)
{
    struct file f = {.fd = -1};
    char fresh[REPAIR_NAME_BYTES + 4];
    snprintf(fresh, sizeof fresh, "%s.new", record->name);
    int code = dir_unlink(&r->dir, fresh, false);
    if (code == 0)
        code = file_create(&r->dir, &f, fresh, record->size, true);
    if (code == 0)
        code = file_write(&r->dir, &f, 0, bytes, record->size);
    if (code == 0)
        code = file_sync(&r->dir, &f); /* before it has its name */
    file_close(&r->dir, &f);
    if (code == 0)
        code = dir_rename(&r->dir, fresh, record->name);
    return code == 0 ? dir_sync_of(&r->dir, record->name) : code;
}

static int carry_out(struct repair *r, const char *redo, struct dir *backup)
{
    const struct redo_header *h = (const struct redo_header *)redo;
    struct file f = {.fd = -1};
    size_t at = sizeof *h;
    int code = set_magic(r, SUPERBLOCK_MAGIC_REPAIR); /* before any change: a half-repaired pool must not open */
    for (uint64_t i = 0; code == 0 && i < h->records; i++) {
        struct redo_record record;
        memcpy(&record, redo + at, sizeof record);
        at += sizeof record;
        if (record.what == REDO_PATCH)
            code = write_record(r, &f, &record, redo + at);
        else
            code =
                record.what == REDO_MOVE ? dir_move(&r->dir, backup, record.name) : make_record(r, &record, redo + at);
        at += record.size;
    }
    if (code == 0 && f.fd >= 0)
        code = file_sync(&r->dir, &f);
    file_close(&r->dir, &f);
    if (code == 0)
        code = set_magic(r, SUPERBLOCK_MAGIC); /* after all changes are durable */
    if (code == 0)
        code = dir_unlink(&r->dir, REPAIR_REDO_NAME, false);
    return code == 0 ? dir_sync(&r->dir) : code;
}

int repair_apply(struct repair *r, const char *backup_dir, const struct file_hooks *hooks)
{
    if (r->patch_count == 0 && r->move_count == 0)
        return 0;
    struct dir backup;
    char *redo = NULL;
    size_t bytes = 0;
    int code = open_backup(r, backup_dir, hooks, &backup);
    if (code != 0)
        return code;
    code = back_up_files(r, &backup);
    if (code == 0) {
        char *absolute = realpath(backup.path, NULL);
        if (absolute == NULL)
            code = error_set_errno(errno, "cannot find the full path of %s", backup.path);
        redo = absolute == NULL ? NULL : make_redo(r, absolute, &bytes);
        free(absolute);
        if (code == 0)
            code = redo == NULL ? error_set(PA_ENOMEM, "no memory for the redo file of %s", r->path)
                                : write_redo(r, redo, bytes);
    }
    if (code == 0)
        code = carry_out(r, redo, &backup);
    if (code == 0)
        repair_note(r, "what was changed is kept in %s", backup.path);
    free(redo);
    dir_close(&backup);
    return code;
}

int repair_resume(struct repair *r, const struct file_hooks *hooks, bool *ret_did)
{
    uint64_t magic = 0;
    *ret_did = false;
    /* A killed repair may have left the magic in the cache only. It must not come back once the redo file is gone. */
    int code = file_sync(&r->dir, &r->file);
    if (code == 0)
        code = file_read(&r->dir, &r->file, 0, &magic, sizeof magic);
    if (code != 0 && code != PA_ECORRUPT)
        return code;
    if (magic != SUPERBLOCK_MAGIC_REPAIR)
        return 0; /* a redo file that is there all the same decided nothing, or is done with */
    char *redo = NULL;
    size_t bytes = 0;
    struct dir backup = {.fd = -1};
    code = read_redo(r, &redo, &bytes);
    if (code == PA_ENOENT || code == PA_ECORRUPT) {
        repair_refuse(r,
                      "a repair was cut off and its " REPAIR_REDO_NAME " is missing or damaged; put the files of its "
                      "backup directory back");
        return error_set(PA_ECORRUPT,
                         "%s/" REPAIR_REDO_NAME " is missing or damaged, so the repair that was cut off cannot be "
                         "finished; put the files of its backup directory back",
                         r->path);
    }
    if (code != 0)
        return code;
    code = dir_open(&backup, ((const struct redo_header *)redo)->backup, true, false, hooks);
    if (code == 0)
        code = carry_out(r, redo, &backup);
    if (code == 0) {
        *ret_did = true;
        repair_did(r, "a repair that had been cut off was finished; what it changed is kept in %s", backup.path);
    }
    free(redo);
    dir_close(&backup);
    return code;
}
