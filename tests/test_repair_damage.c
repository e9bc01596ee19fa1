/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_repair_damage.c -- damage of every kind at random, one to three at once: pa_repair gives a sound pool that has lost no block and
 * hands none out twice, or refuses and changes nothing.
 *
 * Some damage cannot be seen by anybody, as when a line is found as it was an hour ago. So each damage is first done alone: what
 * pa_check then calls sound has those blocks that it has, and repair must not lose any of them when it is done together with others.
 *
 *   --damage=N    other damage       --rounds=N    more of it       --first=N    begin with that round
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log/lane.h"
#include "small/small_slab.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/wreck.h"

#define LINE      64u
#define PAGE      4096u
#define NAMES_MAX 64u

/* --- what the pool is made of --------------------------------------------------------------------------------------------- */

struct place {
    char name[64];
    uint64_t offset, size;
};

static struct wreck_image good, older, other; /* as it is; as it was; another pool */
static struct place library[64];              /* header blocks and leaves of block indexes */
static size_t library_count;
static pa_pptr table;   /* of owner pointers */
static char text[1024]; /* what was damaged in this round */

static void add_place(const struct manager *m, pa_off off)
{
    pa_pptr p = manager_pptr(m, off);
    struct place *at = &library[library_count];
    if (library_count == sizeof library / sizeof *library)
        return;
    segment_name(at->name, &m->geometry, (uint32_t)p.segment);
    at->offset = p.offset;
    at->size = sizeof(struct pm_tree_leaf);
    library_count++;
}

static int add_library(pa_off off, void *arg)
{
    const struct manager *m = arg;
    add_place(m, off);
    if (((const struct pm_tree_header *)(m->base + off))->magic == TREE_MAGIC)
        add_place(m, off + offsetof(struct pm_tree_header, head));
    return 0;
}

/* The pool as it is has been made; what the damage needs to know about it. */
static void look_around(void)
{
    pa_options o;
    pa_pool *pool = NULL;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    CK_OK(pa_open(wreck.dir.text, &o, &pool));
    library_count = 0;
    for (uint32_t slot = 0; slot < pool->manager.slots; slot++) {
        const struct segment *s = manager_segment(&pool->manager, slot);
        if (segment_is_present(s) && atomic_load(&s->kind) == SEGMENT_KIND_SMALL)
            ck_assert_int_eq(small_foreach_library(&pool->manager, s, add_library, &pool->manager), 0);
    }
    ck_assert_uint_gt(library_count, 0);
    const pa_pptr *first = pa_direct(pool, pool_root_line(pool)->root);
    table = first[0];
    CK_OK(pa_close(pool));
    good = wreck_save();
}

/* --- damage --------------------------------------------------------------------------------------------------------------- */

struct damage {
    unsigned kind;
    uint64_t seed;
};

static void say(const char *format, ...)
{
    size_t n = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + n, sizeof text - n, format, arguments);
    va_end(arguments);
}

static size_t index_of(const struct wreck_image *image, const char *name)
{
    for (size_t i = 0; i < image->n; i++)
        if (strcmp(image->names[i], name) == 0)
            return i;
    return SIZE_MAX;
}

