/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scenarios_self.c -- the explorer's own test: a commit protocol so small that its right form is plainly right, and each way
 * to break it. The right forms must be passed and every broken one found.
 *
 * The file: line 0 names the current version, lines 2 and 3 hold eight words each of even and odd versions, line 1 is a log
 * {value, valid}, line 4 holds a record whose first word says that the rest is there.
 */
#include <stdio.h>
#include <string.h>

#include "tests/explore/scenarios.h"

#define CELL_FILE  "cell"
#define CELL_BYTES 4096u
#define RESERVE    (1u << 21)

enum variant {
    RIGHT,
    RIGHT_NT,
    RIGHT_FILE,
    RIGHT_REDO,
    MISSING_FLUSH,
    MISSING_FENCE,
    SWAPPED,
    EARLY_EVICTION,
    MISSING_LAST_FENCE,
    NT_WITHOUT_FENCE,
    TORN_RECORD,
    MISSING_FILE_SYNC,
    MISSING_DIR_SYNC,
    REDO_TWICE,
    BYPASS,
    OTHER_THREAD_DRAINS,
    RIGHT_LOOK,
    TRUSTS_CACHE
};

struct cell {
    struct dir dir;
    struct file file;
    struct media media;
    struct media_tally tally;
    uint64_t *words;
};

static uint64_t *line_at(struct cell *c, unsigned line)
{
    return c->words + line * 8;
}

static int cell_open(struct cell *c, const char *path, struct recorder *r, bool create, const char *name)
{
    memset(c, 0, sizeof *c);
    int code = dir_open(&c->dir, path, false, false, &r->hooks);
    if (code == 0)
        code = dir_reserve(&c->dir, RESERVE, RESERVE, RESERVE);
    if (code == 0)
        code = create ? file_create(&c->dir, &c->file, name, CELL_BYTES, false) : file_open(&c->dir, &c->file, name);
    if (code == 0 && c->file.size != CELL_BYTES)
        code = PA_ECORRUPT;
    if (code == 0)
        code = file_map(&c->dir, &c->file, 0);
    if (code == 0)
        code = media_init(&c->media, &c->dir, &c->file, PA_DURABILITY_AUTO);
    c->media.mode = MEDIA_RECORD;
    c->media.recorder = &r->media;
    c->words = c->file.address;
    return code;
}

static void cell_close(struct cell *c)
{
    file_close(&c->dir, &c->file);
    dir_close(&c->dir);
}

static void fill_line(struct cell *c, unsigned line, uint64_t version)
{
    for (unsigned i = 0; i < 8; i++)
        media_store64(&c->media, &line_at(c, line)[i], version);
}

static void *drain_elsewhere(void *arg)
{
    struct cell *c = arg;
    media_drain(&c->media, &c->tally);
    return NULL;
}

/* One update to a version: the line that is not current, then the commit word. */
static void update(struct cell *c, enum variant v, uint64_t version)
{
    unsigned data = 2 + (unsigned)(version % 2);
    uint64_t *commit = line_at(c, 0);
    if (v == SWAPPED || v == EARLY_EVICTION)
        media_store64(&c->media, commit, version);
    if (v == SWAPPED)
        media_persist(&c->media, &c->tally, commit, 8);
    if (v == RIGHT_NT || v == NT_WITHOUT_FENCE) {
        _Alignas(64) uint64_t words[8];
        for (unsigned i = 0; i < 8; i++)
            words[i] = version;
        media_copy_line(&c->media, &c->tally, line_at(c, data), words);
    } else {
        fill_line(c, data, version);
        if (v != MISSING_FLUSH)
            media_flush(&c->media, &c->tally, line_at(c, data), 64);
    }
    if (v == OTHER_THREAD_DRAINS) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, drain_elsewhere, c) == 0)
            pthread_join(thread, NULL);
    } else if (v != MISSING_FENCE && v != NT_WITHOUT_FENCE) {
        media_drain(&c->media, &c->tally); /* before the commit word, which says that the data are there */
    }
    if (v != SWAPPED && v != EARLY_EVICTION)
        media_store64(&c->media, commit, version);
    if (v == BYPASS)
        line_at(c, 0)[5] = version;
    media_flush(&c->media, &c->tally, commit, 64);
    if (v != MISSING_LAST_FENCE)
        media_drain(&c->media, &c->tally);
}

