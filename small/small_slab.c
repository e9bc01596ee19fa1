/* SPDX-License-Identifier: BSD-3-Clause */
/* small_slab.c -- see small_slab.h. */
#include "small/small_slab.h"

/* The checksum is an exclusive or of one mixed number per word, so a changed word updates it in O(1) and damage to the other
 * words is not covered up by the update. */
static uint64_t word_part(uint32_t word, uint64_t bits)
{
    return mix64(bits + (word + 1) * 0x9e3779b97f4a7c15u);
}

static uint64_t head_part(uint64_t lsn, unsigned class_index)
{
    return mix64(~lsn ^ mix64(class_index));
}

static uint32_t line_checksum(const struct pm_slab_line *line, uint64_t lsn, unsigned class_index)
{
    uint64_t sum = head_part(lsn, class_index);
    for (uint32_t w = 0; w < SLAB_LINE_WORDS; w++)
        sum ^= word_part(w, line->bits[w]);
    return (uint32_t)(sum >> 32);
}

static uint64_t tag_of(unsigned class_index, uint32_t line, uint32_t slab, uint32_t checksum)
{
    return (class_index + 1) | (uint64_t)line << 8 | (uint64_t)(slab & 0xffff) << 16 | (uint64_t)checksum << 32;
}

static uint32_t tag_checksum(uint64_t tag)
{
    return (uint32_t)(tag >> 32);
}

/* Order: bits, tag, lsn. A line reaches the media as a prefix of its stores, so a line with the new lsn has all of it. */
static void format_line(const struct media *m, const struct slab_change *c, uint32_t number)
{
    struct pm_slab_line *line = &c->lines[number];
    bool holds_block = slab_line_of(c->block) == number;
    struct pm_slab_line new = {0};
    if (holds_block && c->alloc)
        new.bits[slab_word_of(c->block)] = slab_bit_of(c->block);
    for (uint32_t w = 0; w < SLAB_LINE_WORDS; w++)
        media_store64(m, &line->bits[w], new.bits[w]);
    media_store64(m, &line->tag,
                  tag_of(c->class_index, number, c->slab_number, line_checksum(&new, c->lsn, c->class_index)));
    media_store64(m, &line->lsn, c->lsn);
}

/* The same order for one bit. */
static void change_line(const struct media *m, const struct slab_change *c)
{
    struct pm_slab_line *line = &c->lines[slab_line_of(c->block)];
    uint32_t w = slab_word_of(c->block);
    uint64_t old_bits = line->bits[w];
    uint64_t new_bits = c->alloc ? old_bits | slab_bit_of(c->block) : old_bits & ~slab_bit_of(c->block);
    uint64_t delta = word_part(w, old_bits) ^ word_part(w, new_bits) ^ head_part(line->lsn, c->class_index) ^
                     head_part(c->lsn, c->class_index);
    uint64_t tag = line->tag ^ (delta >> 32 << 32);
    media_store64(m, &line->bits[w], new_bits);
    media_store64(m, &line->tag, tag);
    media_store64(m, &line->lsn, c->lsn);
}

void slab_redo(const struct media *m, const struct slab_change *c)
{
    if (!c->format) {
        if (c->lines[slab_line_of(c->block)].lsn < c->lsn)
            change_line(m, c);
        return;
    }
    for (uint32_t number = 0; number < small_class_lines(c->class_index); number++)
        if (c->lines[number].lsn < c->lsn)
            format_line(m, c, number);
}

bool slab_line_explained(const struct media *m, const struct slab_change *c)
{
    uint32_t number = slab_line_of(c->block);
    struct pm_slab_line *line = &c->lines[number];
    uint32_t w = slab_word_of(c->block);
    uint64_t bit = slab_bit_of(c->block);
    bool set = (line->bits[w] & bit) != 0;
    uint32_t found = tag_checksum(line->tag);
    if (line->tag != tag_of(c->class_index, number, c->slab_number, found))
        return false;
    if (found == line_checksum(line, line->lsn, c->class_index)) /* untouched by this change */
        return set != c->alloc;
    if (set != c->alloc)
        return false;
    if (found == line_checksum(line, c->lsn, c->class_index)) { /* all but the lsn */
        media_store64(m, &line->lsn, c->lsn);
        return true;
    }
    struct pm_slab_line before = *line;
    before.bits[w] ^= bit;
    if (found != line_checksum(&before, line->lsn, c->class_index))
        return false;
    media_store64(m, &line->bits[w], before.bits[w]); /* only the bits had arrived */
    return true;
}

static bool line_is_zero(const struct pm_slab_line *line)
{
    uint64_t any = line->lsn | line->tag;
    for (uint32_t w = 0; w < SLAB_LINE_WORDS; w++)
        any |= line->bits[w];
    return any == 0;
}

uint64_t slab_line_tag(const struct pm_slab_line *line, unsigned class_index, uint32_t slab_number,
                       uint32_t line_number)
{
    return tag_of(class_index, line_number, slab_number, line_checksum(line, line->lsn, class_index));
}

bool slab_line_is_valid(const struct pm_slab_line *line, uint32_t slab_number, uint32_t line_number)
{
    if (line_is_zero(line))
        return true;
    unsigned class_index = slab_line_class(line);
    return class_index < SMALL_CLASS_TAGS && line->lsn != 0 &&
           line->tag == tag_of(class_index, line_number, slab_number, line_checksum(line, line->lsn, class_index));
}

bool slab_is_ahead(const struct pm_slab_line *lines, uint32_t count, uint64_t newest_lsn)
{
    bool ahead = false;
    for (uint32_t number = 0; number < count; number++)
        ahead = ahead || lines[number].lsn > newest_lsn;
    return ahead;
}

bool slab_is_valid(const struct pm_slab_line *lines, uint32_t slab_number, uint32_t *ret_allocated)
{
    unsigned class_index = slab_line_class(&lines[0]);
    if (!slab_line_is_valid(&lines[0], slab_number, 0))
        return false;
    *ret_allocated = 0;
    if (class_index == SLAB_UNFORMATTED)
        return true;
    uint32_t blocks = small_class_blocks(class_index);
    for (uint32_t number = 0; number < small_class_lines(class_index); number++) {
        if (slab_line_class(&lines[number]) != class_index || !slab_line_is_valid(&lines[number], slab_number, number))
            return false;
        for (uint32_t w = 0; w < SLAB_LINE_WORDS; w++) {
            uint32_t first = number * SLAB_LINE_BITS + w * 64;
            uint64_t usable = first >= blocks ? 0 : blocks - first >= 64 ? ~0ull : (1ull << (blocks - first)) - 1;
            if ((lines[number].bits[w] & ~usable) != 0)
                return false;
            *ret_allocated += (uint32_t)__builtin_popcountll(lines[number].bits[w]);
        }
    }
    return true;
}
