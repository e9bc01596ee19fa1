/* SPDX-License-Identifier: BSD-3-Clause */
/* recorder.c -- see recorder.h. */
#include "tests/explore/recorder.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/explore/steps.h"

static const char *const kind_names[TRACE_KINDS] = {
    [TRACE_STORE] = "store",   [TRACE_STORE_NT] = "store-nt", [TRACE_FLUSH] = "flush",   [TRACE_DRAIN] = "drain",
    [TRACE_CREATE] = "create", [TRACE_RESIZE] = "allocate",   [TRACE_PUNCH] = "punch",   [TRACE_SYNC] = "sync",
    [TRACE_WRITE] = "write",   [TRACE_MAKE_DIR] = "make-dir", [TRACE_LINK] = "link",     [TRACE_UNLINK] = "unlink",
    [TRACE_RENAME] = "rename", [TRACE_SYNC_DIR] = "sync-dir", [TRACE_SETTLE] = "settle", [TRACE_BEGIN] = "begin",
    [TRACE_END] = "end",
};

const char *trace_kind_name(enum trace_kind kind)
{
    return kind_names[kind];
}

static void *grow(void *array, size_t *capacity, size_t needed, size_t element)
{
    if (needed <= *capacity)
        return array;
    size_t wanted = *capacity == 0 ? 256 : *capacity * 2;
    while (wanted < needed)
        wanted *= 2;
    void *bigger = realloc(array, wanted * element);
    if (bigger == NULL)
        abort();
    *capacity = wanted;
    return bigger;
}

/* --- trace --------------------------------------------------------------------------------------------------------------- */

void trace_clear(struct trace *t)
{
    t->count = t->words_count = t->names_count = t->skips_count = 0;
}

void trace_fini(struct trace *t)
{
    free(t->events);
    free(t->words);
    free(t->names);
    free(t->skips);
    *t = (struct trace){0};
}

static struct trace_event *trace_add(struct trace *t, enum trace_kind kind, unsigned site)
{
    t->events = grow(t->events, &t->capacity, t->count + 1, sizeof *t->events);
    struct trace_event *e = &t->events[t->count++];
    *e = (struct trace_event){.kind = (uint8_t)kind, .site = (uint16_t)site, .inode = INODE_NONE};
    return e;
}

static size_t trace_add_name(struct trace *t, const char *name)
{
    t->names = grow(t->names, &t->names_capacity, t->names_count + 1, sizeof *t->names);
    snprintf(t->names[t->names_count], NAME_BYTES, "%s", name);
    return t->names_count++;
}

static size_t trace_add_words(struct trace *t, const void *from, size_t words)
{
    t->words = grow(t->words, &t->words_capacity, t->words_count + words, sizeof *t->words);
    memcpy(&t->words[t->words_count], from, words * sizeof *t->words);
    size_t at = t->words_count;
    t->words_count += words;
    return at;
}

/* --- sites --------------------------------------------------------------------------------------------------------------- */

struct sites *sites_new(void)
{
    struct sites *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        abort();
    s->mutant = -1;
    return s;
}

static int find_site(const struct sites *s, const char *name, enum trace_kind kind)
{
    uint32_t count = __atomic_load_n(&s->count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++)
        if (s->at[i].kind == (uint32_t)kind && strcmp(s->at[i].name, name) == 0)
            return (int)i;
    return -1;
}

