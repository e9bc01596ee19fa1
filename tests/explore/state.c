/* SPDX-License-Identifier: BSD-3-Clause */
/* state.c -- see state.h. */
#include "tests/explore/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

uint64_t random_next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    return mix64(*state);
}

/* --- the space ----------------------------------------------------------------------------------------------------------- */

static uint32_t last_event(const struct pending *p)
{
    return p->stores[p->count - 1].event;
}

static const struct image *sorted_image; /* of the qsort in progress; the explorer's processes have one thread */

static int most_recent_first(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    uint32_t ex = last_event(&sorted_image->lines[x]), ey = last_event(&sorted_image->lines[y]);
    if (ex != ey)
        return ex > ey ? -1 : 1;
    return x < y ? -1 : 1;
}

static uint64_t saturating_product(uint64_t product, uint64_t factor)
{
    return product > UINT32_MAX ? product : product * factor;
}

void state_space_init(struct state_space *s, const struct image *image, uint32_t recent_event, uint64_t seed,
                      const struct state_limits *limits)
{
    *s = (struct state_space){.image = image,
                              .recent_event = recent_event,
                              .seed = seed,
                              .limits = *limits,
                              .product = 1,
                              .file_product = 1,
                              .count = image->lines_count};
    s->order = malloc((s->count + 1) * sizeof *s->order);
    if (s->order == NULL)
        abort();
    for (size_t i = 0; i < s->count; i++)
        s->order[i] = (uint32_t)i;
    sorted_image = image;
    qsort(s->order, s->count, sizeof *s->order, most_recent_first);
    while (s->recent < s->count && last_event(&image->lines[s->order[s->recent]]) >= recent_event)
        s->product = saturating_product(s->product, image->lines[s->order[s->recent++]].count + 1);
    uint64_t all = s->product; /* with the older lines; few enough: all are looked at as the recent ones are */
    for (size_t i = s->recent; i < s->count; i++)
        all = saturating_product(all, image->lines[s->order[i]].count + 1);
    if (all <= limits->exhaustive) {
        s->product = all;
        s->recent = s->count;
    }
    uint8_t radix[FILE_CHOICES_MAX];
    unsigned files = image_file_radix(image, radix);
    for (unsigned i = 0; i < files; i++)
        s->file_product = saturating_product(s->file_product, radix[i]);
}

void state_space_fini(struct state_space *s)
{
    free(s->order);
    s->order = NULL;
}

/* --- codes to choices ---------------------------------------------------------------------------------------------------- */

static void decode_files(const struct state_space *s, uint32_t code, struct choice *c)
{
    uint8_t radix[FILE_CHOICES_MAX];
    unsigned count = image_file_radix(s->image, radix);
    for (unsigned i = 0; i < count; i++) {
        c->file[i] = (uint8_t)(code % radix[i]);
        code /= radix[i];
    }
}

static void keep_all(const struct state_space *s, struct choice *c)
{
    for (size_t i = 0; i < s->count; i++)
        c->prefix[i] = s->image->lines[i].count;
}

/* A third none, a third all, a third some prefix. */
static uint32_t random_prefix(uint64_t *random, uint32_t count)
{
    uint64_t x = random_next(random);
    return x % 3 == 0 ? 0 : x % 3 == 1 ? count : (uint32_t)((x >> 8) % (count + 1));
}

static void decode_random(const struct state_space *s, uint64_t number, struct choice *c)
{
    uint64_t random = mix64(s->seed ^ mix64(number + 1));
    /* Often only recent lines vary: the others all kept, or none. */
    uint64_t how = random_next(&random) % 4;
    for (size_t i = 0; i < s->count; i++) {
        uint32_t line = s->order[i], count = s->image->lines[line].count;
        if (i < s->recent || how < 2)
            c->prefix[line] = random_prefix(&random, count);
        else
            c->prefix[line] = how == 2 ? 0 : count;
    }
}

static void decode_combination(const struct state_space *s, uint64_t number, uint32_t older, struct choice *c)
{
    uint64_t random = mix64(s->seed ^ mix64(older));
    for (size_t i = 0; i < s->count; i++) {
        uint32_t line = s->order[i], count = s->image->lines[line].count;
        if (i < s->recent) {
            c->prefix[line] = (uint32_t)(number % (count + 1));
            number /= count + 1;
        } else {
            c->prefix[line] = older == 0 ? 0 : older == 1 ? count : random_prefix(&random, count);
        }
    }
}

