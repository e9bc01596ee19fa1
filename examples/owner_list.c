/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * owner_list.c -- a persistent stack: how blocks that are linked by 8-byte pa_off get in and out without a leak.
 *
 *   owner_list DIR push WORD | pop | show | crash WORD      (crash: a push that dies in the middle)
 *
 * A linked list cannot hand its links to pa_allocate: a node must be filled before the list shows it, and a 16-byte owner cannot
 * be moved by one store. So there is one owner, `pending`, for the node on its way in or out, and the links are pa_off,
 * which one 8-byte store changes. The rule after a crash: if the top of the list is the pending node, the list owns it; else
 * nobody does.
 *   push | durable after the step        | a crash after it       pop | durable after the step     | a crash after it
 *   1    | pending = new node            | freed: not pushed      1   | pending = the top          | kept: not popped
 *   2    | the node's contents           | freed: not pushed      2   | top = the next node        | freed: popped
 *   3    | top = node (one 8-byte store) | kept: pushed           3   | node freed, pending = null | popped
 *   4    | pending = null                | pushed
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pallocator.h>

struct node {
    pa_off next;
    char word[56];
};

struct root {
    pa_pptr pending;
    pa_off top;
};

/* A pa_pptr is two words of one line, which reach the media in the order of the stores. Offset first when it is set, segment
 * first when it is cleared: a half-written one has segment 0, which holds no blocks. */
static void set_pending(pa_pool *pool, struct root *root, pa_pptr node)
{
    __atomic_store_n(&root->pending.offset, node.offset, __ATOMIC_RELEASE);
    __atomic_store_n(&root->pending.segment, node.segment, __ATOMIC_RELEASE);
    pa_persist(pool, &root->pending, sizeof root->pending);
}

static void clear_pending(pa_pool *pool, struct root *root)
{
    __atomic_store_n(&root->pending.segment, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&root->pending.offset, 0, __ATOMIC_RELEASE);
    pa_persist(pool, &root->pending, sizeof root->pending);
}

static void set_top(pa_pool *pool, struct root *root, pa_off top)
{
    __atomic_store_n(&root->top, top, __ATOMIC_RELEASE);
    pa_persist(pool, &root->top, sizeof root->top);
}

static int recover(pa_pool *pool, struct root *root)
{
    if (pa_is_null(root->pending))
        return 0;
    if (pa_usable_size(pool, root->pending) == 0 || pa_off_of(pool, root->pending) == root->top) {
        clear_pending(pool, root);
        return 0;
    }
    return pa_deallocate(pool, &root->pending);
}

static int push(pa_pool *pool, struct root *root, const char *word, int crash)
{
    int r = pa_allocate(pool, &root->pending, sizeof(struct node));
    if (r < 0)
        return r;
    struct node *node = pa_direct(pool, root->pending);
    memset(node, 0, sizeof *node);
    node->next = root->top;
    snprintf(node->word, sizeof node->word, "%s", word);
    pa_persist(pool, node, sizeof *node);
    if (crash)
        abort();
    set_top(pool, root, pa_off_of(pool, root->pending));
    clear_pending(pool, root);
    return 0;
}

static int pop(pa_pool *pool, struct root *root)
{
    if (root->top == 0)
        return PA_ENOENT;
    const struct node *node = pa_off_direct(pool, root->top);
    puts(node->word);
    set_pending(pool, root, pa_off_pptr(pool, root->top));
    set_top(pool, root, node->next);
    return pa_deallocate(pool, &root->pending);
}

static int show(pa_pool *pool, const struct root *root)
{
    pa_stats stats;
    for (pa_off at = root->top; at != 0;) {
        const struct node *node = pa_off_direct(pool, at);
        puts(node->word);
        at = node->next;
    }
    int r = pa_get_stats(pool, &stats);
    if (r == 0)
        printf("%llu blocks, the root included\n", (unsigned long long)stats.allocated_blocks);
    return r;
}

static int run(pa_pool *pool, struct root *root, const char *command, const char *word)
{
    if (strcmp(command, "push") == 0 && word != NULL)
        return push(pool, root, word, 0);
    if (strcmp(command, "crash") == 0 && word != NULL)
        return push(pool, root, word, 1);
    if (strcmp(command, "pop") == 0)
        return pop(pool, root);
    if (strcmp(command, "show") == 0)
        return show(pool, root);
    fprintf(stderr, "usage: owner_list DIR push WORD | pop | show | crash WORD\n");
    return PA_EINVAL;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: owner_list DIR push WORD | pop | show | crash WORD\n");
        return 2;
    }
    pa_pool *pool;
    pa_pptr p;
    int r = pa_open(argv[1], NULL, &pool);
    if (r == PA_ENOENT)
        r = pa_create(argv[1], NULL, &pool);
    if (r < 0) {
        fprintf(stderr, "%s\n", pa_errormsg());
        return 2;
    }
    r = pa_root(pool, sizeof(struct root), &p);
    if (r == 0)
        r = recover(pool, pa_direct(pool, p));
    if (r == 0)
        r = run(pool, pa_direct(pool, p), argv[2], argc > 3 ? argv[3] : NULL);
    if (r < 0)
        fprintf(stderr, "%s: %s\n", argv[2], pa_strerror(r));
    pa_close(pool);
    return r < 0 ? 1 : 0;
}