static unsigned add_site(struct sites *s, const char *name, enum trace_kind kind)
{
    while (__atomic_exchange_n(&s->lock, 1, __ATOMIC_ACQUIRE) != 0)
        ;
    int found = find_site(s, name, kind);
    if (found < 0) {
        if (s->count == SITES_MAX)
            abort();
        found = (int)s->count;
        snprintf(s->at[found].name, SITE_NAME_BYTES, "%s", name);
        s->at[found].kind = (uint32_t)kind;
        __atomic_store_n(&s->count, s->count + 1, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&s->lock, 0, __ATOMIC_RELEASE);
    return (unsigned)found;
}

unsigned site_intern(struct sites *s, const char *name, enum trace_kind kind)
{
    /* Site names are string literals, so their addresses identify them; a direct-mapped cache saves the comparisons. */
    static _Thread_local struct {
        const char *name;
        uint32_t kind, index;
    } cache[4096];
    size_t slot = ((uintptr_t)name * 31 + (uintptr_t)kind * 977) % 4096;
    if (cache[slot].name == name && cache[slot].kind == (uint32_t)kind)
        return cache[slot].index;
    int found = find_site(s, name, kind);
    unsigned index = found >= 0 ? (unsigned)found : add_site(s, name, kind);
    cache[slot].name = name;
    cache[slot].kind = (uint32_t)kind;
    cache[slot].index = index;
    return index;
}

int site_find(const struct sites *s, const char *text)
{
    for (uint32_t i = 0; i < s->count; i++) {
        char both[SITE_NAME_BYTES + 16];
        snprintf(both, sizeof both, "%s/%s", s->at[i].name, trace_kind_name(s->at[i].kind));
        if (strcmp(both, text) == 0)
            return (int)i;
    }
    return -1;
}

struct recorder_observer recorder_observer;

/* --- the recorder -------------------------------------------------------------------------------------------------------- */

static unsigned note_site(struct recorder *r, const char *name, enum trace_kind kind)
{
    unsigned index = site_intern(r->sites, name, kind);
    struct site *site = &r->sites->at[index];
    if ((site->seen & r->seen) != r->seen)
        __atomic_or_fetch(&site->seen, r->seen, __ATOMIC_RELAXED);
    uint64_t bit = UINT64_C(1) << (r->scenario % 64);
    if ((site->scenarios & bit) == 0)
        __atomic_or_fetch(&site->scenarios, bit, __ATOMIC_RELAXED);
    return index;
}

static unsigned thread_number(void)
{
    static uint32_t next;
    static _Thread_local unsigned number;
    if (number == 0)
        number = __atomic_add_fetch(&next, 1, __ATOMIC_RELAXED);
    return (number - 1) % 256;
}

static void set_problem(struct recorder *r, const char *what, const char *site, uint64_t offset, const char *name)
{
    if (r->problem[0] == '\0')
        snprintf(r->problem, sizeof r->problem, "%s at %s (%s offset 0x%llx)", what, site, name,
                 (unsigned long long)offset);
}

static struct range *find_range(struct recorder *r, const char *address)
{
    for (unsigned i = 0; i < r->ranges_count; i++) {
        unsigned k = (r->range_hit + i) % r->ranges_count;
        struct range *range = &r->ranges[k];
        if (address >= range->start && address < range->start + range->size) {
            r->range_hit = k;
            return range;
        }
    }
    return NULL;
}

static const char *name_of(const struct recorder *r, uint32_t inode)
{
    for (unsigned i = 0; i < r->names_count; i++)
        if (r->names[i].inode == inode)
            return r->names[i].name;
    return "(unnamed)";
}

/* The byte at an offset of the file. */
static char *range_byte(const struct range *range, uint64_t offset)
{
    return range->start + (offset - range->offset);
}

/* An event of this thread. */
static struct trace_event *add_event(struct recorder *r, enum trace_kind kind, unsigned site)
{
    struct trace_event *e = trace_add(r->trace, kind, site);
    e->thread = (uint8_t)thread_number();
    uint8_t judged = r->seen == SITE_SEEN_RECOVERY ? STEP_ENTRY_JUDGED : 0;
    e->step = (uint16_t)step_intern(r->sites, site, r->contexts[e->thread].entry | judged, r->contexts[e->thread].word);
    return e;
}

static bool is_pool_file(const struct recorder *r, uint32_t inode)
{
    const char *slash = strrchr(name_of(r, inode), '/');
    return slash != NULL && strncmp(slash + 1, "pool.pa", 7) == 0;
}

static void check_shadow_line(struct recorder *r, const struct range *range, uint64_t offset, const char *site)
{
    uint64_t line = offset & ~(uint64_t)(MEDIA_LINE_BYTES - 1);
    if (memcmp(range_byte(range, line), r->shadow[range->inode] + line, MEDIA_LINE_BYTES) == 0)
        return;
    set_problem(r, "a line holds stores that were not announced", site, line, name_of(r, range->inode));
}

static void record_store(struct recorder *r, enum trace_kind kind, const struct range *range, uint64_t offset,
                         uint64_t size, unsigned site)
{
    uint64_t first = offset & ~(uint64_t)(WORD_BYTES - 1);
    uint64_t end = (offset + size + WORD_BYTES - 1) & ~(uint64_t)(WORD_BYTES - 1);
    unsigned thread = thread_number();
    if (is_pool_file(r, range->inode) && range->offset == 0)
        step_note_store(range->start, first, &r->contexts[thread].entry, &r->contexts[thread].word);
    struct trace_event *e = add_event(r, kind, site);
    e->inode = range->inode;
    e->offset = first;
    e->size = end - first;
    e->data = trace_add_words(r->trace, range_byte(range, first), (size_t)(end - first) / WORD_BYTES);
    if (r->shadow != NULL)
        memcpy(r->shadow[range->inode] + first, range_byte(range, first), (size_t)(end - first));
}

static void record_flush(struct recorder *r, const struct range *range, uint64_t offset, uint64_t size, unsigned site,
                         const char *name)
{
    struct trace_event *e = add_event(r, TRACE_FLUSH, site);
    e->inode = range->inode;
    e->offset = offset;
    e->size = size;
    if (r->shadow == NULL)
        return;
    for (uint64_t at = offset & ~(uint64_t)(MEDIA_LINE_BYTES - 1); at < offset + size; at += MEDIA_LINE_BYTES)
        check_shadow_line(r, range, at, name);
}

/* An operation may reach from one mapping of a file into the next. */
static void record_address(struct recorder *r, enum trace_kind kind, const void *address, size_t size, const char *name,
                           unsigned site)
{
    const char *at = address;
    while (size > 0) {
        const struct range *range = find_range(r, at);
        if (range == NULL) {
            set_problem(r, kind == TRACE_FLUSH ? "a flush outside the pool" : "a store outside the pool", name, 0, "");
            return;
        }
        uint64_t within = (uint64_t)(at - range->start);
        size_t part = size < range->size - within ? size : (size_t)(range->size - within);
        if (kind == TRACE_FLUSH)
            record_flush(r, range, range->offset + within, part, site, name);
        else
            record_store(r, kind, range, range->offset + within, part, site);
        at += part;
        size -= part;
    }
}

bool recorder_has_space(struct recorder *r, const void *address, uint64_t size)
{
    const char *at = address;
    for (uint64_t done = 0; done < size;) {
        const struct range *range = find_range(r, at + done);
        if (range == NULL)
            return false;
        uint64_t within = (uint64_t)(at + done - range->start);
        uint64_t part = size - done < range->size - within ? size - done : range->size - within;
        if (holes_touch(&r->holes, range->inode, range->offset + within, range->offset + within + part))
            return false;
        done += part;
    }
    return true;
}

/* --- mutants ------------------------------------------------------------------------------------------------------------- */

bool recorder_is_swapped_with(enum trace_kind held, enum trace_kind next)
{
    bool names = next == TRACE_UNLINK || next == TRACE_RENAME;
    if (next == TRACE_END)
        return true;
    switch (held) {
    case TRACE_FLUSH:
    case TRACE_STORE_NT:
        return next == TRACE_DRAIN;
    case TRACE_DRAIN:
        return next == TRACE_FLUSH || next == TRACE_STORE_NT || names || next == TRACE_CREATE || next == TRACE_RESIZE ||
               next == TRACE_PUNCH;
    case TRACE_SYNC:
    case TRACE_SYNC_DIR:
        return next == TRACE_DRAIN || names;
    default:
        return false;
    }
}

/* Under lock. */
static void note_skip_locked(struct recorder *r)
{
    struct trace *t = r->trace;
    t->skips = grow(t->skips, &t->skips_capacity, t->skips_count + 1, sizeof *t->skips);
    t->skips[t->skips_count++] = t->count;
}

static void hold(struct recorder *r, size_t first)
{
    struct trace *t = r->trace;
    r->held = grow(r->held, &r->held_capacity, r->held_count + t->count - first, sizeof *r->held);
    for (size_t i = first; i < t->count; i++)
        r->held[r->held_count++] = (struct held_event){t->events[i], r->sites->late};
    t->count = first;
    note_skip_locked(r);
}

static void release_held(struct recorder *r, enum trace_kind next)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->held_count; i++) {
        struct held_event *h = &r->held[i];
        enum trace_kind kind = (enum trace_kind)h->event.kind;
        bool mine = h->event.thread == (uint8_t)thread_number();
        if (mine && recorder_is_swapped_with(kind, next) && --h->left == 0)
            *trace_add(r->trace, kind, h->event.site) = h->event;
        else
            r->held[kept++] = *h;
    }
    r->held_count = kept;
}

