/* SPDX-License-Identifier: BSD-3-Clause */
/* image.c -- see image.h. */
#define XXH_INLINE_ALL /* header only */
#include "tests/explore/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "base/bits.h"

#define LINE MEDIA_LINE_BYTES

static void *checked(void *memory)
{
    if (memory == NULL)
        abort();
    return memory;
}

/* --- hashes -------------------------------------------------------------------------------------------------------------- */

uint64_t image_line_hash(uint64_t line, const unsigned char *bytes)
{
    static const unsigned char zero[LINE];
    /* A line of zeros counts nothing, so a new file's hash is 0 without reading it. */
    return memcmp(bytes, zero, LINE) == 0 ? 0 : XXH3_64bits_withSeed(bytes, LINE, line + 1);
}

uint64_t image_names_hash(const struct name_entry *names, unsigned count, const uint64_t *inode_hashes,
                          const uint64_t *sizes)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t name = XXH3_64bits(names[i].name, strnlen(names[i].name, NAME_BYTES));
        uint64_t target = XXH3_64bits(names[i].target, strnlen(names[i].target, NAME_BYTES));
        sum += mix64(name ^ mix64(inode_hashes[i] + mix64(sizes[i] + 1) + target));
    }
    return sum;
}

/* --- inodes and lines ---------------------------------------------------------------------------------------------------- */

