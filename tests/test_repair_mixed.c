/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_repair_mixed.c -- damage in which every part looks sound by itself: older states mixed with the newest one, zeros, words that give
 * blocks to others. Each was once repaired into a pool that handed out somebody's block.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log/lane.h"
#include "tests/support/run.h"
#include "tests/support/wreck.h"

#define LINE 64u
#define PAGE 4096u

/* --- helpers -------------------------------------------------------------------------------------------------------------- */

static unsigned repairs, refusals;

/* Blocks whose pairs are lost stay allocated: what fills the pool does not get them. */
static void use(void)
{
    pool_check_sound(wreck.dir.text);
    pa_pool *pool = wreck_open();
    wreck.pairs_are_lost = true;
    wreck_survives(pool, "after the repair");
    wreck_no_overlap(pool);
    wreck_fill_and_empty(pool, wreck_survives);
    CK_OK(pa_close(pool));
    pool_check_sound(wreck.dir.text);
}

/* If pa_check finds something: sound and whole after the repair, or refused and unchanged. */
static void repaired_or_refused(void)
{
    char *report = NULL;
    if (pa_check(wreck.dir.text, NULL) == 0)
        return;
    uint64_t before = wreck_hash();
    int code = pa_repair(wreck.dir.text, NULL, &report);
    EXPECT(code == 0 || code == PA_ECORRUPT, "%s", pa_errormsg());
    if (code == 0) {
        repairs++;
        use();
    } else {
        refusals++;
        EXPECT(strstr(report, "refused: ") != NULL, "%s", report);
        EXPECT(wreck_hash() == before, "refused, and changed");
    }
    free(report);
}

static void refused(const char *part)
{
    char *report = NULL;
    uint64_t before = wreck_hash();
    ck_assert_int_eq(pa_check(wreck.dir.text, NULL), PA_ECORRUPT);
    ck_assert_int_eq(pa_repair(wreck.dir.text, NULL, &report), PA_ECORRUPT);
    EXPECT(strstr(report, "refused: ") != NULL && strstr(report, part) != NULL, "the report lacks \"%s\": %s", part,
           report);
    free(report);
    EXPECT(wreck_hash() == before, "refused, and changed");
}

static const char *bytes_of(const struct wreck_image *image, const char *name)
{
    for (size_t i = 0; i < image->n; i++)
        if (strcmp(image->names[i], name) == 0)
            return image->data[i];
    ck_abort_msg("no %s", name);
    return NULL;
}

/* Where lane 0's block index begins. */
static uint64_t index_place(char name[32])
{
    pa_pptr p;
    wreck_get("pool.pa", superblock_cores_offset(&wreck.geometry), &p, sizeof p);
    ck_assert(!pa_is_null(p));
    wreck_name(name, p.segment, false);
    return p.offset;
}

/* Some blocks are freed, others made: the index is another. */
static void use_more(void)
{
    struct owners o;
    pa_pool *pool = wreck_open();
    CK_OK(owners_open(&o, pool, WRECK_OWNERS));
    for (size_t i = 30; i < 60; i++)
        if (pa_is_null(*owners_at(&o, i))) {
            wreck_allocate(&o, i, wreck_size_of(i));
        } else if (i % 3 == 0) {
            CK_OK(pa_deallocate(pool, owners_at(&o, i)));
            wreck.owners[i] = PA_NULL;
        }
    CK_OK(pa_close(pool));
}

/* --- block indexes -------------------------------------------------------------------------------------------------------- */

/* Every line of an index but one is of today. What a single such line looks like may be beyond anybody (pa_check: sound); it is then
 * not repaired either. With a damaged word in the header beside it, repair has to do something. */