static bool is_zero(const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

/* A file of metadata, and so many bytes in it; of what is in use, if that is found soon. */
static struct place somewhere(struct random *r, size_t bytes)
{
    struct place p = {0};
    for (unsigned tries = 0; tries < 60; tries++) {
        uint64_t what = random_below(r, 8), end;
        if (what < 3) {
            snprintf(p.name, sizeof p.name, "pool.pa");
            p.offset = 0;
            end = wreck.geometry.table_offset + 40 * 8;
        } else if (what < 6) {
            size_t i = (size_t)random_below(r, good.n);
            if (strcmp(good.names[i], "pool.pa") == 0)
                continue;
            snprintf(p.name, sizeof p.name, "%s", good.names[i]);
            p.offset = 0;
            end = strstr(p.name, "segment-") != NULL ? small_first_slab_of(WRECK_SEGMENT) : PAGE;
            end = end < good.sizes[i] ? end : good.sizes[i];
        } else {
            p = library[random_below(r, library_count)];
            end = p.offset + p.size;
        }
        p.offset = (p.offset + random_below(r, end - p.offset)) & ~(uint64_t)(bytes - 1);
        p.size = bytes;
        size_t file = index_of(&good, p.name);
        if (file != SIZE_MAX && p.offset + bytes <= good.sizes[file] && !is_zero(good.data[file] + p.offset, bytes))
            break;
        p.size = bytes = p.offset + bytes <= good.sizes[file] ? bytes : 8;
    }
    return p;
}

static bool exists(const char *name)
{
    struct temp_path path = wreck_file(name);
    return access(path.text, F_OK) == 0;
}

/* Files that an earlier damage has taken away stay away. */
static bool put(const struct place *p, const void *bytes)
{
    struct temp_path path = wreck_file(p->name);
    if (!exists(p->name) || temp_file_size(path.text) < p->offset + p->size)
        return false;
    wreck_put(p->name, p->offset, bytes, p->size);
    return true;
}

static void words(struct random *r)
{
    struct place p = somewhere(r, 8);
    uint64_t word;
    memcpy(&word, good.data[index_of(&good, p.name)] + p.offset, sizeof word);
    word ^= random_below(r, 2) == 0 ? 1ull << random_below(r, 64) : random_next(r);
    if (put(&p, &word))
        say(" word %s %llu = %#llx;", p.name, (unsigned long long)p.offset, (unsigned long long)word);
}

static void rubbish(struct random *r, size_t bytes)
{
    char data[PAGE] = {0};
    struct place p = somewhere(r, bytes);
    bool zero = random_below(r, 2) == 0;
    for (size_t i = 0; !zero && i < bytes; i++)
        data[i] = (char)random_next(r);
    if (put(&p, data))
        say(" %zu bytes %s %llu = %s;", (size_t)p.size, p.name, (unsigned long long)p.offset,
            zero ? "zero" : "rubbish");
}

/* As it was before the last operations. */
static void stale(struct random *r, size_t bytes)
{
    for (unsigned tries = 0; tries < 200; tries++) {
        struct place p = somewhere(r, bytes);
        size_t now = index_of(&good, p.name), then = index_of(&older, p.name);
        if (then == SIZE_MAX || older.sizes[then] < p.offset + p.size ||
            memcmp(good.data[now] + p.offset, older.data[then] + p.offset, p.size) == 0)
            continue;
        if (put(&p, older.data[then] + p.offset))
            say(" %zu bytes %s %llu as they were;", (size_t)p.size, p.name, (unsigned long long)p.offset);
        return;
    }
}

static void swapped(struct random *r, size_t bytes)
{
    struct place a = somewhere(r, bytes), b = somewhere(r, bytes);
    for (unsigned tries = 0; tries < 100 && (strcmp(a.name, b.name) != 0 || a.size != b.size); tries++)
        b = somewhere(r, bytes);
    if (a.size != b.size || strcmp(a.name, b.name) != 0)
        return;
    const char *data = good.data[index_of(&good, a.name)];
    if (put(&a, data + b.offset) && put(&b, data + a.offset))
        say(" %zu bytes of %s swapped %llu and %llu;", (size_t)a.size, a.name, (unsigned long long)a.offset,
            (unsigned long long)b.offset);
}

/* --- damage of files ------------------------------------------------------------------------------------------------------ */

static void truncated(struct random *r)
{
    const char *name = good.names[random_below(r, good.n)];
    struct temp_path path = wreck_file(name);
    uint64_t size = good.sizes[index_of(&good, name)];
    uint64_t wanted = random_below(r, 3) == 0 ? size + PAGE : random_below(r, 2) == 0 ? 0 : random_below(r, size);
    if (exists(name) && truncate(path.text, (off_t)wanted) == 0)
        say(" %s has %llu bytes;", name, (unsigned long long)wanted);
}

static void missing(struct random *r)
{
    const char *name = good.names[random_below(r, good.n)];
    struct temp_path path = wreck_file(name);
    if (!exists(name))
        return;
    temp_remove(path.text);
    say(" %s is missing;", name);
}

static const char *one_of(struct random *r, const struct wreck_image *image, const char *kind)
{
    for (unsigned tries = 0; tries < 200; tries++) {
        const char *name = image->names[random_below(r, image->n)];
        if (strstr(name, kind) != NULL)
            return name;
    }
    return image->names[0];
}

/* Two files change their names, or one is there by another's name too. */
static void exchanged(struct random *r)
{
    const char *kind = random_below(r, 4) == 0 ? "" : "segment-";
    const char *a = one_of(r, &good, kind), *b = one_of(r, &good, kind);
    size_t at = index_of(&good, a), bt = index_of(&good, b);
    struct temp_path to_a = wreck_file(a), to_b = wreck_file(b);
    bool both = random_below(r, 2) == 0;
    temp_write_file(to_b.text, good.data[at], good.sizes[at]);
    if (both)
        temp_write_file(to_a.text, good.data[bt], good.sizes[bt]);
    say(" %s is %s%s;", b, a, both ? ", and the other way round" : "");
}

static void foreign(struct random *r)
{
    const char *name = one_of(r, &other, random_below(r, 4) == 0 ? "" : "segment-");
    struct temp_path path = wreck_file(name);
    size_t at = index_of(&other, name);
    temp_write_file(path.text, other.data[at], other.sizes[at]);
    say(" %s is another pool's;", name);
}

/* A file as it was. */
static void stale_file(struct random *r)
{
    const char *name = one_of(r, &older, random_below(r, 3) == 0 ? "" : "segment-");
    struct temp_path path = wreck_file(name);
    size_t at = index_of(&older, name);
    temp_write_file(path.text, older.data[at], older.sizes[at]);
    say(" %s is as it was;", name);
}

/* --- damage with a right checksum ----------------------------------------------------------------------------------------- */

static void sealed_word(struct random *r)
{
    uint32_t slot = 1 + (uint32_t)random_below(r, 30);
    uint64_t word = random_below(r, 4) == 0
                        ? 0
                        : segment_word((enum segment_state)random_below(r, 4), (enum segment_kind)random_below(r, 3),
                                       (unsigned)random_below(r, 4), slot);
    struct place p = {.name = "pool.pa", .offset = wreck.geometry.table_offset + slot * 8, .size = 8};
    if (put(&p, &word))
        say(" table word of slot %u = %#llx;", slot, (unsigned long long)word);
}

static void sealed_entry(struct random *r)
{
    uint64_t entries = (uint64_t)wreck.geometry.lanes * wreck.geometry.lane_entries;
    struct place p = {.name = "pool.pa", .offset = POOL_LANES_OFFSET + random_below(r, entries) * LINE, .size = LINE};
    struct pm_lane_entry e;
    memcpy(&e, good.data[index_of(&good, p.name)] + p.offset, sizeof e);
    ((uint64_t *)&e)[random_below(r, 7)] ^= 1ull << random_below(r, 24);
    e.checksum = lane_entry_checksum(&e);
    if (put(&p, &e))
        say(" entry at %llu with a right checksum;", (unsigned long long)p.offset);
}

static void sealed_line(struct random *r)
{
    const char *name = one_of(r, &good, "segment-");
    uint32_t slab = (uint32_t)random_below(r, small_slabs_of(WRECK_SEGMENT)), number = (uint32_t)random_below(r, 3);
    struct place p = {.offset = SEGMENT_HEADER_BYTES + (uint64_t)slab * SLAB_META_BYTES + number * LINE, .size = LINE};
    snprintf(p.name, sizeof p.name, "%s", name);
    struct pm_slab_line line;
    memcpy(&line, good.data[index_of(&good, name)] + p.offset, sizeof line);
    unsigned class_index = slab_line_class(&line);
    if (line.lsn == 0 || class_index >= SMALL_CLASS_TAGS)
        return;
    if (random_below(r, 2) == 0)
        line.bits[random_below(r, 2)] ^= 1ull << random_below(r, 64);
    else
        line.lsn += random_below(r, 40) - 20;
    line.tag = slab_line_tag(&line, class_index, slab, number);
    if (put(&p, &line))
        say(" %s line %u of slab %u with a right checksum;", p.name, number, slab);
}

static void sealed_superblock(struct random *r)
{
    struct pm_superblock s = wreck.geometry;
    struct place p = {.name = "pool.pa", .size = sizeof s};
    ((uint64_t *)&s)[random_below(r, 18)] ^= 1ull << random_below(r, 40);
    s.checksum = superblock_checksum(&s);
    if (put(&p, &s))
        say(" superblock with a right checksum;");
}

static void do_damage(const struct damage *d)
{
    struct random r = {d->seed};
    switch (d->kind) {
    case 0 ... 7:
        words(&r);
        break;
    case 8 ... 9:
        rubbish(&r, LINE);
        break;
    case 10 ... 11:
        rubbish(&r, PAGE);
        break;
    case 12 ... 13:
        stale(&r, LINE);
        break;
    case 14:
        stale(&r, PAGE);
        break;
    case 15:
        stale(&r, 8);
        break;
    case 16 ... 17:
        swapped(&r, LINE);
        break;
    case 18:
        swapped(&r, 8);
        break;
    case 19:
        swapped(&r, PAGE);
        break;
    case 20:
        truncated(&r);
        break;
    case 21:
        missing(&r);
        break;
    case 22:
        exchanged(&r);
        break;
    case 23:
        foreign(&r);
        break;
    case 24:
        stale_file(&r);
        break;
    case 25:
        sealed_word(&r);
        break;
    case 26:
        sealed_entry(&r);
        break;
    case 27 ... 28:
        sealed_line(&r);
        break;
    default:
        sealed_superblock(&r);
        break;
    }
}
#define KINDS 30u

/* --- what nobody can see -------------------------------------------------------------------------------------------------- */

static bool whole[WRECK_OWNERS], reachable; /* what must not be lost; reachable: the owners themselves */

static bool is_whole(pa_pool *pool, size_t i)
{
    pa_pptr p = wreck.owners[i];
    return pa_is_null(p) ||
           (pa_usable_size(pool, p) >= wreck_size_of(i) && block_is(pa_direct(pool, p), wreck_size_of(i), i));
}

static bool table_is_whole(pa_pool *pool)
{
    const struct pm_root *root = pool_root_line(pool);
    if (pa_is_null(root->root) || pa_usable_size(pool, root->root) < sizeof(pa_pptr) * OWNERS_TABLES_MAX)
        return false;
    const pa_pptr *first = pa_direct(pool, root->root);
    return memcmp(&first[0], &table, sizeof table) == 0 && pa_usable_size(pool, table) != 0 &&
           memcmp(pa_direct(pool, table), wreck.owners, sizeof wreck.owners) == 0;
}

/* If pa_check finds nothing in the damaged pool, it has lost what it has lost. */
static bool note_silent(void)
{
    pa_options o;
    pa_pool *pool = NULL;
    if (pa_check(wreck.dir.text, NULL) != 0)
        return false;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    CK_OK(pa_open(wreck.dir.text, &o, &pool));
    reachable = reachable && table_is_whole(pool);
    for (size_t i = 0; i < WRECK_OWNERS; i++)
        whole[i] = whole[i] && is_whole(pool, i);
    CK_OK(pa_close(pool));
    return true;
}

/* All of them; true if the pool is still sound for all that anybody can see. */
static bool do_all(const struct damage *d, size_t n)
{
    bool sound = true;
    memset(whole, 1, sizeof whole);
    reachable = true;
    for (size_t i = 1; i < n; i++) {
        wreck_restore(&good);
        do_damage(&d[i]);
        note_silent();
    }
    wreck_restore(&good);
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        do_damage(&d[i]);
        sound = note_silent();
    }
    return sound;
}

