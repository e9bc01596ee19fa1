/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blocks.c MODE DIR -- a program for memcheck. "clean" uses everything as it should be used; every other mode makes one mistake
 * with a block. Exit code 0 if the library did what it was asked; what memcheck sees is for the caller to compare.
 */
#include <fptree.h>
#include <pallocator.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool_watch.h"

#define OWNERS 128u
#define MIB    (UINT64_C(1) << 20)

struct root {
    pa_pptr owner[OWNERS];
    pa_pptr tree;
};

static pa_pool *pool;
static struct root *root;
static volatile char sink;

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        if ((call) != 0) {                                                                                             \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, pa_errormsg());                              \
            exit(2);                                                                                                   \
        }                                                                                                              \
    } while (0)

static void open_pool(const char *dir, bool create, unsigned cores)
{
    pa_options o;
    pa_options_init(&o);
    o.segment_size = MIB;
    o.max_size = 64 * MIB;
    o.cores = cores; /* with one, blocks lie where the last ones left off */
    pa_pptr p;
    TRY((create ? pa_create : pa_open)(dir, &o, &pool));
    TRY(pa_root(pool, sizeof *root, &p));
    root = pa_direct(pool, p);
}

static char *allocate(unsigned i, size_t size)
{
    TRY(pa_allocate(pool, &root->owner[i], size));
    return pa_direct(pool, root->owner[i]);
}

static void fill(unsigned i)
{
    size_t size = pa_usable_size(pool, root->owner[i]);
    char *block = pa_direct(pool, root->owner[i]);
    memset(block, (int)i, size);
    pa_persist(pool, block, size);
}

/* --- clean ----------------------------------------------------------------------------------------------------------------- */

static void check_filled(unsigned i, size_t size)
{
    const unsigned char *block = pa_direct(pool, root->owner[i]);
    if (block[0] != (unsigned char)i || block[size / 2] != (unsigned char)i || block[size - 1] != (unsigned char)i) {
        fprintf(stderr, "block %u of %zu bytes is not what was written\n", i, size);
        exit(2);
    }
}

static void free_all(void)
{
    for (unsigned i = 0; i < OWNERS; i++)
        TRY(pa_deallocate(pool, &root->owner[i]));
}

/* Blocks of one size, filled, half of them freed, and allocated again in another size: so that the library finds what was freed
 * in its way. */
static void churn(size_t first, size_t second, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        allocate(i, first);
        fill(i);
    }
    for (unsigned i = 0; i < count; i += 2)
        TRY(pa_deallocate(pool, &root->owner[i]));
    for (unsigned i = 0; i < count; i += 2) {
        allocate(i, second);
        fill(i);
    }
    for (unsigned i = 0; i < count; i++)
        check_filled(i, i % 2 == 0 ? second : first);
    free_all();
}

static void reallocate_through(const size_t *sizes, unsigned count)
{
    allocate(5, sizes[0]);
    fill(5);
    for (unsigned i = 1; i < count; i++) {
        TRY(pa_reallocate(pool, &root->owner[5], sizes[i]));
        check_filled(5, sizes[i] < sizes[i - 1] ? sizes[i] : sizes[i - 1]);
        fill(5);
    }
    free_all();
}

static int visit_pair(uint64_t key, uint64_t value, void *arg)
{
    *(uint64_t *)arg += key == value;
    return 0;
}

static void grow_tree(uint64_t keys)
{
    fptree *t;
    uint64_t found = 0;
    TRY(fptree_open(pool, &root->tree, &t));
    for (uint64_t key = 0; key < keys; key++)
        TRY(fptree_upsert(t, key * 7919 % keys, key * 7919 % keys));
    TRY(fptree_scan(t, 0, visit_pair, &found));
    for (uint64_t key = keys / 4; key < keys; key++)
        TRY(fptree_remove(t, key));
    TRY(fptree_close(t));
    if (found != keys) {
        fprintf(stderr, "%llu of %llu keys found\n", (unsigned long long)found, (unsigned long long)keys);
        exit(2);
    }
}