/* The events from `first` on were just recorded: a swapped mutant's are held back, others let go on what waited for them. */
static void apply_swap(struct recorder *r, unsigned site, enum trace_kind kind, size_t first)
{
    if (r->sites->late > 0 && (int)site == r->sites->mutant)
        hold(r, first);
    else if (r->held_count > 0)
        release_held(r, kind);
}

void recorder_opened(struct recorder *r)
{
    pthread_mutex_lock(&r->lock);
    release_held(r, TRACE_END);
    pthread_mutex_unlock(&r->lock);
}

void recorder_killed(struct recorder *r)
{
    r->held_count = 0;
}

/* --- events -------------------------------------------------------------------------------------------------------------- */

static const enum trace_kind kind_of_event[] = {
    [MEDIA_EVENT_STORE] = TRACE_STORE,
    [MEDIA_EVENT_STORE_NT] = TRACE_STORE_NT,
    [MEDIA_EVENT_FLUSH] = TRACE_FLUSH,
    [MEDIA_EVENT_DRAIN] = TRACE_DRAIN,
};

static void on_event(void *context, enum media_event event, const void *address, size_t size, const char *name)
{
    struct recorder *r = context;
    enum trace_kind kind = kind_of_event[event];
    if (recorder_observer.event != NULL)
        recorder_observer.event(event, address, size);
    if (r->off || (size == 0 && kind != TRACE_DRAIN))
        return;
    pthread_mutex_lock(&r->lock);
    unsigned site = note_site(r, name, kind);
    size_t first = r->trace->count;
    if (kind == TRACE_DRAIN)
        add_event(r, kind, site);
    else
        record_address(r, kind, address, size, name, site);
    apply_swap(r, site, kind, first);
    pthread_mutex_unlock(&r->lock);
    if (r->pause != NULL)
        r->pause();
}