/* --- judging -------------------------------------------------------------------------------------------------------------- */

static const char *report_now;

static void keeps(pa_pool *pool, const char *when)
{
    bool rebuilt = strstr(report_now, "was rebuilt from its leaves") != NULL;
    for (size_t i = 0; i < WRECK_OWNERS; i++) {
        pa_pptr p = wreck.owners[i];
        if (!whole[i] || pa_is_null(p))
            continue;
        uint64_t size = wreck_size_of(i), usable = pa_usable_size(pool, p);
        bool lost = rebuilt && usable == 0 && size > 16384; /* allocated, as the full pool shows */
        EXPECT(lost || usable >= size, "%s: block %zu (segment %llu offset %llu) is not allocated any more%s\n%.1500s",
               when, i, (unsigned long long)p.segment, (unsigned long long)p.offset, text, report_now);
        EXPECT(block_is(pa_direct(pool, p), size, i), "%s: block %zu has other contents%s\n%.1500s", when, i, text,
               report_now);
    }
}

static void free_what_is_whole(pa_pool *pool)
{
    pa_pptr *at = pa_direct(pool, table);
    for (size_t i = 0; i < WRECK_OWNERS; i++)
        if (whole[i] && !pa_is_null(at[i]) && pa_usable_size(pool, at[i]) != 0)
            CK_OK(pa_deallocate(pool, &at[i]));
}

