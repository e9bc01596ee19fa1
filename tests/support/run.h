/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * run.h -- what every test program shares: main, options, expectations about results and sentences.
 *
 * A test is one libcheck test case of its own name, so CK_RUN_CASE=<name> runs it alone. Options are given as --name=value
 * or as the environment variable PA_TEST_NAME. --except=name,name leaves tests out, and says so.
 */
#ifndef TESTS_SUPPORT_RUN_H
#define TESTS_SUPPORT_RUN_H

#include <check.h>
#include <pallocator.h>
#include <stdint.h>

/** Run the suite that add fills; returns main's result. Removes the temporary directories. */
int run_main(int argc, char **argv, const char *name, void (*add)(Suite *s));
/** An option's value, or fallback. */
uint64_t run_option(const char *name, uint64_t fallback);
/** The seed of this run: option "seed", else from the clock; printed by run_main. */
uint64_t run_seed(void);

/** Tell how many operations of the library a test has made; scripts/tally adds them up. */
void run_count(uint64_t operations);

/** Make libpmem2 take every file for one on media of this granularity ("CACHE_LINE", "BYTE", "PAGE"; NULL: of what it finds), unless
 *  option "real_media" says that the media of PA_TEST_DIR are the subject (scripts/daxvm): then nothing is pretended, ever. */
void run_pretend(const char *granularity);

void run_add(Suite *s, const TTest *test, const char *name, int timeout_seconds);
/** Add a test as a test case of its own. */
#define ADD(s, test, timeout_seconds) run_add((s), (test), #test, (timeout_seconds))

/** This process's open file descriptors, and its address space in MiB: what a failed call must not keep. */
unsigned process_descriptors(void);
uint64_t process_address_space(void);

/** Forget the thread's sentence, so that a later one is known to be new. */
void sentence_forget(void);
/** True if the thread's sentence is new, not empty, one line, and contains part (NULL = anything). */
bool sentence_is_good(const char *part);

/** As ck_assert_msg, but silent while all is well: libcheck writes each assertion it passes to a file, which takes microseconds
 *  and which a process that gets killed may leave half written. */
#define EXPECT(expr, ...)                                                                                              \
    do {                                                                                                               \
        if (__builtin_expect(!(expr), 0))                                                                              \
            ck_abort_msg(__VA_ARGS__);                                                                                 \
    } while (0)

/** expr must be 0. */
#define CK_OK(expr)                                                                                                    \
    do {                                                                                                               \
        int ck_ok_ = (expr);                                                                                           \
        EXPECT(ck_ok_ == 0, "%s = %s (%d): %s", #expr, pa_strerror(ck_ok_), ck_ok_, pa_errormsg());                    \
    } while (0)

/** expr must fail with code and leave a new sentence that contains part (NULL = anything). */
#define CK_FAILS(expr, code, part)                                                                                     \
    do {                                                                                                               \
        sentence_forget();                                                                                             \
        int ck_fails_ = (expr);                                                                                        \
        EXPECT(ck_fails_ == (code), "%s = %s (%d), expected %s (%d): %s", #expr, pa_strerror(ck_fails_), ck_fails_,    \
               pa_strerror(code), (code), pa_errormsg());                                                              \
        const char *ck_part_ = (part);                                                                                 \
        EXPECT(sentence_is_good(ck_part_), "%s fails with the sentence \"%s\", expected one that has \"%s\"", #expr,   \
               pa_errormsg(), ck_part_ == NULL ? "" : ck_part_);                                                       \
    } while (0)

#endif
