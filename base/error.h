/* SPDX-License-Identifier: BSD-3-Clause */
/* error.h -- the calling thread's last failure as a code and a sentence. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <pallocator.h>

/** Keep a sentence for pa_errormsg() and return code, so that callers write `return error_set(...)`. */
int error_set(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** As error_set for a failed system call: picks the code that fits error_number (an errno value) and appends its text. */
int error_set_errno(int error_number, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** The code error_set_errno would pick. */
int error_from_errno(int error_number);

/** The sentence, kept while a failure is cleaned up after: what goes wrong there is not what the caller has to know. */
#define ERROR_TEXT_BYTES 512
struct error_text {
    char text[ERROR_TEXT_BYTES];
};
void error_save(struct error_text *ret);
void error_restore(const struct error_text *saved);
/** The end of a call that may meet failures on its way to success: then the sentence from before it stays. Returns code. */
int error_end(int code, const struct error_text *before);

#endif
