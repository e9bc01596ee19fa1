/* SPDX-License-Identifier: BSD-3-Clause */
/* text.c -- arguments, results and numbers as text. See tool.h. */
#include "tools/tool.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_failure(const struct tool *t, const char *code, const char *message)
{
    fprintf(stderr, "pallocator: %s\n", message);
    if (t->json)
        tool_print(json_pack("{s:b, s:s, s:s}", "ok", 0, "code", code, "error", message));
}

int tool_fail_text(const struct tool *t, const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    print_failure(t, "failed", message);
    return TOOL_FAILED;
}

static const char *error_name(int code)
{
    static const char *const names[] = {"PA_EINVAL",  "PA_ENOMEM",  "PA_ENOSPC",   "PA_EEXIST",
                                        "PA_ENOENT",  "PA_ELOCKED", "PA_ECORRUPT", "PA_EVERSION",
                                        "PA_ELAYOUT", "PA_ENOTSUP", "PA_EACCES",   "PA_EIO"};
    int index = -code - 1;
    return index >= 0 && (size_t)index < sizeof names / sizeof *names ? names[index] : "unknown";
}

int tool_fail(const struct tool *t, int code)
{
    const char *message = pa_errormsg();
    print_failure(t, error_name(code), message[0] != '\0' ? message : pa_strerror(code));
    return code == PA_ECORRUPT ? TOOL_UNSOUND : TOOL_FAILED;
}

void tool_print(json_t *object)
{
    json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(object);
}

int tool_finish(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    fprintf(stderr, "pallocator: cannot write the result: %s\n", strerror(errno));
    return TOOL_FAILED;
}

int tool_begin(struct tool *t, int argc, const char **argv, struct poptOption *own, bool wants_dir)
{
    *t = (struct tool){0};
    struct poptOption shared[] = {{"json", 'j', POPT_ARG_NONE, &t->json, 0, "Print one JSON object instead of a table",
                                   NULL},
                                  {"wait", 'w', POPT_ARG_NONE, &t->wait, 0,
                                   "Wait while another process has the pool open", NULL},
                                  POPT_TABLEEND};
    struct poptOption all[] = {{NULL, 0, POPT_ARG_INCLUDE_TABLE, own, 0, "Options:", NULL},
                               {NULL, 0, POPT_ARG_INCLUDE_TABLE, shared, 0, "Common options:", NULL},
                               POPT_AUTOHELP POPT_TABLEEND};
    t->context = poptGetContext("pallocator", argc, argv, all, 0);
    poptSetOtherOptionHelp(t->context, wants_dir ? "[OPTION...] DIR" : "[OPTION...]");
    int result = poptGetNextOpt(t->context);
    if (result < -1)
        return tool_fail_text(t, "%s: %s; see %s --help", poptBadOption(t->context, POPT_BADOPTION_NOALIAS),
                              poptStrerror(result), argv[0]);
    if (wants_dir)
        t->dir = poptGetArg(t->context);
    if (wants_dir && t->dir == NULL)
        return tool_fail_text(t, "the pool's directory is missing; see %s --help", argv[0]);
    const char *more = poptPeekArg(t->context);
    if (more != NULL)
        return tool_fail_text(t, "\"%s\" is one argument too many; see %s --help", more, argv[0]);
    return TOOL_OK;
}

void tool_end(struct tool *t)
{
    poptFreeContext(t->context);
}

int tool_open(const struct tool *t, unsigned flags, const char *layout, pa_pool **ret_pool)
{
    pa_options o;
    pa_options_init(&o);
    o.flags = flags | (t->wait ? PA_WAIT_LOCK : 0);
    o.layout = layout;
    return pa_open(t->dir, &o, ret_pool);
}

/* The power of two that a suffix stands for; -1 if it is none. */
static int suffix_shift(const char *suffix)
{
    static const char letters[] = "KMGT";
    if (suffix[0] == '\0')
        return 0;
    const char *found = strchr(letters, toupper((unsigned char)suffix[0]));
    if (found == NULL || (suffix[1] != '\0' && strcmp(suffix + 1, "iB") != 0))
        return -1;
    return 10 * (int)(found - letters + 1);
}

bool text_to_size(const char *text, uint64_t *ret)
{
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    int shift = suffix_shift(end);
    if (errno != 0 || shift < 0 || number > UINT64_MAX >> shift)
        return false;
    *ret = (uint64_t)number << shift;
    return true;
}

char *size_to_text(char *buffer, uint64_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    double value = (double)size;
    for (; value >= 1024 && unit < 6; unit++)
        value /= 1024;
    snprintf(buffer, SIZE_TEXT, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return buffer;
}

int tool_size_option(const struct tool *t, const char *name, const char *text, uint64_t *ret)
{
    if (text == NULL || text_to_size(text, ret))
        return TOOL_OK;
    return tool_fail_text(t, "%s %s is not a size; write bytes, or a number with K, M, G or T", name, text);
}

int tool_durability_option(const struct tool *t, const char *text, enum pa_durability *ret)
{
    static const char *const names[] = {"auto", "power", "process"};
    for (unsigned i = 0; text != NULL && i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum pa_durability)i;
            return TOOL_OK;
        }
    return text == NULL ? TOOL_OK : tool_fail_text(t, "--durability %s is none of auto, power, process", text);
}

json_t *json_size(uint64_t size)
{
    return json_integer(size > INT64_MAX ? INT64_MAX : (json_int_t)size);
}
