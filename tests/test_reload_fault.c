/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_reload_fault.c -- a block index has to be read again, for which there is no memory, between the allocation of a block and the
 * question how large it is: as when another thread frees a block without memory for its descriptor.
 */
#include <string.h>

#include "pool/pool.h"
#include "tests/fault/fault.h"
#include "tests/support/owners.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

/* When the allocation makes its segment, what the allocators have read is forgotten, and memory runs out. */
static struct {
    pa_pool *pool;
    const char *file;
} at_file;

static void forget(void *context, const struct dir *d, enum file_op op, const char *name, uint64_t offset,
                   uint64_t size, void *address, const char *site)
{
    (void)d;
    (void)context, (void)offset, (void)size, (void)address, (void)site;
    if (at_file.pool == NULL || op != FILE_OP_MAP || strcmp(name, at_file.file) != 0)
        return;
    for (unsigned i = 0; i < at_file.pool->big_count; i++)
        at_file.pool->bigs[i].incomplete = at_file.pool->bigs[i].loaded;
    fault_source_set(FAULT_MEMORY);
    fault_begin(&(struct fault){.at = 1, .onwards = true});
    fault_arm();
}

static pa_pool *make(const char *dir)
{
    static const struct file_hooks hooks = {.after = forget};
    static const struct pool_params params = {.lanes = 1, .lane_entries = 64, .slots = 16, .hooks = &hooks};
    pa_options options;
    pa_options_init(&options);
    options.segment_size = 1u << 20;
    options.cores = 1;
    pa_pool *pool = NULL;
    CK_OK(pool_create_ex(dir, &options, &params, &pool));
    return pool;
}

START_TEST(a_reallocation_without_memory_to_tell_the_new_size_keeps_the_old_block)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = make(dir.text);
    struct owners o;
    CK_OK(owners_open(&o, pool, 10));
    pa_pptr *dst = owners_at(&o, 0);
    CK_OK(pa_allocate(pool, dst, 16000));
    pa_pptr before = *dst;
    memset(pa_direct(pool, before), 0x5a, 16000);
    at_file.file = "segment-00000002.pa";
    at_file.pool = pool;
    int code = pa_reallocate(pool, dst, 100000);
    at_file.pool = NULL;
    ck_assert_uint_ne(fault_disarm()->fired, 0);
    ck_assert_int_eq(code, PA_ENOMEM);
    ck_assert(dst->segment == before.segment && dst->offset == before.offset);
    CK_OK(pa_reallocate(pool, dst, 100000));
    const unsigned char *bytes = pa_direct(pool, *dst);
    for (size_t i = 0; i < 16000; i++)
        ck_assert_uint_eq(bytes[i], 0x5a);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_root_without_memory_to_tell_its_size_is_zeroed_the_next_time)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = make(dir.text);
    pa_pptr root = PA_NULL;
    at_file.file = "segment-00000002.pa";
    at_file.pool = pool;
    int code = pa_root(pool, 100000, &root);
    at_file.pool = NULL;
    ck_assert_uint_ne(fault_disarm()->fired, 0);
    ck_assert_int_eq(code, PA_ENOMEM);
    memset(pa_direct(pool, pool_root_line(pool)->root), 0x5a, 100000); /* what a used block may hold */
    CK_OK(pa_root(pool, 100000, &root));
    const unsigned char *bytes = pa_direct(pool, root);
    for (size_t i = 0; i < 100000; i++)
        ck_assert_uint_eq(bytes[i], 0);
    pool_finish(pool, dir.text);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, a_reallocation_without_memory_to_tell_the_new_size_keeps_the_old_block, 30);
    ADD(s, a_root_without_memory_to_tell_its_size_is_zeroed_the_next_time, 30);
}

int main(int argc, char **argv)
{
    fault_totals_init();
    return run_main(argc, argv, "reload_fault", add);
}