/* A record in one line: its first word is stored last, so a prefix never has it alone. */
static void update_record(struct cell *c, uint64_t version)
{
    uint64_t *record = line_at(c, 4);
    for (unsigned i = 0; i < 8; i++)
        media_store64(&c->media, &record[i], version); /* broken: ascending, the word that commits comes first */
    media_persist(&c->media, &c->tally, record, 64);
}

/* Log, then apply. The log holds the new value, or, broken, "one more": that cannot be applied twice. */
static void redo(struct cell *c, enum variant v)
{
    uint64_t *log = line_at(c, 1), *value = line_at(c, 0);
    if (log[1] == 0)
        return;
    media_store64(&c->media, value, v == REDO_TWICE ? *value + 1 : log[0]);
    media_persist(&c->media, &c->tally, value, 8);
    media_store64(&c->media, &log[1], 0);
    media_persist(&c->media, &c->tally, log, 64);
}

static void update_logged(struct cell *c, enum variant v, uint64_t version)
{
    uint64_t *log = line_at(c, 1);
    media_store64(&c->media, &log[0], version);
    media_store64(&c->media, &log[1], 1);
    media_persist(&c->media, &c->tally, log, 64);
    redo(c, v);
}

/* Recovery makes line 3 a copy of line 2. If it finds the copy there it may be only in the cache, left by a recovery that was
 * killed: trusting it, and committing by line 0, is broken. */
static void copy_on_open(struct cell *c, enum variant v)
{
    uint64_t version = *line_at(c, 2);
    if (v != RIGHT_LOOK && v != TRUSTS_CACHE)
        return;
    if (*line_at(c, 3) != version || v == RIGHT_LOOK) {
        fill_line(c, 3, version);
        media_flush(&c->media, &c->tally, line_at(c, 3), 64);
    }
    media_drain(&c->media, &c->tally);
    media_store64(&c->media, line_at(c, 0), version);
    media_persist(&c->media, &c->tally, line_at(c, 0), 8);
}

static void update_copied(struct cell *c, uint64_t version)
{
    for (unsigned i = 8; i-- > 0;)
        media_store64(&c->media, &line_at(c, 2)[i], version); /* the first word commits */
    media_persist(&c->media, &c->tally, line_at(c, 2), 64);
}

/* A new file under a temporary name, then renamed over the old one. */
static int update_file(struct cell *c, struct history *h, enum variant v, uint64_t version)
{
    struct cell fresh;
    int code = cell_open(&fresh, h->dir, &h->recorder, true, CELL_FILE ".new");
    if (code == 0) {
        media_store64(&fresh.media, line_at(&fresh, 0), version);
        media_persist(&fresh.media, &fresh.tally, line_at(&fresh, 0), 8);
        if (v != MISSING_FILE_SYNC)
            code = file_sync(&fresh.dir, &fresh.file);
    }
    if (code == 0)
        code = dir_rename(&fresh.dir, CELL_FILE ".new", CELL_FILE);
    if (code == 0 && v != MISSING_DIR_SYNC)
        code = dir_sync(&fresh.dir);
    cell_close(c);
    *c = fresh;
    return code;
}

static int run_self(struct history *h)
{
    enum variant v = h->scenario->variant;
    struct cell c;
    int code = cell_open(&c, h->dir, &h->recorder, true, CELL_FILE);
    if (code == 0)
        code = file_sync(&c.dir, &c.file);
    if (code == 0)
        code = dir_sync(&c.dir);
    history_from_here(h);
    for (uint64_t version = 1; code == 0 && version <= 6; version++) {
        size_t op = history_begin(h, "update to %llu", (unsigned long long)version);
        history_change(h, op, 0, (struct value){version - 1, 0}, (struct value){version, 0});
        if (v == RIGHT_REDO || v == REDO_TWICE)
            update_logged(&c, v, version);
        else if (v == RIGHT_FILE || v == MISSING_FILE_SYNC || v == MISSING_DIR_SYNC)
            code = update_file(&c, h, v, version);
        else if (v == RIGHT_LOOK || v == TRUSTS_CACHE)
            update_copied(&c, version);
        else if (v == TORN_RECORD)
            update_record(&c, version);
        else
            update(&c, v, version);
        history_end(h, op);
    }
    cell_close(&c);
    return code;
}