static void add_inode(struct image *image, uint32_t number)
{
    if (number >= INODES_MAX)
        abort();
    struct inode *inode = &image->inodes[number];
    *inode = (struct inode){0};
    inode->bytes =
        mmap(NULL, INODE_MAX_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (inode->bytes == MAP_FAILED)
        abort();
    if (number >= image->inodes_count)
        image->inodes_count = number + 1;
}

static void free_inode(struct inode *inode, bool bytes_too)
{
    if (bytes_too && inode->bytes != NULL)
        munmap(inode->bytes, INODE_MAX_BYTES);
    free(inode->slots);
    *inode = (struct inode){0};
}

static void extend_inode(struct inode *inode, uint64_t size)
{
    if (size > INODE_MAX_BYTES)
        abort();
    if (size > inode->extent)
        inode->extent = size;
    uint64_t lines = inode->extent / LINE + 1;
    if (lines <= inode->slots_count)
        return;
    uint32_t *slots = checked(calloc(lines, sizeof *slots));
    if (inode->slots_count > 0)
        memcpy(slots, inode->slots, inode->slots_count * sizeof *slots);
    free(inode->slots);
    inode->slots = slots;
    inode->slots_count = lines;
}

static void journal_line(struct journal *j, uint32_t inode, uint64_t line, const unsigned char *old)
{
    if (j->count == j->capacity) {
        j->capacity = j->capacity == 0 ? 256 : j->capacity * 2;
        j->entries = checked(realloc(j->entries, j->capacity * sizeof *j->entries));
    }
    j->entries[j->count].inode = inode;
    j->entries[j->count].line = line;
    memcpy(j->entries[j->count++].old, old, LINE);
}

static void set_durable(struct image *image, uint32_t number, uint64_t line, const unsigned char *content)
{
    struct inode *inode = &image->inodes[number];
    unsigned char *at = inode->bytes + line * LINE;
    if (memcmp(at, content, LINE) == 0)
        return;
    if (image->parent != NULL && number < image->shared_inodes)
        journal_line(&image->journal, number, line, at);
    inode->hash -= image_line_hash(line, at);
    inode->hash += image_line_hash(line, content);
    memcpy(at, content, LINE);
    if (image->changed != NULL)
        image->changed(image->context, number, line);
}

static struct pending *find_pending(struct image *image, uint32_t number, uint64_t line)
{
    struct inode *inode = &image->inodes[number];
    if (line >= inode->slots_count || inode->slots[line] == 0)
        return NULL;
    return &image->lines[inode->slots[line] - 1];
}

static struct pending *add_pending(struct image *image, uint32_t number, uint64_t line)
{
    struct pending *p = find_pending(image, number, line);
    if (p != NULL)
        return p;
    struct inode *inode = &image->inodes[number];
    extend_inode(inode, (line + 1) * LINE);
    if (image->lines_count == image->lines_capacity) {
        image->lines_capacity = image->lines_capacity == 0 ? 256 : image->lines_capacity * 2;
        image->lines = checked(realloc(image->lines, image->lines_capacity * sizeof *image->lines));
    }
    p = &image->lines[image->lines_count++];
    *p = (struct pending){.inode = number, .line = line};
    memcpy(p->now, inode->bytes + line * LINE, LINE);
    inode->slots[line] = (uint32_t)image->lines_count;
    return p;
}

/* The order of lines stays as it was, so that a state's code means the same whatever became durable before. */
static void remove_pending(struct image *image, struct pending *p)
{
    size_t index = (size_t)(p - image->lines);
    image->inodes[p->inode].slots[p->line] = 0;
    free(p->stores);
    memmove(p, p + 1, (image->lines_count - index - 1) * sizeof *p);
    image->lines_count--;
    for (size_t i = index; i < image->lines_count; i++)
        image->inodes[image->lines[i].inode].slots[image->lines[i].line] = (uint32_t)i + 1;
}

/* The word as a program sees it. */
static uint64_t current_word(struct image *image, uint32_t number, uint64_t offset)
{
    const struct inode *inode = &image->inodes[number];
    const struct pending *p = find_pending(image, number, offset / LINE);
    uint64_t value = 0;
    if (p != NULL)
        memcpy(&value, p->now + offset % LINE, sizeof value);
    else
        memcpy(&value, inode->bytes + offset, sizeof value);
    return value;
}

/* A store that changes nothing makes no state that is not there without it. */
static void store_word(struct image *image, uint32_t inode, uint64_t offset, uint64_t value, uint32_t event)
{
    if (current_word(image, inode, offset) == value)
        return;
    struct pending *p = add_pending(image, inode, offset / LINE);
    if (p->count == p->capacity) {
        p->capacity = p->capacity == 0 ? 8 : p->capacity * 2;
        p->stores = checked(realloc(p->stores, p->capacity * sizeof *p->stores));
    }
    uint16_t word = (uint16_t)(offset % LINE / WORD_BYTES);
    memcpy(p->now + word * WORD_BYTES, &value, WORD_BYTES);
    p->stores[p->count++] = (struct store){value, image_line_hash(p->line, p->now), ++image->next_seq, event, word, 0};
}

static void apply_stores(unsigned char *bytes, const struct store *stores, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        memcpy(bytes + stores[i].word * WORD_BYTES, &stores[i].value, WORD_BYTES);
}

/* The stores of the line up to number seq have certainly arrived. */
static void make_durable(struct image *image, uint32_t inode, uint64_t line, uint32_t seq)
{
    struct pending *p = find_pending(image, inode, line);
    if (p == NULL)
        return;
    uint32_t kept = 0;
    while (kept < p->count && p->stores[kept].seq <= seq)
        kept++;
    if (kept == 0)
        return;
    unsigned char bytes[LINE];
    memcpy(bytes, image->inodes[inode].bytes + line * LINE, LINE);
    apply_stores(bytes, p->stores, kept);
    set_durable(image, inode, line, bytes);
    if (kept == p->count) {
        remove_pending(image, p);
        return;
    }
    memmove(p->stores, p->stores + kept, (p->count - kept) * sizeof *p->stores);
    p->count -= kept;
}

/* --- events -------------------------------------------------------------------------------------------------------------- */

static void note_flushed(struct image *image, struct flush_list *list, uint32_t inode, uint64_t line)
{
    if (find_pending(image, inode, line) == NULL)
        return;
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        list->at = checked(realloc(list->at, list->capacity * sizeof *list->at));
    }
    list->at[list->count++] = (struct flushed){inode, image->next_seq, line};
}

static void apply_drain(struct image *image, unsigned thread)
{
    for (size_t i = 0; i < image->threads[thread].count; i++) {
        struct flushed *f = &image->threads[thread].at[i];
        make_durable(image, f->inode, f->line, f->seq);
    }
    image->threads[thread].count = 0;
}

static void set_name(struct name_entry *names, unsigned *count, const char *name, const struct name_op *op)
{
    unsigned i = 0;
    while (i < *count && strncmp(names[i].name, name, NAME_BYTES) != 0)
        i++;
    if (i == NAMES_MAX)
        abort();
    if (i == *count)
        snprintf(names[(*count)++].name, NAME_BYTES, "%s", name);
    names[i].inode = op->inode;
    memcpy(names[i].target, op->target, NAME_BYTES);
}

static void remove_name(struct name_entry *names, unsigned *count, const char *name)
{
    for (unsigned i = 0; i < *count; i++) {
        if (strncmp(names[i].name, name, NAME_BYTES) == 0) {
            names[i] = names[--*count];
            return;
        }
    }
}