/* Pages that begin with a freed block are written back: by msync as a whole. */
static void write_back_behind_freed(void)
{
    for (unsigned i = 0; i < OWNERS; i++)
        allocate(i, 1024);
    for (unsigned i = 0; i < OWNERS; i += 2)
        TRY(pa_deallocate(pool, &root->owner[i]));
    for (unsigned i = 1; i < OWNERS; i += 2)
        fill(i);
    free_all();
}

/* Blocks that are named by 8 bytes, from within, and from behind one another: none is lost. */
static void own_in_every_way(void)
{
    struct node {
        pa_pptr owner;
        pa_off next;
    } * node[3];
    for (unsigned i = 0; i < 3; i++) {
        node[i] = memset(allocate(10 + i, 60), 0, 60);
        if (i > 0)
            node[i - 1]->next = pa_off_of(pool, root->owner[10 + i]) + 8;
    }
    TRY(pa_allocate(pool, &node[2]->owner, 3 * MIB));
    root->owner[11] = root->owner[12] = PA_NULL;
}

/* An owner that lies in its own block: the free nulls it. */
static void free_owner_of_itself(void)
{
    pa_pptr *inside = (pa_pptr *)allocate(7, 256);
    memset(inside, 0, 256);
    inside[3] = root->owner[7];
    root->owner[7] = PA_NULL;
    TRY(pa_deallocate(pool, &inside[3]));
}

static int count_block(pa_pptr block, size_t usable_size, void *arg)
{
    (void)usable_size;
    sink = *(const char *)pa_direct(pool, block);
    ++*(unsigned *)arg;
    return 0;
}

static void *thread_churn(void *arg)
{
    unsigned first = *(unsigned *)arg;
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = first; i < first + 8; i++) {
            allocate(i, i % 4 == 0 ? 50000 : 64 + round);
            fill(i);
        }
        for (unsigned i = first; i < first + 8; i++)
            TRY(pa_deallocate(pool, &root->owner[i]));
    }
    return NULL;
}

static void threads(void)
{
    static unsigned first[2] = {0, 64};
    pthread_t thread[2];
    for (unsigned i = 0; i < 2; i++)
        TRY(pthread_create(&thread[i], NULL, thread_churn, &first[i]));
    for (unsigned i = 0; i < 2; i++)
        TRY(pthread_join(thread[i], NULL));
}

static void everything(void)
{
    static const size_t small[] = {40, 100, 64, 5000, 30}, big[] = {20000, 200000, 400000, 30000, 100},
                        huge[] = {2 * MIB, 3 * MIB, 8 * MIB, 1 * MIB + 4096, 50000};
    churn(64, 24, OWNERS);
    churn(768, 2560, OWNERS);
    churn(40000, 70000, 60);
    churn(3 * MIB, 2 * MIB, 4);
    reallocate_through(small, 5);
    reallocate_through(big, 5);
    reallocate_through(huge, 5);
    write_back_behind_freed();
    free_owner_of_itself();
    TRY(pa_allocate_aligned(pool, &root->owner[1], 100, 4096));
    TRY(pa_allocate_aligned(pool, &root->owner[2], 100000, 65536));
    fill(1);
    fill(2);
    free_all();
    grow_tree(1000);
    uint64_t released;
    TRY(pa_defragment(pool, UINT64_MAX, &released));
    churn(16, 16384, OWNERS);
    threads();
}

static int clean(const char *dir)
{
    everything();
    for (unsigned i = 0; i < 20; i++) {
        allocate(i, 1000 * (i + 1));
        fill(i);
    }
    TRY(pa_close(pool)); /* with blocks that are allocated: their owners are in the pool */
    open_pool(dir, false, 2);
    unsigned blocks = 0;
    TRY(pa_foreach(pool, count_block, &blocks));
    for (unsigned i = 0; i < 20; i++)
        check_filled(i, 1000 * (i + 1));
    free_all();
    everything();
    own_in_every_way();
    TRY(pa_close(pool));
    TRY(pa_check(dir, NULL));
    return blocks >= 21 ? 0 : 2;
}

/* --- mistakes -------------------------------------------------------------------------------------------------------------- */

static void use_after_free(size_t size)
{
    char *block = allocate(0, size);
    fill(0);
    allocate(1, size); /* so that the segment, or the slab, stays */
    TRY(pa_deallocate(pool, &root->owner[0]));
    sink = block[size / 2];
}

