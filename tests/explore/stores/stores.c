/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stores.c -- runs the histories of all scenarios, and a mix of all operations with several seeds, over a library whose every store is
 * watched (watch.h). First each kind of store past the helpers must be seen.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pmem/file.h"
#include "tests/explore/explore.h"
#include "tests/explore/scenarios.h"
#include "tests/explore/stores/bypass.h"
#include "tests/explore/stores/watch.h"

#define MIX_SEEDS 60u

static struct history history;

static void observe(enum media_event event, const void *address, size_t size)
{
    watch_event(event, address, size);
}

/* Record a history, and nothing of it may have been stored past the helpers. */
static bool run_history(const struct scenario *s, const char *dir, uint64_t seed, struct sites *sites)
{
    struct run_options o;
    run_options_init(&o);
    o.seed = seed;
    watch_reset(0);
    history_record(&history, s, 0, dir, sites, &o);
    watch_check();
    struct watch_counts counts = watch_counts();
    bool sound = counts.bypasses == 0 && counts.stores > 0 && history.problem[0] == '\0';
    printf("%-24s %4" PRIu64 " %6zu operations %8" PRIu64 " stores %6" PRIu64 " past the helpers %s\n", s->name, seed,
           history.ops_count, counts.stores, counts.bypasses, history.problem);
    history_fini(&history);
    return sound;
}

/* A line of a file of its own, in an address range as pools have it. */
static bool self_test(const char *dir, struct sites *sites)
{
    struct recorder r;
    char world[64];
    struct trace trace = {0};
    struct dir d;
    struct file f;
    const uint64_t size = 1u << 21;
    snprintf(world, sizeof world, "%.*s", (int)(strrchr(dir, '/') - dir), dir);
    recorder_init(&r, sites, &trace, world);
    struct media m = {.mode = MEDIA_RECORD, .recorder = &r.media};
    if (dir_open(&d, dir, true, false, &r.hooks) != 0 || dir_reserve(&d, size, size, size) != 0 ||
        file_create(&d, &f, "file", 4096, false) != 0 || file_map(&d, &f, 0) != 0)
        return false;
    bool good = true;
    for (unsigned i = 0; i < bypasses_count; i++) {
        watch_reset(1);
        bypasses[i].store(&m, f.address);
        watch_check();
        struct watch_counts counts = watch_counts();
        bool right = counts.stores > 0 && (counts.bypasses == 0) == bypasses[i].allowed;
        if (!right)
            printf("self-test: a store by %s: %" PRIu64 " seen, %" PRIu64 " as past the helpers\n", bypasses[i].what,
                   counts.stores, counts.bypasses);
        good &= right;
    }
    file_close(&d, &f);
    dir_close(&d);
    recorder_fini(&r);
    trace_fini(&trace);
    remove_tree(dir);
    printf("self-test: %u kinds of store: %s\n", bypasses_count, good ? "each is seen as what it is" : "BLIND");
    return good;
}

int main(void)
{
    char scratch[] = "/dev/shm/explore-stores.XXXXXX", dir[64];
    struct sites *sites = sites_new();
    if (mkdtemp(scratch) == NULL) {
        perror(scratch);
        return 2;
    }
    snprintf(dir, sizeof dir, "%s/pool", scratch);
    recorder_observer = (struct recorder_observer){observe, watch_range};
    bool good = self_test(dir, sites);
    for (unsigned i = 0; scenarios[i] != NULL; i++)
        if (!scenarios[i]->self_test && !scenarios[i]->private_maps)
            good &= run_history(scenarios[i], dir, 1, sites);
    for (uint64_t seed = 2; seed < 2 + MIX_SEEDS; seed++)
        good &= run_history(&scenario_everything, dir, seed, sites);
    remove_tree(scratch);
    printf("%s\n", good ? "every store came through pmem/media.h" : "FAILED");
    return good ? 0 : 1;
}