bool state_decode(const struct state_space *s, const struct state_code *code, struct choice *c)
{
    choice_reset(c, s->image);
    decode_files(s, code->files, c);
    const struct pending *lines = s->image->lines;
    if (strchr("lbpqde", code->kind) != NULL && code->a >= s->count)
        return false;
    if (strchr("de", code->kind) != NULL && code->b >= s->count)
        return false;
    if (strchr("abqek", code->kind) != NULL)
        keep_all(s, c);
    switch (code->kind) {
    case 'n':
    case 'a':
        return true;
    case 'k':
        decode_files(s, (uint32_t)(s->file_product - 1), c);
        return true;
    case 'l':
        c->prefix[code->a] = lines[code->a].count;
        return true;
    case 'b':
        c->prefix[code->a] = 0;
        return true;
    case 'p':
    case 'q':
        c->prefix[code->a] = code->b;
        return code->b <= lines[code->a].count;
    case 'd':
        c->prefix[code->a] = lines[code->a].count;
        c->prefix[code->b] = lines[code->b].count;
        return true;
    case 'e':
        c->prefix[code->a] = c->prefix[code->b] = 0;
        return true;
    case 'x':
        decode_combination(s, code->a, code->b, c);
        return true;
    case 'r':
        decode_random(s, code->a, c);
        return true;
    default:
        return false;
    }
}

/* --- the walk ------------------------------------------------------------------------------------------------------------ */

struct walk {
    struct state_space *s;
    struct choice choice;
    int (*visit)(void *arg, const struct state_code *code, const struct choice *c);
    void *arg;
    uint64_t random;
};

static int offer(struct walk *w, char kind, uint64_t a, uint32_t b, uint32_t files)
{
    struct state_code code = {kind, a, b, files};
    if (!state_decode(w->s, &code, &w->choice))
        return 0;
    return w->visit(w->arg, &code, &w->choice);
}

static uint32_t random_files(struct walk *w)
{
    return w->s->file_product <= 1 ? 0 : (uint32_t)(random_next(&w->random) % w->s->file_product);
}

/* None and all, with every combination of what may have happened to names and sizes. */
static int walk_ends(struct walk *w)
{
    uint64_t n = w->s->file_product;
    bool sampled = n > w->s->limits.files;
    uint64_t count = sampled ? w->s->limits.files : n;
    int stop = 0;
    for (uint64_t i = 0; i < count && stop == 0; i++) {
        uint32_t files = !sampled || i == 0 ? (uint32_t)i : i == 1 ? (uint32_t)(n - 1) : random_files(w);
        stop = offer(w, 'n', 0, 0, files);
        if (stop == 0)
            stop = offer(w, 'a', 0, 0, files);
    }
    return stop;
}

/* A combination that keeps every file operation, now and then another one. */
static uint32_t some_files(struct walk *w)
{
    return random_next(&w->random) % 4 != 0 ? (uint32_t)(w->s->file_product - 1) : random_files(w);
}

static int walk_combinations(struct walk *w)
{
    uint64_t n = w->s->product;
    int stop = 0;
    if (w->s->recent == 0 || n > w->s->limits.exhaustive)
        return 0;
    unsigned older = w->s->recent < w->s->count ? 3 : 1;
    for (unsigned o = 0; o < older && stop == 0; o++)
        for (uint64_t i = 0; i < n && stop == 0; i++)
            stop = offer(w, 'x', i, o < 2 ? o : 2 + (uint32_t)i, some_files(w));
    return stop;
}

/* The k-th line to look at alone: recent ones first; where there are too many, the rest is drawn. */
static uint32_t single_line(struct walk *w, uint64_t k)
{
    const struct state_space *s = w->s;
    if (s->count <= s->limits.singles || k < s->limits.singles / 2)
        return s->order[k];
    return s->order[random_next(&w->random) % s->count];
}

static int walk_prefixes(struct walk *w, uint32_t line)
{
    uint32_t count = w->s->image->lines[line].count;
    uint32_t step = count > 24 ? count / 24 : 1;
    int stop = 0;
    for (uint32_t k = 1; k < count && stop == 0; k += step) {
        stop = offer(w, 'p', line, k, some_files(w));
        if (stop == 0)
            stop = offer(w, 'q', line, k, some_files(w));
    }
    return stop;
}

static int walk_singles(struct walk *w)
{
    uint64_t n = w->s->count < w->s->limits.singles ? w->s->count : w->s->limits.singles;
    int stop = 0;
    for (uint64_t k = 0; k < n && stop == 0; k++) {
        uint32_t line = single_line(w, k);
        stop = offer(w, 'l', line, 0, some_files(w));
        if (stop == 0)
            stop = offer(w, 'b', line, 0, some_files(w));
        if (stop == 0)
            stop = walk_prefixes(w, line);
    }
    return stop;
}