static bool is_mutant(struct recorder *r, const char *name, enum trace_kind kind)
{
    return !r->off && r->sites->mutant >= 0 && (int)site_intern(r->sites, name, kind) == r->sites->mutant;
}

static bool skip(struct recorder *r, const char *name, enum trace_kind kind)
{
    if (r->sites->late > 0 || !is_mutant(r, name, kind))
        return false;
    pthread_mutex_lock(&r->lock);
    note_skip_locked(r);
    pthread_mutex_unlock(&r->lock);
    return true;
}

static bool on_skip(void *context, enum media_event event, const char *name)
{
    const struct recorder *r = context;
    if (r->dying && (event == MEDIA_EVENT_FLUSH || event == MEDIA_EVENT_DRAIN))
        return true;
    return skip(context, name, kind_of_event[event]);
}

/* --- file operations ----------------------------------------------------------------------------------------------------- */

static struct name_entry *find_name(struct recorder *r, const char *name)
{
    for (unsigned i = 0; i < r->names_count; i++)
        if (strncmp(r->names[i].name, name, NAME_BYTES) == 0)
            return &r->names[i];
    return NULL;
}

static void set_name(struct recorder *r, const char *name, uint32_t inode, const char *target)
{
    struct name_entry *entry = find_name(r, name);
    if (entry == NULL) {
        if (r->names_count == NAMES_MAX)
            abort();
        entry = &r->names[r->names_count++];
        snprintf(entry->name, NAME_BYTES, "%s", name);
    }
    entry->inode = inode;
    snprintf(entry->target, NAME_BYTES, "%s", target);
}