static void is_sound(const char *when)
{
    char *report = NULL;
    int code = pa_check(wreck.dir.text, &report);
    EXPECT(code == 0, "%s: %s\nafter%s\nand %.1500s", when, report, text, report_now);
    free(report);
}

static void use_repaired(void)
{
    is_sound("repaired");
    pa_pool *pool = wreck_open();
    keeps(pool, "after the repair");
    wreck_no_overlap(pool);
    if (reachable) {
        EXPECT(table_is_whole(pool), "the owners are lost:%s\n%.1500s", text, report_now);
        wreck_fill_and_empty(pool, keeps);
        free_what_is_whole(pool);
    }
    CK_OK(pa_close(pool));
    is_sound("used");
}

static struct counts {
    unsigned repaired, refused, unseen;
} counts;

static void judge(bool sound)
{
    uint64_t before = wreck_hash();
    char *report = NULL;
    int code = pa_repair(wreck.dir.text, NULL, &report);
    report_now = report;
    EXPECT(code == 0 || code == PA_ECORRUPT || code == PA_EVERSION || code == PA_ENOENT || code == PA_ENOTSUP,
           "%d: %s:%s", code, pa_errormsg(), text);
    EXPECT(!sound || code == 0, "a sound pool is refused: %.1500s:%s", report, text);
    if (code != 0) {
        counts.refused++;
        EXPECT(code != PA_ECORRUPT || strstr(report, "refused: ") != NULL, "no reason: %.1500s:%s", report, text);
        EXPECT(wreck_hash() == before, "refused, and changed:%s\n%.1500s", text, report);
    } else {
        EXPECT(!sound || strstr(report, "found: ") == NULL, "a sound pool was changed: %.1500s:%s", report, text);
        ++*(sound ? &counts.unseen : &counts.repaired);
        use_repaired();
    }
    free(report);
}