static void apply_name_op(struct name_entry *names, unsigned *count, const struct name_op *op)
{
    if (op->kind == TRACE_UNLINK || op->kind == TRACE_RENAME)
        remove_name(names, count, op->name);
    if (op->kind != TRACE_UNLINK)
        set_name(names, count, op->kind == TRACE_RENAME ? op->to : op->name, op);
}

/* directory NULL: all. */
static void sync_names(struct image *image, const char *directory)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < image->name_ops_count; i++) {
        const struct name_op *op = &image->name_ops[i];
        if (directory == NULL || name_is_in(op->kind == TRACE_RENAME ? op->to : op->name, directory))
            apply_name_op(image->names, &image->names_count, op);
        else
            image->name_ops[kept++] = *op;
    }
    image->name_ops_count = kept;
}

static bool is_there(const struct name_entry *names, unsigned count, const char *directory, size_t length)
{
    for (unsigned i = 0; i < count; i++)
        if (names[i].inode == INODE_DIRECTORY && strlen(names[i].name) == length &&
            memcmp(names[i].name, directory, length) == 0)
            return true;
    return false;
}

/* Names in directories that are not there, and what is in those, are not there either. */
static void drop_unreachable(struct name_entry *names, unsigned *count)
{
    for (unsigned i = 0; i < *count;) {
        const char *slash = strrchr(names[i].name, '/');
        if (slash == NULL || is_there(names, *count, names[i].name, (size_t)(slash - names[i].name))) {
            i++;
            continue;
        }
        names[i] = names[--*count];
        i = 0;
    }
}

static void add_name_op(struct image *image, const struct trace *trace, const struct trace_event *e)
{
    /* Too many at once to choose from: the oldest happened. */
    if (image->name_ops_count == FILE_CHOICES_MAX / 2) {
        apply_name_op(image->names, &image->names_count, &image->name_ops[0]);
        memmove(image->name_ops, image->name_ops + 1, --image->name_ops_count * sizeof *image->name_ops);
    }
    struct name_op *op = &image->name_ops[image->name_ops_count++];
    *op = (struct name_op){.kind = e->kind, .inode = e->inode};
    memcpy(op->name, trace->names[e->data], NAME_BYTES);
    memcpy(op->to, trace->names[e->data + 1], NAME_BYTES);
    memcpy(op->target, trace->names[e->data + 2], NAME_BYTES);
}

static void apply_space_op(struct holes *holes, uint32_t inode, const struct space_op *op)
{
    if (op->punch)
        holes_add(holes, inode, op->from, op->to);
    else
        holes_fill(holes, inode, op->from, op->to);
}

/* Is a part of [from, to) a hole, or may it be one? */
static bool may_be_hole(const struct image *image, uint32_t number, uint64_t from, uint64_t to)
{
    const struct inode *inode = &image->inodes[number];
    bool may = holes_touch(&image->holes, number, from, to);
    for (uint32_t i = 0; i < inode->space_count; i++)
        may |= inode->space[i].punch && inode->space[i].to > from && inode->space[i].from < to;
    return may;
}

static void add_space_op(struct image *image, uint32_t number, uint64_t from, uint64_t to, bool punch)
{
    struct inode *inode = &image->inodes[number];
    uint64_t size = inode->space_count == 0 ? inode->size : inode->space[inode->space_count - 1].size;
    if (!punch && to <= size && !may_be_hole(image, number, from, to))
        return; /* it has its space already */
    image->any_punch |= punch;
    if (to > size && !punch)
        size = to;
    extend_inode(inode, size);
    if (inode->space_count == SPACE_OPS_MAX) { /* fewer states, but none that cannot be */
        apply_space_op(&image->holes, number, &inode->space[0]);
        inode->size = inode->space[0].size;
        memmove(inode->space, inode->space + 1, --inode->space_count * sizeof *inode->space);
    }
    inode->space[inode->space_count++] = (struct space_op){from, to, size, punch};
}

static void punch(struct image *image, const struct trace_event *e, uint32_t event_number)
{
    for (uint64_t at = e->offset; at < e->offset + e->size; at += WORD_BYTES)
        store_word(image, e->inode, at, 0, event_number);
    for (uint64_t line = e->offset / LINE; line * LINE < e->offset + e->size; line++)
        note_flushed(image, &image->by_sync, e->inode, line);
    add_space_op(image, e->inode, e->offset, e->offset + e->size, true);
}

/* A file's sync makes its size, its holes and what was written durable; it is not relied on for bytes that were stored through a
 * mapping. */