static void remove_name(struct recorder *r, const char *name)
{
    struct name_entry *entry = find_name(r, name);
    if (entry != NULL)
        *entry = r->names[--r->names_count];
}

/* The kept ranges are those that neither overlap [start, start + size) nor, if inode is one, belong to it. */
static void drop_ranges(struct recorder *r, const char *start, uint64_t size, uint32_t inode)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < r->ranges_count; i++) {
        const struct range *range = &r->ranges[i];
        bool overlaps = range->start < start + size && start < range->start + range->size;
        if (!overlaps && range->inode != inode)
            r->ranges[kept++] = *range;
    }
    r->ranges_count = kept;
    r->range_hit = 0;
}

static void add_range(struct recorder *r, char *start, uint64_t size, uint64_t offset, uint32_t inode)
{
    drop_ranges(r, start, size, offset == 0 ? inode : INODE_NONE);
    if (r->ranges_count == INODES_MAX)
        abort();
    r->ranges[r->ranges_count++] = (struct range){start, size, offset, inode};
}

static bool is_named(const struct recorder *r, uint32_t inode)
{
    bool found = false;
    for (unsigned i = 0; i < r->names_count; i++)
        found |= r->names[i].inode == inode;
    return found;
}

/* Files without a name are not mapped any more. */
static void drop_unnamed(struct recorder *r)
{
    for (unsigned i = r->ranges_count; i-- > 0;)
        if (!is_named(r, r->ranges[i].inode)) {
            drop_ranges(r, NULL, 0, r->ranges[i].inode);
            i = r->ranges_count;
        }
}

static void shadow_new(struct recorder *r, uint32_t inode)
{
    if (r->shadow == NULL || r->shadow[inode] != NULL)
        return;
    r->shadow[inode] =
        mmap(NULL, INODE_MAX_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r->shadow[inode] == MAP_FAILED)
        abort();
}

static uint32_t new_inode(struct recorder *r)
{
    if (r->next_inode == INODES_MAX) {
        set_problem(r, "too many files for the explorer", "", 0, "");
        return INODES_MAX - 1;
    }
    shadow_new(r, r->next_inode);
    return r->next_inode++;
}

/* The path from the world's root of a name in a directory of the library, or of the directory itself, if name is empty. */
static bool resolve(struct recorder *r, const struct dir *d, const char *name, char path[NAME_BYTES])
{
    char whole[PATH_BYTES];
    size_t root = strlen(r->root);
    int n = name[0] == '/' ? snprintf(whole, sizeof whole, "%s", name)
                           : snprintf(whole, sizeof whole, "%s/%s", d->path, strcmp(name, ".") == 0 ? "" : name);
    if (n < 0 || n >= (int)sizeof whole || strncmp(whole, r->root, root) != 0 || whole[root] != '/')
        return false;
    while (n > (int)root && whole[n - 1] == '/')
        whole[--n] = '\0';
    char *rest = (size_t)n == root ? whole + root : whole + root + 1;
    char *slash = strrchr(rest, '/');
    const struct name_entry *link = NULL;
    if (slash != NULL) { /* the library goes through links to directories only */
        *slash = '\0';
        link = find_name(r, rest);
        *slash = '/';
    }
    if (link != NULL && link->inode == INODE_LINK)
        n = snprintf(path, NAME_BYTES, "%s%s", link->target, slash);
    else
        n = snprintf(path, NAME_BYTES, "%s", rest);
    return n >= 0 && n < (int)NAME_BYTES;
}

/* The directory that a path names, which may be a link to it. */
static void follow(struct recorder *r, char path[NAME_BYTES])
{
    const struct name_entry *entry = find_name(r, path);
    if (entry != NULL && entry->inode == INODE_LINK)
        memmove(path, entry->target, NAME_BYTES);
}

static void parent_of(char path[NAME_BYTES])
{
    char *slash = strrchr(path, '/');
    *(slash == NULL ? path : slash) = '\0';
}