START_TEST(an_older_line_of_a_block_index_hands_out_no_block)
{
    char name[32];
    uint64_t rubbish = 0xdeadbeef12345678u;
    wreck_make(true, 0);
    struct wreck_image older = wreck_save();
    use_more();
    struct wreck_image good = wreck_save();
    uint64_t at = index_place(name);
    for (uint64_t line = 0; line < TREE_HEADER_BYTES; line += LINE) {
        const char *then = bytes_of(&older, name) + at + line;
        if (memcmp(then, bytes_of(&good, name) + at + line, LINE) == 0)
            continue;
        wreck_restore(&good);
        wreck_put(name, at + line, then, LINE);
        if (pa_check(wreck.dir.text, NULL) == 0)
            continue; /* nobody can see it: what is lost so is not repair's */
        repaired_or_refused();
        wreck_restore(&good);
        wreck_put(name, at + line, then, LINE);
        wreck_put(name, at + 56, &rubbish, sizeof rubbish); /* the header's checksum */
        repaired_or_refused();
    }
    ck_assert_uint_gt(repairs + refusals, 2);
}
END_TEST

START_TEST(lines_of_a_block_index_that_changed_places_hand_out_no_block)
{
    char name[32];
    wreck_make(true, 0);
    struct wreck_image good = wreck_save();
    uint64_t at = index_place(name), head = at + offsetof(struct pm_tree_header, head);
    for (uint64_t a = 0; a < 12 * LINE; a += LINE)
        for (uint64_t b = a + LINE; b < 12 * LINE; b += 3 * LINE) {
            wreck_restore(&good);
            wreck_put(name, head + a, bytes_of(&good, name) + head + b, LINE);
            wreck_put(name, head + b, bytes_of(&good, name) + head + a, LINE);
            repaired_or_refused();
        }
    ck_assert_uint_gt(repairs + refusals, 10);
}
END_TEST

START_TEST(a_zeroed_page_of_a_block_index_hands_out_no_block)
{
    char name[32], zero[PAGE] = {0};
    wreck_make(true, 0);
    uint64_t at = index_place(name);
    wreck_put(name, at & ~(uint64_t)(PAGE - 1), zero, PAGE);
    repaired_or_refused();
    ck_assert_uint_eq(repairs + refusals, 1);
}
END_TEST

START_TEST(a_core_line_of_zeros_gets_its_block_index_back)
{
    char zero[LINE] = {0}, *report = NULL;
    wreck_make(true, 0);
    wreck_put("pool.pa", superblock_cores_offset(&wreck.geometry), zero, LINE);
    EXPECT(pa_check(wreck.dir.text, &report) == PA_ECORRUPT && strstr(report, "block index") != NULL, "%s", report);
    free(report);
    repaired_or_refused();
    ck_assert_uint_eq(repairs, 1);
}
END_TEST

/* --- the segment table ---------------------------------------------------------------------------------------------------- */

static uint64_t big_slot(void)
{
    for (size_t i = 1; i < WRECK_OWNERS; i++)
        if (!pa_is_null(wreck.owners[i]) && wreck_size_of(i) > 20000)
            return wreck.owners[i].segment;
    ck_abort_msg("no big block");
    return 0;
}

/* A word that is right by its checksum, and gives the blocks to somebody else. The index's header is damaged, so that it is rebuilt. */
START_TEST(a_word_that_takes_a_block_index_its_segment_is_refused)
{
    static const struct {
        enum segment_state state;
        enum segment_kind kind;
        unsigned owner;
    } words[] = {{SEGMENT_STATE_READY, SEGMENT_KIND_SMALL, 1},
                 {SEGMENT_STATE_READY, SEGMENT_KIND_NONE, 0},
                 {SEGMENT_STATE_READY, SEGMENT_KIND_BIG, 1},
                 {SEGMENT_STATE_CREATING, SEGMENT_KIND_NONE, 0}};
    char name[32];
    uint64_t rubbish = 0xdeadbeef12345678u;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        wreck_make(true, 0);
        uint32_t slot = (uint32_t)big_slot();
        uint64_t word = segment_word(words[i].state, words[i].kind, words[i].owner, slot);
        wreck_put("pool.pa", wreck.geometry.table_offset + slot * 8, &word, sizeof word);
        uint64_t at = index_place(name);
        wreck_put(name, at + 56, &rubbish, sizeof rubbish);
        refused("block index");
    }
}
END_TEST