static void sync_inode(struct image *image, uint32_t number)
{
    struct inode *inode = &image->inodes[number];
    for (uint32_t i = 0; i < inode->space_count; i++)
        apply_space_op(&image->holes, number, &inode->space[i]);
    if (inode->space_count > 0)
        inode->size = inode->space[inode->space_count - 1].size;
    inode->space_count = 0;
    size_t kept = 0;
    for (size_t i = 0; i < image->by_sync.count; i++) {
        struct flushed *f = &image->by_sync.at[i];
        if (f->inode == number)
            make_durable(image, number, f->line, f->seq);
        else
            image->by_sync.at[kept++] = *f;
    }
    image->by_sync.count = kept;
}

/* Everything that is pending has arrived. */
static void settle(struct image *image)
{
    while (image->lines_count > 0) {
        const struct pending *p = &image->lines[image->lines_count - 1];
        make_durable(image, p->inode, p->line, UINT32_MAX);
    }
    for (uint32_t i = 0; i < image->inodes_count; i++)
        sync_inode(image, i);
    sync_names(image, NULL);
}

void image_apply(struct image *image, const struct trace *trace, const struct trace_event *e, uint32_t event_number)
{
    bool of_none = e->kind == TRACE_DRAIN || e->kind == TRACE_SYNC_DIR || e->kind == TRACE_SETTLE;
    if (e->inode == INODE_NONE && !of_none)
        return;
    if (e->kind != TRACE_BEGIN && e->kind != TRACE_END)
        image->unsettled_seq = 0;
    uint32_t seq = image->next_seq;
    switch ((enum trace_kind)e->kind) {
    case TRACE_STORE:
    case TRACE_STORE_NT:
        for (uint64_t at = 0; at < e->size; at += WORD_BYTES)
            store_word(image, e->inode, e->offset + at, trace->words[e->data + at / WORD_BYTES], event_number);
        if (e->kind == TRACE_STORE)
            break;
        image->unsettled_seq = image->next_seq != seq ? image->next_seq : 0;
        __attribute__((fallthrough));
    case TRACE_FLUSH:
        for (uint64_t line = e->offset / LINE; line * LINE < e->offset + e->size; line++)
            note_flushed(image, &image->threads[e->thread], e->inode, line);
        break;
    case TRACE_DRAIN:
        apply_drain(image, e->thread);
        break;
    case TRACE_WRITE:
        for (uint64_t at = 0; at < e->size; at += WORD_BYTES)
            store_word(image, e->inode, e->offset + at, trace->words[e->data + at / WORD_BYTES], event_number);
        for (uint64_t line = e->offset / LINE; line * LINE < e->offset + e->size; line++)
            note_flushed(image, &image->by_sync, e->inode, line);
        break;
    case TRACE_CREATE:
        add_inode(image, e->inode);
        add_name_op(image, trace, e);
        break;
    case TRACE_MAKE_DIR:
    case TRACE_LINK:
    case TRACE_UNLINK:
    case TRACE_RENAME:
        add_name_op(image, trace, e);
        break;
    case TRACE_RESIZE:
        add_space_op(image, e->inode, e->offset, e->offset + e->size, false);
        break;
    case TRACE_PUNCH:
        punch(image, e, event_number);
        break;
    case TRACE_SYNC:
        sync_inode(image, e->inode);
        break;
    case TRACE_SYNC_DIR:
        sync_names(image, trace->names[e->data]);
        break;
    case TRACE_SETTLE:
        settle(image);
        break;
    case TRACE_BEGIN:
    case TRACE_END:
    case TRACE_KINDS:
        break;
    }
}

/* --- choices ------------------------------------------------------------------------------------------------------------- */

void choice_reset(struct choice *c, const struct image *image)
{
    if (c->capacity < image->lines_count) {
        c->capacity = image->lines_count + 64;
        c->prefix = checked(realloc(c->prefix, c->capacity * sizeof *c->prefix));
    }
    c->count = image->lines_count;
    if (c->count > 0)
        memset(c->prefix, 0, c->count * sizeof *c->prefix);
    uint8_t radix[FILE_CHOICES_MAX];
    c->files = image_file_radix(image, radix);
    memset(c->file, 0, sizeof c->file);
}

void choice_copy(struct choice *to, const struct choice *from)
{
    if (to->capacity < from->count) {
        to->capacity = from->count + 64;
        to->prefix = checked(realloc(to->prefix, to->capacity * sizeof *to->prefix));
    }
    if (from->count > 0)
        memcpy(to->prefix, from->prefix, from->count * sizeof *to->prefix);
    to->count = from->count;
    memcpy(to->file, from->file, sizeof to->file);
    to->files = from->files;
}

