/* SPDX-License-Identifier: BSD-3-Clause */
/* error.c -- see error.h. One buffer per thread; nothing is allocated. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char error_text[ERROR_TEXT_BYTES];

static size_t error_format(const char *format, va_list arguments)
{
    int written = vsnprintf(error_text, sizeof error_text, format, arguments);
    if (written < 0) {
        error_text[0] = '\0';
        return 0;
    }
    size_t length = (size_t)written < sizeof error_text ? (size_t)written : sizeof error_text - 1;
    /* Names and what is on media come into sentences, and sentences on terminals and into logs. */
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)error_text[i] < ' ' || error_text[i] == 127)
            error_text[i] = '?';
    return length;
}

int error_set(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    error_format(format, arguments);
    va_end(arguments);
    return code;
}

int error_from_errno(int error_number)
{
    switch (error_number) {
    case ENOMEM:
        return PA_ENOMEM;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return PA_ENOSPC;
    case ENOENT:
    case ENOTDIR:
        return PA_ENOENT;
    case EEXIST:
        return PA_EEXIST;
    case EACCES:
    case EPERM:
    case EROFS:
        return PA_EACCES;
    case EOPNOTSUPP:
    case ENOSYS:
        return PA_ENOTSUP;
    case EWOULDBLOCK:
        return PA_ELOCKED;
    default:
        return PA_EIO;
    }
}

int error_set_errno(int error_number, const char *format, ...)
{
    char reason[96];
    va_list arguments;
    va_start(arguments, format);
    size_t used = error_format(format, arguments);
    va_end(arguments);
    errno = error_number; /* for %m */
    snprintf(reason, sizeof reason, ": %m");
    size_t room = sizeof error_text - 1 - strlen(reason); /* a long name gives way to the reason */
    snprintf(error_text + (used < room ? used : room), sizeof reason, "%s", reason);
    return error_from_errno(error_number);
}

void error_save(struct error_text *ret)
{
    memcpy(ret->text, error_text, strlen(error_text) + 1);
}

void error_restore(const struct error_text *saved)
{
    memcpy(error_text, saved->text, strlen(saved->text) + 1);
}

int error_end(int code, const struct error_text *before)
{
    if (code == 0)
        error_restore(before);
    return code;
}

const char *pa_errormsg(void)
{
    return error_text;
}

const char *pa_strerror(int error)
{
    switch (error) {
    case 0:
        return "success";
    case PA_EINVAL:
        return "invalid argument";
    case PA_ENOMEM:
        return "out of memory";
    case PA_ENOSPC:
        return "out of space";
    case PA_EEXIST:
        return "exists already";
    case PA_ENOENT:
        return "not found";
    case PA_ELOCKED:
        return "locked by another process";
    case PA_ECORRUPT:
        return "corrupt";
    case PA_EVERSION:
        return "other format version";
    case PA_ELAYOUT:
        return "other layout";
    case PA_ENOTSUP:
        return "not supported";
    case PA_EACCES:
        return "access denied";
    case PA_EIO:
        return "input/output error";
    default:
        return "unknown error";
    }
}