static void rounds_of_damage(const char *what, unsigned most_refusals)
{
    uint64_t base = run_option("damage", 1), first = run_option("first", 0), rounds = run_option("rounds", 60);
    counts = (struct counts){0};
    for (uint64_t round = first; round < first + rounds; round++) {
        struct random r = {base * 1000003u + round};
        struct damage d[3];
        size_t n = 1 + (size_t)random_below(&r, 3);
        for (size_t i = 0; i < n; i++)
            d[i] = (struct damage){(unsigned)random_below(&r, KINDS), random_next(&r)};
        for (size_t i = 0; i < n; i++)
            if (d[i].kind == 14 ||
                d[i].kind == 24) { /* a whole older ring: nothing else may take away what tells of it */
                d[0] = d[i];
                n = 1;
            }
        bool sound = do_all(d, n);
        if (run_option("verbose", 0) != 0)
            fprintf(stderr, "round %llu:%s\n", (unsigned long long)round, text);
        judge(sound);
    }
    printf("damage of %s: %u repaired, %u refused, %u that nobody can see\n", what, counts.repaired, counts.refused,
           counts.unseen);
    ck_assert_uint_ge(counts.repaired * 100, (counts.repaired + counts.refused) * (100 - most_refusals));
}

/* --- pools ---------------------------------------------------------------------------------------------------------------- */

static void use_more(size_t from, size_t to)
{
    struct owners o;
    pa_pool *pool = wreck_open();
    CK_OK(owners_open(&o, pool, WRECK_OWNERS));
    for (size_t i = from; i < to; i++)
        if (pa_is_null(*owners_at(&o, i)))
            wreck_allocate(&o, i, wreck_size_of(i));
        else if (i % 3 == 0) {
            CK_OK(pa_deallocate(pool, owners_at(&o, i)));
            wreck.owners[i] = PA_NULL;
        }
    CK_OK(pa_close(pool));
}

static void another_pool(unsigned dirs)
{
    wreck_make(true, dirs);
    other = wreck_save();
}

START_TEST(damage_of_a_closed_pool)
{
    another_pool(0);
    wreck_make(true, 0);
    older = wreck_save();
    use_more(30, 60);
    look_around();
    rounds_of_damage("a closed pool", 80);
}
END_TEST

START_TEST(damage_of_a_pool_after_a_crash)
{
    another_pool(0);
    older = wreck_crash(12);
    look_around();
    rounds_of_damage("a pool after a crash", 80);
}
END_TEST

START_TEST(damage_of_a_pool_over_directories)
{
    another_pool(3);
    wreck_make(true, 3);
    older = wreck_save();
    use_more(30, 60);
    look_around();
    rounds_of_damage("a pool over several directories", 80);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, damage_of_a_closed_pool, 120);
    ADD(s, damage_of_a_pool_after_a_crash, 120);
    ADD(s, damage_of_a_pool_over_directories, 120);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "repair_damage", add);
}