void choice_fini(struct choice *c)
{
    free(c->prefix);
    *c = (struct choice){0};
}

unsigned image_file_radix(const struct image *image, uint8_t radix[FILE_CHOICES_MAX])
{
    unsigned count = 0;
    for (unsigned i = 0; i < image->name_ops_count; i++)
        radix[count++] = 2;
    for (uint32_t i = 0; i < image->inodes_count && count < FILE_CHOICES_MAX; i++)
        if (image->inodes[i].space_count > 0)
            radix[count++] = (uint8_t)(image->inodes[i].space_count + 1);
    return count;
}

unsigned image_names(const struct image *image, const struct choice *c, struct name_entry names[NAMES_MAX])
{
    unsigned count = image->names_count;
    bool lost = false;
    memcpy(names, image->names, count * sizeof *names);
    for (unsigned i = 0; i < image->name_ops_count; i++) {
        if (c->file[i] != 0)
            apply_name_op(names, &count, &image->name_ops[i]);
        lost |= c->file[i] == 0 && image->name_ops[i].kind == TRACE_MAKE_DIR;
    }
    if (lost)
        drop_unreachable(names, &count);
    return count;
}

/* How many of the pending operations on an inode's space happened. */
static unsigned space_ops_kept(const struct image *image, const struct choice *c, uint32_t number)
{
    unsigned slot = image->name_ops_count;
    if (image->inodes[number].space_count == 0)
        return 0;
    for (uint32_t i = 0; i < number; i++)
        slot += image->inodes[i].space_count > 0;
    return slot < FILE_CHOICES_MAX ? c->file[slot] : image->inodes[number].space_count;
}

uint64_t image_size(const struct image *image, const struct choice *c, uint32_t number)
{
    unsigned kept = space_ops_kept(image, c, number);
    return kept == 0 ? image->inodes[number].size : image->inodes[number].space[kept - 1].size;
}

void image_holes(const struct image *image, const struct choice *c, struct holes *ret)
{
    holes_copy(ret, &image->holes);
    if (!image->any_punch)
        return;
    for (uint32_t i = 0; i < image->inodes_count; i++) {
        unsigned kept = space_ops_kept(image, c, i);
        for (unsigned k = 0; k < kept; k++)
            apply_space_op(ret, i, &image->inodes[i].space[k]);
    }
}

void image_line(const struct image *image, const struct choice *c, size_t index, unsigned char ret[LINE])
{
    const struct pending *p = &image->lines[index];
    memcpy(ret, image->inodes[p->inode].bytes + p->line * LINE, LINE);
    apply_stores(ret, p->stores, c->prefix[index]);
}

uint64_t image_hash(const struct image *image, const struct choice *c)
{
    uint64_t content[INODES_MAX];
    for (uint32_t i = 0; i < image->inodes_count; i++)
        content[i] = image->inodes[i].hash;
    for (size_t i = 0; i < c->count; i++) {
        const struct pending *p = &image->lines[i];
        if (c->prefix[i] == 0)
            continue;
        content[p->inode] -= image_line_hash(p->line, image->inodes[p->inode].bytes + p->line * LINE);
        content[p->inode] += p->stores[c->prefix[i] - 1].hash;
    }
    struct name_entry names[NAMES_MAX];
    unsigned count = image_names(image, c, names);
    uint64_t hashes[NAMES_MAX], sizes[NAMES_MAX];
    for (unsigned i = 0; i < count; i++) {
        bool file = is_file(names[i].inode);
        hashes[i] = file ? content[names[i].inode] : names[i].inode;
        sizes[i] = file ? image_size(image, c, names[i].inode) : 0;
    }
    uint64_t hash = image_names_hash(names, count, hashes, sizes);
    if (image->any_punch) {
        struct holes holes;
        image_holes(image, c, &holes);
        hash += holes_hash(&holes);
    }
    return hash;
}

/* --- life ---------------------------------------------------------------------------------------------------------------- */

void image_init(struct image *image)
{
    memset(image, 0, sizeof *image);
}

static void free_pending(struct image *image)
{
    for (size_t i = 0; i < image->lines_count; i++)
        free(image->lines[i].stores);
    free(image->lines);
    for (unsigned t = 0; t < 256; t++)
        free(image->threads[t].at);
    free(image->by_sync.at);
    free(image->journal.entries);
}

