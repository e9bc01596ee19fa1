/* SPDX-License-Identifier: BSD-3-Clause */
/* record.c -- runs a scenario once and keeps its trace. See explore.h. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "tests/explore/explore.h"

void history_record(struct history *h, const struct scenario *s, unsigned number, const char *root, struct sites *sites,
                    const struct run_options *o)
{
    memset(h, 0, sizeof *h);
    h->scenario = s;
    h->seed = o->seed;
    h->random = mix64(o->seed + 1);
    snprintf(h->root, sizeof h->root, "%s", root);
    snprintf(h->dir, sizeof h->dir, "%s/pool", root);
    recorder_init(&h->recorder, sites, &h->trace, root);
    h->recorder.scenario = number;
    if (o->shadow && sites->mutant < 0 && !s->threads)
        recorder_keep_shadow(&h->recorder);
    remove_tree(root);
    if (mkdir(root, 0700) != 0 || (!s->bare && recorder_make_dir(&h->recorder, "pool") != 0))
        history_fail(h, "cannot make %s", h->dir);
    history_from_here(h);
    history_pin(0); /* the core a thread runs on chooses the allocator object */
    if (h->problem[0] == '\0' && s->run(h) != 0)
        history_fail(h, "the run failed: %s", pa_errormsg());
    history_unpin();
    recorder_check_shadow(&h->recorder);
    if (h->recorder.problem[0] != '\0')
        history_fail(h, "%s", h->recorder.problem);
    remove_tree(root);
}
