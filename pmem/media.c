/* SPDX-License-Identifier: BSD-3-Clause */
/* media.c -- the modes that are not inline, and the choice of a mode. See media.h. */
#include "pmem/media.h"

#include <libpmem2.h>
#include <stdlib.h>

#include "base/error.h"
#include "pmem/file.h"

void media_event_(const struct media *m, enum media_event event, const void *address, size_t size, const char *site)
{
    m->recorder->event(m->recorder->context, event, address, size, site);
}

bool media_skip_(const struct media *m, enum media_event event, const char *site)
{
    return m->recorder->skip != NULL && m->recorder->skip(m->recorder->context, event, site);
}

void media_flush_slow_(const struct media *m, const void *address, size_t size, const char *site)
{
    if (m->mode == MEDIA_RECORD) {
        if (!media_skip_(m, MEDIA_EVENT_FLUSH, site))
            media_event_(m, MEDIA_EVENT_FLUSH, address, size, site);
        return;
    }
    m->flush_fn(address, size);
}

/* libpmem2's drain (1.12) on aarch64 is dmb, which orders write-backs but does not wait for them. */
static void complete_write_backs(void)
{
#if defined(__aarch64__)
    __asm__ volatile("dsb sy" ::: "memory");
#endif
}

void media_drain_slow_(const struct media *m, const char *site)
{
    if (m->mode == MEDIA_RECORD) {
        if (!media_skip_(m, MEDIA_EVENT_DRAIN, site))
            media_event_(m, MEDIA_EVENT_DRAIN, NULL, 0, site);
        return;
    }
    if (m->drain_fn != NULL)
        m->drain_fn();
    complete_write_backs();
}

/* Eight word stores rather than memcpy: in the modes without non-temporal stores a line is still written in ascending order. */
static void store_line(uint64_t *dst, const uint64_t *src)
{
    for (size_t i = 0; i < MEDIA_LINE_BYTES / sizeof *dst; i++)
        __atomic_store_n(&dst[i], src[i], __ATOMIC_RELEASE);
}

void media_copy_line_slow_(const struct media *m, struct media_tally *t, void *dst, const void *src, const char *site)
{
    if (m->mode == MEDIA_RECORD) {
        if (media_skip_(m, MEDIA_EVENT_STORE_NT, site))
            return;
        store_line(dst, src);
        t->lines++;
        media_event_(m, MEDIA_EVENT_STORE_NT, dst, MEDIA_LINE_BYTES, site);
        return;
    }
#if !defined(__aarch64__)           /* there its stores are ordinary and in no certain order */
    if (m->mode == MEDIA_LIBRARY) { /* announces itself to pmemcheck, which a store by hand would not */
        m->memcpy_fn(dst, src, MEDIA_LINE_BYTES, PMEM2_F_MEM_NODRAIN | PMEM2_F_MEM_NONTEMPORAL);
        t->lines++;
        return;
    }
#endif
    store_line(dst, src);
    if (m->mode <= MEDIA_BYTE)
        return;
    m->flush_fn(dst, MEDIA_LINE_BYTES);
    t->lines++;
}

#if defined(__x86_64__)
/* clwb inline only where libpmem2 would use it too: the CPU has it and the user has not switched it off. */
static bool clwb_usable(void)
{
    unsigned eax = 7, ebx, ecx = 0, edx;
    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    const char *off = getenv("PMEM_NO_CLWB");
    return (ebx & (1u << 24)) != 0 && (off == NULL || off[0] == '\0' || off[0] == '0');
}
#else
static bool clwb_usable(void)
{
    return false;
}
#endif

static enum media_mode mode_of(enum pmem2_granularity granularity)
{
    switch (granularity) {
    case PMEM2_GRANULARITY_BYTE:
        return MEDIA_BYTE;
    case PMEM2_GRANULARITY_CACHE_LINE:
        return clwb_usable() ? MEDIA_CLWB : MEDIA_LIBRARY;
    default:
        return MEDIA_PAGE;
    }
}

static bool granularity_forced(void)
{
    const char *force = getenv("PMEM2_FORCE_GRANULARITY");
    return force != NULL && force[0] != '\0';
}

int media_init(struct media *m, const struct dir *d, const struct file *mapped, int durability)
{
    bool process = false;
    if (d->read_only || durability == PA_DURABILITY_PROCESS) {
        process = true; /* a private mapping has no media behind it */
    } else if (dir_is_volatile(d) && !granularity_forced()) {
        if (durability == PA_DURABILITY_POWER)
            return error_set(
                PA_ENOTSUP,
                "%s is on a memory file system, which does not survive power failure; use a directory on a "
                "DAX or disk file system, or PA_DURABILITY_PROCESS",
                d->path);
        process = true;
    }
    m->read_only = d->read_only;
    m->flush_fn = pmem2_get_flush_fn(mapped->map);
    m->drain_fn = pmem2_get_drain_fn(mapped->map);
    m->memcpy_fn = pmem2_get_memcpy_fn(mapped->map);
    m->mode = process ? MEDIA_PROCESS : mode_of(pmem2_map_get_store_granularity(mapped->map));
    return 0;
}

int media_accepts(const struct media *m, const struct file *mapped)
{
    if (m->mode == MEDIA_PROCESS || m->mode == MEDIA_RECORD || mapped->map == NULL) /* mapped as the pool file is */
        return 0;
    if (mode_of(pmem2_map_get_store_granularity(mapped->map)) <= m->mode)
        return 0;
    return error_set(PA_ENOTSUP,
                     "%s lies on a file system that needs stronger write-back than the pool file does; keep the "
                     "pool's directories on file systems of one kind",
                     mapped->name);
}