bool name_is_in(const char *name, const char *directory)
{
    const char *slash = strrchr(name, '/');
    size_t n = slash == NULL ? 0 : (size_t)(slash - name);
    return strlen(directory) == n && strncmp(name, directory, n) == 0;
}

/* The event of an operation on names; the name table is already as before the operation. */
static struct trace_event *add_name_event(struct recorder *r, enum trace_kind kind, const char *site_name,
                                          const char *name, const char *to, const char *target)
{
    unsigned site = note_site(r, site_name, kind);
    const struct name_entry *entry = find_name(r, name);
    uint32_t inode = entry == NULL ? INODE_NONE : entry->inode;
    size_t first = trace_add_name(r->trace, name);
    trace_add_name(r->trace, to);
    trace_add_name(r->trace, target);
    struct trace_event *e = add_event(r, kind, site);
    e->inode = inode;
    e->data = first;
    return e;
}

static void record_name_op(struct recorder *r, enum trace_kind kind, const char *name, const char *to,
                           const char *site_name)
{
    char target[NAME_BYTES] = "";
    const struct name_entry *entry = find_name(r, name);
    if (kind == TRACE_RENAME && entry != NULL)
        memcpy(target, entry->target, NAME_BYTES);
    else if (kind == TRACE_LINK)
        snprintf(target, sizeof target, "%s", to);
    struct trace_event *e = add_name_event(r, kind, site_name, name, to, target);
    if (kind == TRACE_CREATE)
        e->inode = new_inode(r);
    if (kind == TRACE_MAKE_DIR || kind == TRACE_LINK)
        e->inode = kind == TRACE_LINK ? INODE_LINK : INODE_DIRECTORY;
    uint32_t inode = e->inode;
    if (kind == TRACE_UNLINK || kind == TRACE_RENAME)
        remove_name(r, name);
    if (kind == TRACE_RENAME)
        set_name(r, to, inode, target);
    else if (kind != TRACE_UNLINK && kind != TRACE_SYNC_DIR)
        set_name(r, name, inode, target);
    if (kind == TRACE_UNLINK || kind == TRACE_RENAME)
        drop_unnamed(r);
}

/* An operation on a file's size, space or durability. */
static void record_space_op(struct recorder *r, enum trace_kind kind, const char *name, uint64_t offset, uint64_t size,
                            const char *site_name)
{
    struct trace_event *e = add_name_event(r, kind, site_name, name, "", "");
    e->offset = offset;
    e->size = size;
    if (!is_file(e->inode))
        return;
    if (kind == TRACE_RESIZE)
        holes_fill(&r->holes, e->inode, offset, offset + size);
    if (kind == TRACE_PUNCH)
        holes_add(&r->holes, e->inode, offset, offset + size);
    if (kind == TRACE_PUNCH && r->shadow != NULL)
        memset(r->shadow[e->inode] + offset, 0, size);
}

/* What was written is read back, in whole words. */
static void record_write(struct recorder *r, const char *name, uint64_t offset, uint64_t size, const char *site_name)
{
    char path[PATH_BYTES + NAME_BYTES];
    snprintf(path, sizeof path, "%s/%s", r->root, name);
    const struct name_entry *entry = find_name(r, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || entry == NULL || !is_file(entry->inode)) {
        set_problem(r, "a write to a file that was not created", site_name, offset, name);
    } else if (size > 0) {
        uint64_t first = offset & ~(uint64_t)(WORD_BYTES - 1);
        size_t words = (size_t)((offset + size - first + WORD_BYTES - 1) / WORD_BYTES);
        uint64_t *bytes = calloc(words, WORD_BYTES);
        if (bytes == NULL || pread(fd, bytes, words * WORD_BYTES, (off_t)first) < 0)
            abort();
        struct trace_event *e = add_event(r, TRACE_WRITE, note_site(r, site_name, TRACE_WRITE));
        e->inode = entry->inode;
        e->offset = first;
        e->size = words * WORD_BYTES;
        e->data = trace_add_words(r->trace, bytes, words);
        if (r->shadow != NULL)
            memcpy(r->shadow[entry->inode] + first, bytes, words * WORD_BYTES);
        free(bytes);
    }
    if (fd >= 0)
        close(fd);
}