START_TEST(core_lines_and_table_of_zeros_are_refused)
{
    char name[32], zero[PAGE] = {0};
    wreck_make(true, 0);
    uint64_t at = index_place(name);
    wreck_put(name, at & ~(uint64_t)(PAGE - 1), zero, PAGE);
    wreck_put("pool.pa", superblock_cores_offset(&wreck.geometry), zero,
              wreck.geometry.table_offset + 40 * 8 - superblock_cores_offset(&wreck.geometry));
    refused("");
}
END_TEST

/* --- lanes ---------------------------------------------------------------------------------------------------------------- */

static void spoil_entry(uint32_t entry)
{
    uint64_t rubbish[8];
    for (size_t i = 0; i < 8; i++)
        rubbish[i] = 0xdeadbeef12345678u * (entry + i + 1);
    wreck_put("pool.pa", POOL_LANES_OFFSET + (uint64_t)entry * LINE, rubbish, sizeof rubbish);
}

static uint32_t newest(void)
{
    struct pm_lane_entry ring[64];
    struct lane_scan scan;
    wreck_get("pool.pa", POOL_LANES_OFFSET, ring, sizeof ring);
    CK_OK(lane_scan(ring, 64, 0, &scan));
    return scan.newest;
}

/* One entry is left: that its change stands says nothing of the others. */
START_TEST(a_lane_of_rubbish_is_not_taken_for_settled)
{
    wreck_crash(12);
    uint32_t keep = (newest() + 40) % 64;
    for (uint32_t i = 0; i < 64; i++)
        if (i != keep)
            spoil_entry(i);
    refused("lane 0");
}
END_TEST

/* The two newest entries look like a torn one and a lost old one. */
START_TEST(the_loss_of_the_two_newest_entries_is_noticed)
{
    for (unsigned more = 0; more < 4; more++) {
        wreck_crash(12);
        uint32_t last = newest();
        for (uint32_t i = 0; i < 2 + more; i++)
            spoil_entry((last + 64 - i) % 64);
        refused("lane 0");
    }
}
END_TEST

/* --- slab lines ----------------------------------------------------------------------------------------------------------- */

/* Pages of slab lines change places: the slabs below look as if they had never been used. */
START_TEST(pages_of_slab_lines_that_changed_places_lose_no_block)
{
    char names[40][64];
    wreck_make(true, 0);
    struct wreck_image good = wreck_save();
    size_t n = temp_list(wreck.dir.text, "segment-", names, 40);
    for (size_t i = 0; i < n; i++) {
        const char *data = bytes_of(&good, names[i]);
        wreck_restore(&good);
        wreck_put(names[i], PAGE, data + 2 * PAGE, PAGE);
        wreck_put(names[i], 2 * PAGE, data + PAGE, PAGE);
        repaired_or_refused();
    }
    ck_assert_uint_gt(repairs + refusals, 0);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, an_older_line_of_a_block_index_hands_out_no_block, 60);
    ADD(s, lines_of_a_block_index_that_changed_places_hand_out_no_block, 120);
    ADD(s, a_zeroed_page_of_a_block_index_hands_out_no_block, 30);
    ADD(s, a_core_line_of_zeros_gets_its_block_index_back, 30);
    ADD(s, a_word_that_takes_a_block_index_its_segment_is_refused, 30);
    ADD(s, core_lines_and_table_of_zeros_are_refused, 30);
    ADD(s, a_lane_of_rubbish_is_not_taken_for_settled, 30);
    ADD(s, the_loss_of_the_two_newest_entries_is_noticed, 30);
    ADD(s, pages_of_slab_lines_that_changed_places_lose_no_block, 60);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "repair_mixed", add);
}
