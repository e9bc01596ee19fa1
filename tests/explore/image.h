/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * image.h -- what is certainly on the media at a moment of a trace, and what may be.
 *
 * The model. The unit of order is a 64-byte line, the atom an aligned 8-byte word. A crash finds, for every line that was
 * stored to since it was last durable, some prefix of the word stores made to it, independently of other lines. A drain makes
 * durable, up to the moment of the flush, the lines that the same thread had flushed, and its non-temporal stores. Names
 * (of files, links and directories: create, unlink, rename) are durable after the sync of the directory they are in; before it,
 * any subset of them may have happened. A renaming from one directory to another happens as a whole, and is durable after the
 * sync of the one it leads to. What is in a directory that is not there is not there. A file's size and which parts of it have
 * space are durable after the file's sync, and so is what was written rather than stored; before it, some prefix of what was done
 * to size and space is found, and any part of what was written.
 *
 * An image is advanced event by event. A choice says, for each pending line, name operation and size, how much of it the crash
 * kept: image + choice = one crash state. image_fork makes such a state the durable beginning of another image, on which the
 * trace of the recovery is then played; the bytes are shared, and the journal takes them back at image_join.
 */
#ifndef TESTS_EXPLORE_IMAGE_H
#define TESTS_EXPLORE_IMAGE_H

#include "tests/explore/recorder.h"

#define FILE_CHOICES_MAX 24u
#define SPACE_OPS_MAX    4u

struct store {
    uint64_t value;
    uint64_t hash;    /* of the line after this store */
    uint32_t seq;     /* number of the store in the image's life */
    uint32_t event;   /* event of the trace that made it */
    uint16_t word;    /* in the line */
    uint16_t earlier; /* made before the process died; event is of another trace */
};

/** A line with stores that are not certainly durable. */
struct pending {
    uint32_t inode;
    uint64_t line; /* offset / 64 */
    struct store *stores;
    uint32_t count, capacity;
    unsigned char now[MEDIA_LINE_BYTES]; /* after all stores */
};

/** A file was grown, got space, or lost it. */
struct space_op {
    uint64_t from, to;
    uint64_t size; /* of the file, after it */
    bool punch;
};

struct inode {
    unsigned char *bytes; /* durable content; INODE_MAX_BYTES of address space */
    uint64_t size;        /* durable */
    struct space_op space[SPACE_OPS_MAX];
    uint32_t space_count; /* since the last sync */
    uint64_t extent;      /* largest size so far */
    uint64_t hash;        /* sum over the lines of bytes */
    uint32_t *slots;      /* per line: index in image.lines + 1, or 0 */
    uint64_t slots_count;
};

struct name_op {
    uint32_t kind; /* TRACE_CREATE, _MAKE_DIR, _LINK, _UNLINK, _RENAME */
    uint32_t inode;
    char name[NAME_BYTES], to[NAME_BYTES], target[NAME_BYTES];
};

struct flushed {
    uint32_t inode;
    uint32_t seq; /* the stores up to this one are covered */
    uint64_t line;
};

struct flush_list {
    struct flushed *at;
    size_t count, capacity;
};

struct journal {
    struct {
        uint32_t inode;
        uint64_t line;
        unsigned char old[MEDIA_LINE_BYTES];
    } * entries;
    size_t count, capacity;
};

struct image {
    struct inode inodes[INODES_MAX];
    uint32_t inodes_count;
    struct pending *lines;
    size_t lines_count, lines_capacity;
    struct name_entry names[NAMES_MAX]; /* durable */
    unsigned names_count;
    struct name_op name_ops[FILE_CHOICES_MAX];
    unsigned name_ops_count;
    struct holes holes; /* durable */
    bool any_punch;     /* else there are no holes whatever is pending */
    struct flush_list threads[256];
    struct flush_list by_sync; /* lines that were written, or punched out: durable after their file's sync */
    uint32_t next_seq;
    uint32_t unsettled_seq; /* last store of a non-temporal copy that was the latest event; 0 = it was another */
    struct image *parent;   /* whose bytes are shared */
    uint32_t shared_inodes;
    struct journal journal;
    /* Called for each line whose durable bytes change. */
    void (*changed)(void *context, uint32_t inode, uint64_t line);
    void *context;
};

/** How much of what is pending a crash kept. */
struct choice {
    uint32_t *prefix; /* per line of image.lines: stores kept */
    size_t count, capacity;
    uint8_t file[FILE_CHOICES_MAX]; /* see image_file_radix */
    unsigned files;
};

void image_init(struct image *image);
/** Back to nothing, as after image_init. */
void image_clear(struct image *image);
void image_fini(struct image *image);
/** Play one event. */
void image_apply(struct image *image, const struct trace *trace, const struct trace_event *e, uint32_t event_number);

/** Size choice to the image and set it to "nothing that is pending was kept". */
void choice_reset(struct choice *c, const struct image *image);
void choice_copy(struct choice *to, const struct choice *from);
void choice_fini(struct choice *c);
/** Number of values of each file choice: 2 per pending name operation, then one more than the pending operations on the space
 *  of each inode that has any. Returns how many choices there are. */
unsigned image_file_radix(const struct image *image, uint8_t radix[FILE_CHOICES_MAX]);
/** The names of a crash state; returns their number. */
unsigned image_names(const struct image *image, const struct choice *c, struct name_entry names[NAMES_MAX]);
/** An inode's size in a crash state. */
uint64_t image_size(const struct image *image, const struct choice *c, uint32_t inode);
/** What has no space in a crash state. */
void image_holes(const struct image *image, const struct choice *c, struct holes *ret);
/** A line's content in a crash state. */
void image_line(const struct image *image, const struct choice *c, size_t index, unsigned char ret[MEDIA_LINE_BYTES]);
/** A hash of everything that recovery can see of a crash state. */
uint64_t image_hash(const struct image *image, const struct choice *c);
uint64_t image_line_hash(uint64_t line, const unsigned char *bytes);
uint64_t image_names_hash(const struct name_entry *names, unsigned count, const uint64_t *inode_hashes,
                          const uint64_t *sizes);

/** Make parent + c the durable beginning of child (uninitialised memory). Parent must not change until image_join(child). */
void image_fork(struct image *child, struct image *parent, const struct choice *c);
/**
 * The same for the death of the process alone. Nothing is lost. What it had flushed or stored non-temporally is durable, for the
 * kernel waits for such stores before another process runs; the rest is still pending, and names and sizes too. So is a
 * non-temporal copy that was the very last step: where there is no such instruction it is a store and then a flush.
 */
void image_fork_kill(struct image *child, struct image *parent);
void image_join(struct image *child);

#endif