/* A link's target is a directory of the world; its path there. */
static void record_link(struct recorder *r, const struct dir *d, const char *name, const char *target, const char *site)
{
    char to[NAME_BYTES];
    if (resolve(r, d, target, to))
        record_name_op(r, TRACE_LINK, name, to, site);
    else
        set_problem(r, "a link that leads out of the explorer's world", site, 0, target);
}

/* MAP makes no event, but is looked at; OPEN_DIR makes one if the directory was made. */
static const int kind_of_op[FILE_OP_COUNT] = {
    [FILE_OP_OPEN_DIR] = TRACE_MAKE_DIR,
    [FILE_OP_CREATE] = TRACE_CREATE,
    [FILE_OP_OPEN] = -1,
    [FILE_OP_STAT] = -1,
    [FILE_OP_ALLOCATE] = TRACE_RESIZE,
    [FILE_OP_PUNCH] = TRACE_PUNCH,
    [FILE_OP_MAP] = TRACE_KINDS,
    [FILE_OP_SYNC] = TRACE_SYNC,
    [FILE_OP_UNLINK] = TRACE_UNLINK,
    [FILE_OP_SYNC_DIR] = TRACE_SYNC_DIR,
    [FILE_OP_RENAME] = TRACE_RENAME,
    [FILE_OP_LOCK] = -1,
    [FILE_OP_RESERVE] = -1,
    [FILE_OP_READ] = -1,
    [FILE_OP_LIST] = -1,
    [FILE_OP_WRITE] = TRACE_WRITE,
};

static void record_file_op(struct recorder *r, const struct dir *d, enum file_op op, const char *name, uint64_t offset,
                           uint64_t size, void *address, const char *site)
{
    char path[NAME_BYTES], to[NAME_BYTES] = "";
    bool parent = op == FILE_OP_SYNC_DIR && strcmp(name, "..") == 0;
    if (op == FILE_OP_OPEN_DIR && size == 0)
        return;
    if (!resolve(r, d, parent ? "" : name, path) || (op == FILE_OP_RENAME && !resolve(r, d, address, to))) {
        set_problem(r, "an operation outside the explorer's world", site, 0, name);
        return;
    }
    const struct name_entry *entry = find_name(r, path);
    switch (op) {
    case FILE_OP_MAP:
        if (entry != NULL)
            add_range(r, address, size, offset, entry->inode);
        else
            set_problem(r, "a mapping of a file that was not created", site, 0, path);
        break;
    case FILE_OP_OPEN_DIR:
        record_name_op(r, TRACE_MAKE_DIR, path, "", site);
        break;
    case FILE_OP_CREATE:
        if (address != NULL)
            record_link(r, d, path, address, site);
        else
            record_name_op(r, TRACE_CREATE, path, "", site);
        break;
    case FILE_OP_SYNC_DIR:
        follow(r, path);
        if (parent)
            parent_of(path);
        record_name_op(r, TRACE_SYNC_DIR, path, "", site);
        break;
    case FILE_OP_WRITE:
        record_write(r, path, offset, size, site);
        break;
    case FILE_OP_UNLINK:
    case FILE_OP_RENAME:
        record_name_op(r, (enum trace_kind)kind_of_op[op], path, to, site);
        break;
    default:
        record_space_op(r, (enum trace_kind)kind_of_op[op], path, offset, size, site);
    }
}

static void on_file(void *context, const struct dir *d, enum file_op op, const char *name, uint64_t offset,
                    uint64_t size, void *address, const char *site)
{
    struct recorder *r = context;
    if (op == FILE_OP_RESERVE && recorder_observer.reserved != NULL)
        recorder_observer.reserved(address, size);
    if (r->off || kind_of_op[op] < 0)
        return;
    pthread_mutex_lock(&r->lock);
    size_t first = r->trace->count;
    record_file_op(r, d, op, name, offset, size, address, site);
    if (r->trace->count > first)
        apply_swap(r, r->trace->events[first].site, (enum trace_kind)r->trace->events[first].kind, first);
    pthread_mutex_unlock(&r->lock);
    if (r->pause != NULL)
        r->pause();
}