void image_fini(struct image *image)
{
    free_pending(image);
    for (uint32_t i = 0; i < image->inodes_count; i++)
        free_inode(&image->inodes[i], image->parent == NULL || i >= image->shared_inodes);
}

void image_clear(struct image *image)
{
    void (*changed)(void *, uint32_t, uint64_t) = image->changed;
    void *context = image->context;
    image_fini(image);
    image_init(image);
    image->changed = changed;
    image->context = context;
}

static void fork_common(struct image *child, struct image *parent)
{
    image_init(child);
    child->parent = parent;
    child->changed = parent->changed;
    child->context = parent->context;
    child->inodes_count = child->shared_inodes = parent->inodes_count;
    child->any_punch = parent->any_punch;
    for (uint32_t i = 0; i < parent->inodes_count; i++) {
        const struct inode *from = &parent->inodes[i];
        struct inode *to = &child->inodes[i];
        to->bytes = from->bytes;
        to->hash = from->hash;
        extend_inode(to, from->extent);
    }
}

void image_fork(struct image *child, struct image *parent, const struct choice *c)
{
    fork_common(child, parent);
    for (uint32_t i = 0; i < parent->inodes_count; i++)
        child->inodes[i].size = image_size(parent, c, i);
    image_holes(parent, c, &child->holes);
    child->names_count = image_names(parent, c, child->names);
    for (size_t i = 0; i < c->count; i++) {
        unsigned char bytes[LINE];
        if (c->prefix[i] == 0)
            continue;
        image_line(parent, c, i, bytes);
        set_durable(child, parent->lines[i].inode, parent->lines[i].line, bytes);
    }
}

/* The last store of a line that some thread has flushed. */
static uint32_t covered_until(const struct image *image, uint32_t inode, uint64_t line)
{
    uint32_t seq = 0;
    for (unsigned t = 0; t < 256; t++)
        for (size_t i = 0; i < image->threads[t].count; i++) {
            const struct flushed *f = &image->threads[t].at[i];
            if (f->inode == inode && f->line == line && f->seq > seq && f->seq != image->unsettled_seq)
                seq = f->seq;
        }
    return seq;
}

static void inherit_line(struct image *child, const struct pending *p, uint32_t covered)
{
    uint32_t durable = 0;
    for (uint32_t k = 0; k < p->count; k++) {
        store_word(child, p->inode, p->line * LINE + p->stores[k].word * WORD_BYTES, p->stores[k].value, 0);
        if (p->stores[k].seq <= covered)
            durable = child->next_seq;
    }
    struct pending *mine = find_pending(child, p->inode, p->line);
    for (uint32_t k = 0; k < mine->count; k++)
        mine->stores[k].earlier = 1;
    make_durable(child, p->inode, p->line, durable);
}

void image_fork_kill(struct image *child, struct image *parent)
{
    fork_common(child, parent);
    for (uint32_t i = 0; i < parent->inodes_count; i++) {
        child->inodes[i].size = parent->inodes[i].size;
        child->inodes[i].space_count = parent->inodes[i].space_count;
        memcpy(child->inodes[i].space, parent->inodes[i].space, sizeof child->inodes[i].space);
    }
    holes_copy(&child->holes, &parent->holes);
    child->names_count = parent->names_count;
    memcpy(child->names, parent->names, sizeof child->names);
    child->name_ops_count = parent->name_ops_count;
    memcpy(child->name_ops, parent->name_ops, sizeof child->name_ops);
    for (size_t i = 0; i < parent->lines_count; i++)
        inherit_line(child, &parent->lines[i], covered_until(parent, parent->lines[i].inode, parent->lines[i].line));
    for (size_t i = 0; i < parent->by_sync.count; i++) { /* the kernel writes back whoever asks it to */
        const struct flushed *f = &parent->by_sync.at[i];
        const struct pending *p = find_pending(parent, f->inode, f->line);
        if (p != NULL && p->stores[p->count - 1].seq <= f->seq)
            note_flushed(child, &child->by_sync, f->inode, f->line);
    }
}

void image_join(struct image *child)
{
    struct image *parent = child->parent;
    for (size_t i = child->journal.count; i-- > 0;) {
        uint32_t inode = child->journal.entries[i].inode;
        uint64_t line = child->journal.entries[i].line;
        memcpy(parent->inodes[inode].bytes + line * LINE, child->journal.entries[i].old, LINE);
        if (parent->changed != NULL)
            parent->changed(parent->context, inode, line);
    }
    image_fini(child);
}