static int walk_pairs(struct walk *w)
{
    uint32_t n = (uint32_t)w->s->count;
    int stop = 0;
    if (n > w->s->limits.pairs)
        return 0;
    for (uint32_t i = 0; i < n && stop == 0; i++) {
        for (uint32_t j = i + 1; j < n && stop == 0; j++) {
            stop = offer(w, 'd', i, j, some_files(w));
            if (stop == 0)
                stop = offer(w, 'e', i, j, some_files(w));
        }
    }
    return stop;
}

static int walk_random(struct walk *w, unsigned round)
{
    int stop = 0;
    if (w->s->count + w->s->file_product <= 2)
        return 0;
    for (uint32_t k = 0; k < w->s->limits.random && stop == 0; k++)
        stop = offer(w, 'r', (uint64_t)round * w->s->limits.random + k, 0, random_files(w));
    return stop;
}

static bool kills_here(const struct state_space *s)
{
    const struct state_limits *l = &s->limits;
    if (l->kills == 0)
        return false;
    bool at_names = s->file_product > 1 && (l->name_kills == 0 || mix64(s->seed + 1) % l->name_kills == 0);
    return at_names || mix64(s->seed) % l->kills == 0;
}

int state_space_walk(struct state_space *s, unsigned round,
                     int (*visit)(void *arg, const struct state_code *code, const struct choice *c), void *arg)
{
    struct walk w = {.s = s, .visit = visit, .arg = arg, .random = mix64(s->seed ^ (round + 1))};
    int stop = 0;
    if (round == 0) {
        stop = walk_ends(&w);
        if (stop == 0)
            stop = walk_combinations(&w);
        if (stop == 0)
            stop = walk_singles(&w);
        if (stop == 0)
            stop = walk_pairs(&w);
        if (stop == 0 && kills_here(s))
            stop = offer(&w, 'k', 0, 0, 0);
    }
    if (stop == 0)
        stop = walk_random(&w, round);
    choice_fini(&w.choice);
    return stop;
}

/* --- texts --------------------------------------------------------------------------------------------------------------- */

void state_format(const struct state_code *code, char *text, size_t size)
{
    char files[16] = "";
    if (code->files != 0)
        snprintf(files, sizeof files, "f%u", code->files);
    if (strchr("nak", code->kind) != NULL)
        snprintf(text, size, "%c%s", code->kind, files);
    else if (strchr("lbr", code->kind) != NULL)
        snprintf(text, size, "%c%llu%s", code->kind, (unsigned long long)code->a, files);
    else
        snprintf(text, size, "%c%llu.%u%s", code->kind, (unsigned long long)code->a, code->b, files);
}

void state_format_choice(const struct image *image, const struct choice *c, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "v");
    const char *separator = "";
    for (size_t i = 0; i < c->count && used + 48 < size; i++) {
        if (c->prefix[i] == 0)
            continue;
        used += (size_t)snprintf(text + used, size - used, "%s%zu=%u", separator, i, c->prefix[i]);
        separator = ",";
    }
    uint8_t radix[FILE_CHOICES_MAX];
    unsigned count = image_file_radix(image, radix);
    uint64_t code = 0;
    for (unsigned i = count; i-- > 0;)
        code = code * radix[i] + c->file[i];
    if (code != 0)
        snprintf(text + used, size - used, "f%llu", (unsigned long long)code);
}

bool state_is_kill(const char *text)
{
    return text[0] == 'k';
}

static bool parse_lines(const struct state_space *s, const char *text, struct choice *c)
{
    while (*text != '\0' && *text != 'f') {
        char *end;
        unsigned long line = strtoul(text, &end, 10);
        if (end == text || *end != '=' || line >= s->count)
            return false;
        text = end + 1;
        unsigned long kept = strtoul(text, &end, 10);
        if (end == text || kept > s->image->lines[line].count)
            return false;
        c->prefix[line] = (uint32_t)kept;
        text = *end == ',' ? end + 1 : end;
    }
    return true;
}

bool state_parse(const struct state_space *s, const char *text, struct choice *c)
{
    struct state_code code = {.kind = text[0]};
    if (text[0] == '\0')
        return false;
    const char *files = strchr(text, 'f');
    code.files = files == NULL ? 0 : (uint32_t)strtoul(files + 1, NULL, 10);
    if (code.kind == 'v') {
        choice_reset(c, s->image);
        decode_files(s, code.files, c);
        return parse_lines(s, text + 1, c);
    }
    char *end;
    code.a = strtoull(text + 1, &end, 10);
    if (*end == '.')
        code.b = (uint32_t)strtoul(end + 1, NULL, 10);
    return state_decode(s, &code, c);
}