static bool on_file_skip(void *context, enum file_op op, const char *name)
{
    return skip(context, name, op == FILE_OP_SYNC ? TRACE_SYNC : TRACE_SYNC_DIR);
}

/* --- life ---------------------------------------------------------------------------------------------------------------- */

void recorder_init(struct recorder *r, struct sites *sites, struct trace *trace, const char *root)
{
    memset(r, 0, sizeof *r);
    snprintf(r->root, sizeof r->root, "%s", root);
    r->sites = sites;
    r->trace = trace;
    r->seen = SITE_SEEN_HISTORY;
    r->media = (struct media_recorder){.context = r, .event = on_event, .skip = on_skip};
    r->hooks = (struct file_hooks){.context = r, .after = on_file, .skip = on_file_skip};
    pthread_mutex_init(&r->lock, NULL);
}

void recorder_keep_shadow(struct recorder *r)
{
    r->shadow = calloc(INODES_MAX, sizeof *r->shadow);
    if (r->shadow == NULL)
        abort();
}

void recorder_fini(struct recorder *r)
{
    for (unsigned i = 0; r->shadow != NULL && i < INODES_MAX; i++)
        if (r->shadow[i] != NULL)
            munmap(r->shadow[i], INODE_MAX_BYTES);
    free(r->shadow);
    r->shadow = NULL;
    free(r->held);
    r->held = NULL;
    pthread_mutex_destroy(&r->lock);
}

void recorder_restart(struct recorder *r, const struct name_entry *names, unsigned names_count,
                      const struct holes *holes, uint32_t next_inode)
{
    r->ranges_count = r->range_hit = 0;
    r->held_count = 0;
    memset(r->contexts, 0, sizeof r->contexts);
    if (names_count > 0)
        memcpy(r->names, names, names_count * sizeof *names);
    r->names_count = names_count;
    r->next_inode = next_inode;
    holes_copy(&r->holes, holes);
    r->problem[0] = '\0';
    trace_clear(r->trace);
}

void recorder_mark_locked(struct recorder *r, enum trace_kind kind, uint64_t op)
{
    struct trace_event *e = trace_add(r->trace, kind, 0);
    e->offset = op;
    e->thread = (uint8_t)thread_number();
    if (r->held_count > 0)
        release_held(r, kind);
}

static void check_shadow_file(struct recorder *r, const struct name_entry *entry, int fd)
{
    struct stat s;
    if (fstat(fd, &s) != 0 || s.st_size == 0)
        return;
    char *bytes = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED)
        return;
    struct range range = {bytes, (uint64_t)s.st_size, 0, entry->inode};
    for (uint64_t at = 0; at + MEDIA_LINE_BYTES <= range.size && r->problem[0] == '\0'; at += MEDIA_LINE_BYTES)
        check_shadow_line(r, &range, at, "the end of the history");
    munmap(bytes, (size_t)s.st_size);
}

int recorder_make_dir(struct recorder *r, const char *name)
{
    char path[PATH_BYTES + NAME_BYTES];
    snprintf(path, sizeof path, "%s/%s", r->root, name);
    pthread_mutex_lock(&r->lock);
    record_name_op(r, TRACE_MAKE_DIR, name, "", MEDIA_SITE);
    pthread_mutex_unlock(&r->lock);
    recorder_settle(r);
    return mkdir(path, 0700);
}

void recorder_settle(struct recorder *r)
{
    pthread_mutex_lock(&r->lock);
    add_event(r, TRACE_SETTLE, note_site(r, MEDIA_SITE, TRACE_SETTLE));
    pthread_mutex_unlock(&r->lock);
}

void recorder_check_shadow(struct recorder *r)
{
    for (unsigned i = 0; r->shadow != NULL && i < r->names_count; i++) {
        char path[PATH_BYTES + NAME_BYTES];
        snprintf(path, sizeof path, "%s/%s", r->root, r->names[i].name);
        int fd = is_file(r->names[i].inode) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (fd < 0)
            continue;
        check_shadow_file(r, &r->names[i], fd);
        close(fd);
    }
}