static bool read_cell(struct judge *j, uint32_t number, struct value *ret, void *arg)
{
    (void)number;
    struct cell *c = arg;
    enum variant v = j->history->scenario->variant;
    unsigned line = v == TORN_RECORD                       ? 4
                    : v == RIGHT_LOOK || v == TRUSTS_CACHE ? 3
                                                           : 0; /* line 3: opening has made it */
    uint64_t version = *line_at(c, line);
    bool plain =
        v != RIGHT_REDO && v != REDO_TWICE && v != RIGHT_FILE && v != MISSING_FILE_SYNC && v != MISSING_DIR_SYNC;
    if (plain && line == 0)
        line = 2 + (unsigned)(version % 2);
    for (unsigned i = 0; plain && version != 0 && i < 8; i++)
        if (line_at(c, line)[i] != version) {
            judge_fail(j, "word %u of version %llu is %llu", i, (unsigned long long)version,
                       (unsigned long long)line_at(c, line)[i]);
            return false;
        }
    *ret = (struct value){version, 0};
    return true;
}

static void judge_self(struct judge *j, enum judge_phase phase)
{
    struct cell c;
    if (phase == JUDGE_FILL)
        return;
    int code = cell_open(&c, j->dir, j->recorder, false, CELL_FILE);
    if (code != 0) {
        judge_fail(j, "open: %d", code);
    } else {
        redo(&c, j->history->scenario->variant);
        if (*line_at(&c, 0) != 0 && *line_at(&c, 3) != *line_at(&c, 0) && j->history->scenario->variant == TRUSTS_CACHE)
            judge_fail(j, "line 0 says %llu is copied, but line 3 is %llu", (unsigned long long)*line_at(&c, 0),
                       (unsigned long long)*line_at(&c, 3));
        copy_on_open(&c, j->history->scenario->variant);
        judge_cells(j, &(struct cells){.read = read_cell, .arg = &c});
    }
    cell_close(&c);
}

#define SELF(NAME, VARIANT, TITLE, BROKEN)                                                                             \
    const struct scenario scenario_self_##NAME = {.name = "self-" #NAME,                                               \
                                                  .title = TITLE,                                                      \
                                                  .run = run_self,                                                     \
                                                  .judge = judge_self,                                                 \
                                                  .variant = VARIANT,                                                  \
                                                  .nested_every = 1,                                                   \
                                                  .self_test = true,                                                   \
                                                  .broken = BROKEN}

SELF(right, RIGHT, "data, fence, commit word, fence", false);
SELF(right_nt, RIGHT_NT, "the same by non-temporal stores", false);
SELF(right_file, RIGHT_FILE, "new file, synced, renamed over the old one", false);
SELF(right_redo, RIGHT_REDO, "logged value, applied again after a crash", false);
SELF(right_look, RIGHT_LOOK, "recovery makes a copy, again at each opening", false);
SELF(missing_flush, MISSING_FLUSH, "the data are not written back", true);
SELF(missing_fence, MISSING_FENCE, "no fence before the commit word", true);
SELF(swapped, SWAPPED, "the commit word comes first", true);
SELF(early_eviction, EARLY_EVICTION, "the commit word is stored early and flushed late", true);
SELF(missing_last_fence, MISSING_LAST_FENCE, "no fence after the commit word", true);
SELF(nt_without_fence, NT_WITHOUT_FENCE, "a non-temporal copy without its fence", true);
SELF(torn_record, TORN_RECORD, "the word that commits is stored first in its line", true);
SELF(missing_file_sync, MISSING_FILE_SYNC, "the new file's size is not durable at the rename", true);
SELF(missing_dir_sync, MISSING_DIR_SYNC, "the rename is not durable at the end", true);
SELF(redo_twice, REDO_TWICE, "recovery adds one, and may crash and add it again", true);
SELF(bypass, BYPASS, "a store that no helper announces", true);
SELF(other_thread_drains, OTHER_THREAD_DRAINS, "the fence is another thread's", true);
SELF(trusts_cache, TRUSTS_CACHE, "recovery trusts what a killed recovery left in the cache", true);