static void overrun(size_t size)
{
    char *block = allocate(0, size);
    size_t usable = pa_usable_size(pool, root->owner[0]);
    block[usable - 1] = 1;
    block[usable] = 1;
}

/* Into what the block has beyond the bytes that were asked for: behind that lies another block. */
static void overrun_asked(void)
{
    char *block = allocate(0, 50);
    block[49] = 1;
    block[50] = 1;
}

static void overrun_asked_after_resize(void)
{
    allocate(0, 50);
    TRY(pa_reallocate(pool, &root->owner[0], 5000));
    char *block = pa_direct(pool, root->owner[0]);
    block[4999] = 1;
    block[5000] = 1;
}

/* The only pointer to a list of three is overwritten. */
static void lose_a_list(void)
{
    pa_pptr *owner = &root->owner[0];
    for (unsigned i = 0; i < 3; i++) {
        TRY(pa_allocate(pool, owner, 100));
        owner = memset(pa_direct(pool, *owner), 0, 100);
    }
    root->owner[0] = PA_NULL;
    pa_persist(pool, root, sizeof *root);
}

/* A block is freed that still owns another. */
static void lose_a_child(void)
{
    pa_pptr *parent = memset(allocate(0, 30000), 0, 30000);
    TRY(pa_allocate(pool, &parent[100], 2 * MIB));
    TRY(pa_deallocate(pool, &root->owner[0]));
}

/* Into a neighbour that was freed. Big blocks are cut from the end of a free one, so the second lies before the first. */
static void overrun_into_freed(void)
{
    char *first = allocate(0, 100000);
    char *second = allocate(1, 100000);
    size_t usable = pa_usable_size(pool, root->owner[1]);
    if (second + usable != first) {
        fprintf(stderr, "the blocks do not lie side by side\n");
        exit(2);
    }
    fill(0);
    TRY(pa_deallocate(pool, &root->owner[0]));
    second[usable - 1] = 1;
    second[usable] = 1;
}

static void use_after_move(void)
{
    char *block = allocate(0, 64);
    fill(0);
    TRY(pa_reallocate(pool, &root->owner[0], 5000));
    sink = block[8];
}

static void use_after_shrink(void)
{
    char *block = allocate(0, 200000);
    fill(0);
    TRY(pa_reallocate(pool, &root->owner[0], 50000));
    sink = block[0];
    sink = block[150000];
}

static void uninitialised(void)
{
    const char *block = allocate(0, 64);
    if (block[8] == 1)
        sink = 1;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const char *mode = argv[1], *dir = argv[2];
    open_pool(dir, true, strcmp(mode, "clean") == 0 ? 2 : 1);
    if (!pool->watched || pool->media.mode == MEDIA_CLWB) {
        fprintf(stderr, "the library does not know that it runs under Valgrind\n");
        return 3;
    }
    const char *force = getenv("PMEM2_FORCE_GRANULARITY");
    if (force != NULL && strcmp(force, "CACHE_LINE") == 0 && pool->media.mode != MEDIA_LIBRARY) {
        fprintf(stderr, "write-backs pass by libpmem2\n");
        return 3;
    }
    if (strcmp(mode, "clean") == 0)
        return clean(dir);
    if (strcmp(mode, "overrun-asked") == 0)
        overrun_asked();
    else if (strcmp(mode, "overrun-asked-after-resize") == 0)
        overrun_asked_after_resize();
    else if (strcmp(mode, "lose-list") == 0)
        lose_a_list();
    else if (strcmp(mode, "lose-child") == 0)
        lose_a_child();
    else if (strcmp(mode, "use-after-free") == 0)
        use_after_free(64);
    else if (strcmp(mode, "use-after-free-big") == 0)
        use_after_free(100000);
    else if (strcmp(mode, "overrun") == 0)
        overrun(64);
    else if (strcmp(mode, "overrun-big") == 0)
        overrun_into_freed();
    else if (strcmp(mode, "use-after-move") == 0)
        use_after_move();
    else if (strcmp(mode, "use-after-shrink") == 0)
        use_after_shrink();
    else if (strcmp(mode, "uninitialised") == 0)
        uninitialised();
    else
        return 2;
    TRY(pa_close(pool));
    return 0;
}
