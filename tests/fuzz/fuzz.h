/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz.h -- broken pools made of a few bytes, and what the library must do with them.
 *
 * An input is a small program of mutations (mutate.c tells the bytes) that is applied to one of the prepared pools (image.c). The
 * pool is then checked, opened and used (judge.c). One execution leaves nothing behind, so the same input always gives the same pool.
 *
 * Two programs run it: the fuzzer (libFuzzer, clang, option `fuzz`), which looks for inputs, and the replay driver, which runs a
 * corpus and seeded random inputs with any compiler.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fptree/tree_layout.h"
#include "pool/pool.h"

#define FUZZ_IMAGES       2u /* a closed pool; what a killed process left */
#define FUZZ_FILES_MAX    8u
#define FUZZ_OWNERS       120u
#define FUZZ_SCRATCH      16u /* owners that the judge uses */
#define FUZZ_LEAVES_MAX   64u
#define FUZZ_WRITES_MAX   1024u
#define FUZZ_SEGMENT_SIZE (1u << 20)
#define FUZZ_SEGMENT_BITS 20u
#define FUZZ_INPUT_MAX    512u

/* Bytes of the root block: the application tree's anchor, the owners, the judge's owners. */
#define FUZZ_ROOT_BYTES     4096u
#define FUZZ_OWNERS_OFFSET  64u
#define FUZZ_SCRATCH_OFFSET (FUZZ_OWNERS_OFFSET + FUZZ_OWNERS * sizeof(pa_pptr))

struct fuzz_file {
    char name[32];
    uint32_t slot; /* 0 = the pool file */
    bool huge;
    uint64_t size;
    char *data;
    bool *present; /* per page: not a hole */
};

/** A block that the image's application holds. */
struct fuzz_block {
    pa_pptr at;
    uint64_t usable;
    enum segment_kind kind;
};

/** A leaf or a header block of a tree. */
struct fuzz_leaf {
    pa_off off, header;
    bool is_header, of_index;
};

struct fuzz_image {
    struct fuzz_file files[FUZZ_FILES_MAX];
    unsigned file_count;
    struct pm_superblock geometry;
    pa_pptr root;
    struct fuzz_block owners[FUZZ_OWNERS]; /* null = owner is null */
    struct fuzz_leaf leaves[FUZZ_LEAVES_MAX];
    unsigned leaf_count;
};

/** What a mutation did, for the judge. */
struct fuzz_mutation {
    const struct fuzz_image *image;
    struct {
        uint32_t file;
        uint64_t offset; /* of an 8-byte word */
        uint64_t before;
    } writes[FUZZ_WRITES_MAX];
    unsigned write_count;
    bool forged;     /* checksums were put right, or valid units copied */
    bool structural; /* files were truncated, removed, exchanged */
    bool repair;     /* the pool is to be repaired before it is used */
};

struct fuzz_totals {
    uint64_t runs, told, refused, sound, used_unsound, repaired, not_repaired;
};
extern struct fuzz_totals fuzz_totals;

/** Make the working directory and the images. False (with a message) if that is impossible. */
bool fuzz_setup(void);
/** Remove the working directory. */
void fuzz_cleanup(void);
const char *fuzz_dir(void);
/** Apply, judge, and restore. Aborts on a finding. */
void fuzz_one(const uint8_t *data, size_t size);
/** A finding: print and abort. */
void fuzz_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* image.c */
const struct fuzz_image *fuzz_image(unsigned number);
/** Make the working directory hold exactly the image. */
void fuzz_restore(const struct fuzz_image *image);
/** Of names, kinds, sizes and bytes of all that is in the working directory. */
uint64_t fuzz_hash(void);
/** Fill a block, or tell whether it is as filled: its first and last bytes. */
void fuzz_fill(char *address, uint64_t usable, unsigned tag);
bool fuzz_is_filled(const char *address, uint64_t usable, unsigned tag);

/* mutate.c */
/** Change the working directory as the input says. */
void fuzz_mutate(const struct fuzz_image *image, const uint8_t *data, size_t size, struct fuzz_mutation *ret);

/** Change one word of a file of the image, and put its checksum right. */
void fuzz_set(const struct fuzz_image *image, unsigned file, uint64_t offset, uint64_t value, bool fix,
              struct fuzz_mutation *ret);
/** Number of the file that a slot lies in; 0, the pool file's, if it is in no other. */
unsigned fuzz_file_of(const struct fuzz_image *image, uint64_t slot);

/* judge.c */
void fuzz_judge(const struct fuzz_mutation *m);

static inline uint64_t fuzz_pool_offset(const struct fuzz_file *f, uint64_t offset)
{
    return ((uint64_t)f->slot << FUZZ_SEGMENT_BITS) + offset;
}

#endif
