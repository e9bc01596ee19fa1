/* SPDX-License-Identifier: BSD-3-Clause */
/* big_entry.c -- big entries packed into a lane entry, and their redo. See big_layout.h. */
#include "big/big.h"

uint64_t big_first_of(uint64_t segment_size)
{
    return segment_data_of(segment_size);
}

uint64_t big_entry_key(const struct big_entry *b, enum big_role role)
{
    switch (role) {
    case BIG_ROLE_FREE_BEFORE:
        return b->block - ((uint64_t)b->free_pages << BIG_PAGE_SHIFT);
    case BIG_ROLE_FREE_AFTER:
        return b->block + ((uint64_t)b->used_pages << BIG_PAGE_SHIFT);
    case BIG_ROLE_MERGED:
        return b->block - ((uint64_t)b->used_pages << BIG_PAGE_SHIFT);
    default:
        return b->block;
    }
}

uint64_t big_entry_value(const struct big_entry *b, enum big_role role)
{
    return role == BIG_ROLE_USED ? big_value(b->used_pages, BIG_USED) : big_value(b->free_pages, b->free_state);
}

static uint64_t pack_slot(uint8_t slot)
{
    return slot == TREE_NO_SLOT ? BIG_NO_SLOT : slot;
}

static uint8_t unpack_slot(uint64_t bits)
{
    return (bits & 63) == BIG_NO_SLOT ? TREE_NO_SLOT : (uint8_t)(bits & 63);
}

void big_entry_encode(const struct big_entry *b, struct pm_lane_entry *e)
{
    uint64_t words[BIG_CHANGES_MAX] = {0};
    for (uint32_t i = 0; i < BIG_CHANGES_MAX; i++) {
        words[i] = (uint64_t)(b->free_pages >> (9 * i) & 511) << 55;
        if (i < b->changes)
            words[i] |= b->change[i].leaf / MEDIA_LINE_BYTES | pack_slot(b->change[i].set) << 40 |
                        pack_slot(b->change[i].clear) << 46 | (uint64_t)b->role[i] << 52;
    }
    memcpy(e->argument, words, sizeof words);
    e->changes = (uint8_t)b->changes;
    e->class_index = (uint8_t)b->used_pages;
    e->zero = (uint16_t)(b->used_pages >> 8);
    e->block = b->block;
    if (b->free_state == BIG_HOLE)
        e->flags |= LANE_FLAG_HOLE;
}

static bool slot_is_possible(uint8_t slot)
{
    return slot == TREE_NO_SLOT || slot < TREE_LEAF_SLOTS;
}

bool big_entry_decode(const struct pm_lane_entry *e, struct big_entry *ret)
{
    uint64_t words[BIG_CHANGES_MAX];
    memcpy(words, e->argument, sizeof words);
    struct big_entry b = {.block = e->block,
                          .used_pages = e->class_index | (uint32_t)e->zero << 8,
                          .free_state = e->flags & LANE_FLAG_HOLE ? BIG_HOLE : BIG_FREE,
                          .changes = e->changes};
    if (e->changes == 0 || e->changes > BIG_CHANGES_MAX)
        return false;
    for (uint32_t i = 0; i < BIG_CHANGES_MAX; i++)
        b.free_pages |= (uint32_t)(words[i] >> 55) << (9 * i);
    for (uint32_t i = 0; i < b.changes; i++) {
        b.role[i] = (enum big_role)(words[i] >> 52 & 7);
        if (b.role[i] >= BIG_ROLE_COUNT)
            return false;
        b.change[i] = (struct tree_change){.key = big_entry_key(&b, b.role[i]),
                                           .value = big_entry_value(&b, b.role[i]),
                                           .leaf = (words[i] & 0xffffffffffu) * MEDIA_LINE_BYTES,
                                           .set = unpack_slot(words[i] >> 40),
                                           .clear = unpack_slot(words[i] >> 46)};
        if (!slot_is_possible(b.change[i].set) || !slot_is_possible(b.change[i].clear))
            return false;
    }
    *ret = b;
    return true;
}

int big_redo(const struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, unsigned lane_number,
             bool (*is_leaf)(const struct manager *m, pa_off leaf))
{
    struct big_entry b;
    if (!big_entry_decode(e, &b))
        return lane_refuse_entry(e, lane_number, "it is no change of a block index");
    struct tree_change changes[BIG_CHANGES_MAX] = {{0}};
    size_t n = 0;
    for (uint32_t i = 0; i < b.changes; i++)
        if (is_leaf(m, b.change[i].leaf)) /* else the leaf was freed after this entry, and so was what it held */
            changes[n++] = b.change[i];
    tree_refill(m->media, t, m->base, changes, n, e->lsn);
    tree_redo(m->media, m->base, changes, n, e->lsn);
    for (size_t i = 0; i < n; i++)
        media_flush(m->media, t, m->base + changes[i].leaf, MEDIA_LINE_BYTES);
    return 0;
}

bool big_is_redone(const struct manager *m, const struct pm_lane_entry *e,
                   bool (*is_leaf)(const struct manager *m, pa_off leaf))
{
    struct big_entry b;
    if (!big_entry_decode(e, &b))
        return false;
    for (uint32_t i = 0; i < b.changes; i++) {
        const struct tree_change *c = &b.change[i];
        if (!is_leaf(m, c->leaf))
            return false;
        const struct pm_tree_leaf *leaf = (const struct pm_tree_leaf *)(m->base + c->leaf);
        if (c->set != TREE_NO_SLOT && ((leaf->bitmap >> c->set & 1) == 0 || leaf->entry[c->set].key != c->key ||
                                       leaf->entry[c->set].value != c->value))
            return false;
    }
    return true;
}
