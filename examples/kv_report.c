/* SPDX-License-Identifier: BSD-3-Clause */
#include "examples/kv_report.h"

#include <math.h>
#include <string.h>

#define LABEL_WIDTH  44
#define COLUMN_WIDTH 22

/** A row of the table: where its number lies in a run. */
struct row {
    const char *label;
    const char *group; /* "phases": then `name` is the phase's name */
    const char *name;
    const char *field;
    int decimals;
};

static const struct row rows[] = {
    {"load: puts per second", "phases", "load", "per_second", 0},
    {"  CPU ns per put", "phases", "load", "cpu_ns", 0},
    {"  fences per put", "phases", "load", "fences", 2},
    {"  lines written back per put", "phases", "load", "lines", 2},
    {"look up: gets per second", "phases", "lookup", "per_second", 0},
    {"  CPU ns per get", "phases", "lookup", "cpu_ns", 0},
    {"mix: operations per second", "phases", "mix", "per_second", 0},
    {"  CPU ns per operation", "phases", "mix", "cpu_ns", 0},
    {"  fences per operation", "phases", "mix", "fences", 2},
    {"  lines written back per operation", "phases", "mix", "lines", 2},
    {"empty: deletes per second", "phases", "empty", "per_second", 0},
    {"  CPU ns per delete", "phases", "empty", "cpu_ns", 0},
    {"  fences per delete", "phases", "empty", "fences", 2},
    {"open after kill -9, ms (median)", "kill", NULL, "open_ms", 2},
    {"  first put after it, ms (median)", "kill", NULL, "first_put_ms", 3},
    {"memory held, MiB", "memory", NULL, "held_mib", 1},
    {"memory held / live", "memory", NULL, "held_per_live", 2},
    {"kills survived", "verified", NULL, "kills", 0},
    {"  operations acknowledged before them", "verified", NULL, "acknowledged", 0},
    {"  operations in flight: taken place", "verified", NULL, "in_flight_done", 0},
    {"  operations in flight: not", "verified", NULL, "in_flight_undone", 0},
    {"records compared", "verified", NULL, "checked", 0},
    {"  lost, wrong or returned", "verified", NULL, "damaged", 0},
    {"  blocks leaked", "verified", NULL, "leaked", 0},
};

static double value_of(const json_t *run, const struct row *row)
{
    const json_t *group = json_object_get(run, row->group);
    if (row->name != NULL)
        group = json_object_get(group, row->name);
    const json_t *value = json_object_get(group, row->field);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/** 1234567 as "1,234,567". */
static void format(char *buffer, size_t size, double value, int decimals)
{
    char plain[64];
    if (isnan(value)) {
        snprintf(buffer, size, "-");
        return;
    }
    snprintf(plain, sizeof plain, "%.*f", decimals, value);
    size_t whole = strcspn(plain, "."), n = 0;
    for (size_t i = 0; plain[i] != 0 && n + 2 < size; i++) {
        if (i > 0 && i < whole && (whole - i) % 3 == 0)
            buffer[n++] = ',';
        buffer[n++] = plain[i];
    }
    buffer[n] = 0;
}

static void print_rule(FILE *out, size_t columns)
{
    size_t width = LABEL_WIDTH + columns * COLUMN_WIDTH;
    for (size_t i = 0; i < width; i++)
        fputc('-', out);
    fputc('\n', out);
}

static void print_row(FILE *out, const json_t *runs, const struct row *row)
{
    size_t i;
    json_t *run;
    fprintf(out, "%-*s", LABEL_WIDTH, row->label);
    json_array_foreach(runs, i, run)
    {
        char text[64];
        format(text, sizeof text, value_of(run, row), row->decimals);
        fprintf(out, "%*s", COLUMN_WIDTH, text);
    }
    fputc('\n', out);
}

void report_print(FILE *out, const json_t *runs)
{
    size_t i, columns = json_array_size(runs);
    json_t *run;
    const json_t *first = json_array_get(runs, 0);
    fprintf(out, "%lld md5sum lines of %lld files, %lld distinct keys, %lld threads\n\n",
            (long long)json_integer_value(json_object_get(first, "lines")),
            (long long)json_integer_value(json_object_get(first, "files")),
            (long long)json_integer_value(json_object_get(first, "records")),
            (long long)json_integer_value(json_object_get(first, "threads")));
    fprintf(out, "%-*s", LABEL_WIDTH, "");
    json_array_foreach(runs, i, run)
        fprintf(out, "%*s", COLUMN_WIDTH, json_string_value(json_object_get(run, "engine")));
    fputc('\n', out);
    print_rule(out, columns);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        print_row(out, runs, &rows[r]);
    print_rule(out, columns);
    json_array_foreach(runs, i, run)
        fprintf(out, "%s: %s\n", json_string_value(json_object_get(run, "engine")),
                json_is_true(json_object_get(run, "ok")) ? "verified" : "FAILED: a record was lost or a block leaked");
}
