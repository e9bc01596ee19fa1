/* SPDX-License-Identifier: BSD-3-Clause */
/* owner_array.c -- see owner_array.h. */
#include "bench/owner_array.h"

#include <string.h>

static int add_chunk(struct owner_array *o, pa_pptr *chunk)
{
    size_t bytes = OWNER_ARRAY_CHUNK * sizeof(pa_pptr);
    int code = pa_allocate(o->pool, chunk, bytes);
    if (code != 0)
        return code;
    memset(pa_direct(o->pool, *chunk), 0, bytes);
    pa_persist(o->pool, pa_direct(o->pool, *chunk), bytes);
    return 0;
}

int owner_array_open(struct owner_array *o, pa_pool *pool, size_t count)
{
    pa_pptr root;
    size_t chunks = (count + OWNER_ARRAY_CHUNK - 1) / OWNER_ARRAY_CHUNK;
    int code = pa_root(pool, OWNER_ARRAY_CHUNKS * sizeof(pa_pptr), &root);
    if (code == 0 && chunks > OWNER_ARRAY_CHUNKS)
        code = PA_EINVAL;
    if (code != 0)
        return code;
    *o = (struct owner_array){pool, pa_direct(pool, root)};
    for (size_t i = 0; i < chunks && code == 0; i++)
        if (pa_is_null(o->chunks[i]))
            code = add_chunk(o, &o->chunks[i]);
    return code;
}
