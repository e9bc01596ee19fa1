/* SPDX-License-Identifier: BSD-3-Clause */
/* hello.c -- allocate, crash, find the block again: run it twice on the same directory. */
#include <stdio.h>
#include <stdlib.h>
#include <pallocator.h>

struct root {
    pa_pptr greeting; /* the owner: null, or the pointer to an allocated block */
};

int main(int argc, char **argv)
{
    pa_pool *pool;
    pa_pptr p;
    int r = argc == 2 ? pa_open(argv[1], NULL, &pool) : PA_EINVAL;
    if (r == PA_ENOENT)
        r = pa_create(argv[1], NULL, &pool);
    if (r < 0 || pa_root(pool, sizeof(struct root), &p) < 0)
        return fprintf(stderr, "usage: hello DIR; %s\n", pa_errormsg()), 2;
    struct root *root = pa_direct(pool, p);
    if (pa_is_null(root->greeting)) {
        /* allocated and owned by root->greeting, or neither: even if power fails inside */
        if (pa_allocate(pool, &root->greeting, 64) < 0)
            return fprintf(stderr, "%s\n", pa_errormsg()), 2;
        pa_memcpy_persist(pool, pa_direct(pool, root->greeting), "hello again", 12);
        abort(); /* crash: no close, nothing saved */
    }
    puts(pa_direct(pool, root->greeting));
    return pa_deallocate(pool, &root->greeting) < 0 || pa_close(pool) < 0;
}
