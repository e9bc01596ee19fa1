/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tool.h -- what the subcommands of pallocator share: arguments, results, numbers as people write them.
 *
 * A result goes to stdout, as a table or as one JSON object; what went wrong goes to stderr in one sentence and, with --json,
 * to stdout too: {"ok": false, "code": the PA_... name or "failed", "error": the sentence}.
 */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include <jansson.h>
#include <pallocator.h>
#include <popt.h>

enum tool_exit {
    TOOL_OK = 0,
    TOOL_UNSOUND = 1, /* the pool holds what the library cannot have written */
    TOOL_FAILED = 2   /* usage, or the system */
};

/** What every subcommand takes. */
struct tool {
    poptContext context;
    const char *dir; /* NULL if the subcommand takes none */
    int json, wait;
};

/** Read a subcommand's arguments; own lists its options apart from --json, --wait and --help. wants_dir: exactly one operand, the
 *  pool's directory. Returns TOOL_OK, else the exit code after a message. tool_end releases, also after a failure. */
int tool_begin(struct tool *t, int argc, const char **argv, struct poptOption *own, bool wants_dir);
void tool_end(struct tool *t);
/** Open the tool's pool; flags as in pa_options, layout may be NULL. */
int tool_open(const struct tool *t, unsigned flags, const char *layout, pa_pool **ret_pool);

/** Report the library's last failure; returns the exit code. */
int tool_fail(const struct tool *t, int code);
/** Report wrong usage or a failed system call; returns TOOL_FAILED. */
int tool_fail_text(const struct tool *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Print and release the result object. */
void tool_print(json_t *object);
/** Did everything reach stdout? Else a message; returns the exit code to use. */
int tool_finish(int code);

/** "64", "4K", "2M", "1G", "1T"; also "4KiB". False if it is none or larger than 64 bits. */
bool text_to_size(const char *text, uint64_t *ret);
/** "1.5 MiB"; a buffer of SIZE_TEXT bytes. Returns the buffer. */
#define SIZE_TEXT 24
char *size_to_text(char *buffer, uint64_t size);
/** An option's value; text NULL leaves *ret. Returns TOOL_OK, else the exit code after a message. */
int tool_size_option(const struct tool *t, const char *name, const char *text, uint64_t *ret);
int tool_durability_option(const struct tool *t, const char *text, enum pa_durability *ret);
json_t *json_size(uint64_t size);

int bench_main(int argc, const char **argv);
int check_main(int argc, const char **argv);
int create_main(int argc, const char **argv);
int defrag_main(int argc, const char **argv);
int info_main(int argc, const char **argv);
int map_main(int argc, const char **argv);
int stats_main(int argc, const char **argv);

#endif
