/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * media.h -- the only way to make something durable.
 *
 * Every store to mapped media, every write-back, fence and non-temporal copy of the library goes through this header; every
 * file operation goes through pmem/file.h. One struct media per open pool says what a persist is on this directory (libpmem2
 * decides), so the same code serves eADR, ADR, page-granular file systems and tmpfs.
 *
 * Model that callers rely on (and that the crash explorer enforces): one 64-byte line reaches the media as a prefix of
 * the stores made to it; different lines in any order, at any time from their store on; a line is certain to have arrived
 * after flush + drain by the same thread; the atom is an aligned 8 bytes.
 *
 * Each call site has a name ("file.c:123"), by which the mutation run switches it off and failure reports name it.
 */
#ifndef PMEM_MEDIA_H
#define PMEM_MEDIA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MEDIA_LINE_BYTES 64u

/** What a persist is. Chosen once, at open. */
enum media_mode {
    MEDIA_PROCESS, /* nothing: the page cache survives the process; compiler order only */
    MEDIA_BYTE,    /* persistent CPU caches: order (sfence), no write-back */
    MEDIA_CLWB,    /* clwb + sfence inline, non-temporal stores inline */
    MEDIA_LIBRARY, /* libpmem2's functions: clflushopt, clflush, dc cvap, or under Valgrind */
    MEDIA_PAGE,    /* libpmem2's functions are msync */
    MEDIA_RECORD   /* a test's recorder sees every step and decides */
};

/** Fences executed and lines written back by one operation; the caller adds it to where it counts. */
struct media_tally {
    uint64_t fences, lines;
};

static inline void media_tally_add(struct media_tally *to, const struct media_tally *t)
{
    to->fences += t->fences;
    to->lines += t->lines;
}

enum media_event {
    MEDIA_EVENT_STORE,    /* [address, address + size) has just been stored, in ascending 8-byte steps */
    MEDIA_EVENT_STORE_NT, /* the same by non-temporal stores: needs no flush, only a drain */
    MEDIA_EVENT_FLUSH,    /* write-back of the lines of [address, address + size) */
    MEDIA_EVENT_DRAIN     /* fence; address and size are 0 */
};

/** The recording back end's seam. Used in mode MEDIA_RECORD only. */
struct media_recorder {
    void *context;
    /** Called after a store was made, and in the place of a flush or drain. */
    void (*event)(void *context, enum media_event event, const void *address, size_t size, const char *site);
    /** Asked before a site's effect: true = leave it out (mutation run). NULL = never. For STORE_NT, leaving it out means
     *  that the store is not made. Plain stores are not asked. */
    bool (*skip)(void *context, enum media_event event, const char *site);
};

struct media {
    enum media_mode mode;
    void (*flush_fn)(const void *address, size_t size); /* libpmem2's; modes LIBRARY and PAGE */
    void (*drain_fn)(void);
    void *(*memcpy_fn)(void *dst, const void *src, size_t size, unsigned flags);
    const struct media_recorder *recorder;
    bool read_only; /* private mappings: nothing stored reaches the files */
};

/** Out-of-line parts; use the inline functions and macros below. */
void media_event_(const struct media *m, enum media_event event, const void *address, size_t size, const char *site);
bool media_skip_(const struct media *m, enum media_event event, const char *site);
void media_copy_line_slow_(const struct media *m, struct media_tally *t, void *dst, const void *src, const char *site);
void media_flush_slow_(const struct media *m, const void *address, size_t size, const char *site);
void media_drain_slow_(const struct media *m, const char *site);

#define MEDIA_STRING2_(x) #x
#define MEDIA_STRING_(x)  MEDIA_STRING2_(x)
#define MEDIA_SITE        (__FILE_NAME__ ":" MEDIA_STRING_(__LINE__))

static inline size_t media_lines(const void *address, size_t size)
{
    uintptr_t first = (uintptr_t)address / MEDIA_LINE_BYTES;
    uintptr_t last = ((uintptr_t)address + size - 1) / MEDIA_LINE_BYTES;
    return size == 0 ? 0 : last - first + 1;
}

/** Store 8 aligned bytes, atomically (release order), not yet durable. */
#define media_store64(m, address, value) media_store64_((m), (address), (value), MEDIA_SITE)
static inline void media_store64_(const struct media *m, uint64_t *address, uint64_t value, const char *site)
{
    __atomic_store_n(address, value, __ATOMIC_RELEASE);
    if (__builtin_expect(m->mode == MEDIA_RECORD, 0))
        media_event_(m, MEDIA_EVENT_STORE, address, sizeof *address, site);
}

/* Where the processor may reorder stores, an ordinary one must not overtake the release stores before it: else a line would not
 * arrive as a prefix of the stores made to it. */
static inline void media_order_stores_(void)
{
#if !defined(__x86_64__)
    __atomic_thread_fence(__ATOMIC_RELEASE);
#endif
}

/** Copy size bytes into media by ordinary stores, ascending, not yet durable and not atomic. */
#define media_write(m, dst, src, size) media_write_((m), (dst), (src), (size), MEDIA_SITE)
static inline void media_write_(const struct media *m, void *dst, const void *src, size_t size, const char *site)
{
    media_order_stores_();
    memcpy(dst, src, size);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__builtin_expect(m->mode == MEDIA_RECORD, 0))
        media_event_(m, MEDIA_EVENT_STORE, dst, size, site);
}

/** Set size bytes of media to value by ordinary stores, not yet durable. */
#define media_set(m, dst, value, size) media_set_((m), (dst), (value), (size), MEDIA_SITE)
static inline void media_set_(const struct media *m, void *dst, int value, size_t size, const char *site)
{
    media_order_stores_();
    memset(dst, value, size);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__builtin_expect(m->mode == MEDIA_RECORD, 0))
        media_event_(m, MEDIA_EVENT_STORE, dst, size, site);
}

#if defined(__x86_64__)
__attribute__((target("clwb"))) static inline void media_clwb_(const void *address, size_t size)
{
    uintptr_t a = (uintptr_t)address & ~(uintptr_t)(MEDIA_LINE_BYTES - 1);
    for (; a < (uintptr_t)address + size; a += MEDIA_LINE_BYTES)
        __asm__ volatile("clwb (%0)" ::"r"(a) : "memory");
}
#endif

/** Start writing back the lines of [address, address + size). Durable after the next drain by this thread. */
#define media_flush(m, tally, address, size) media_flush_((m), (tally), (address), (size), MEDIA_SITE)
static inline void media_flush_(const struct media *m, struct media_tally *t, const void *address, size_t size,
                                const char *site)
{
    if (m->mode <= MEDIA_BYTE) {
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        return;
    }
    t->lines += media_lines(address, size);
#if defined(__x86_64__)
    if (__builtin_expect(m->mode == MEDIA_CLWB, 1)) {
        media_clwb_(address, size);
        return;
    }
#endif
    media_flush_slow_(m, address, size, site);
}

/** Wait until what this thread flushed or stored non-temporally is durable. */
#define media_drain(m, tally) media_drain_((m), (tally), MEDIA_SITE)
static inline void media_drain_(const struct media *m, struct media_tally *t, const char *site)
{
    if (m->mode == MEDIA_PROCESS) {
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        return;
    }
    t->fences++;
#if defined(__x86_64__)
    if (__builtin_expect(m->mode <= MEDIA_CLWB, 1)) {
        _mm_sfence();
        return;
    }
#endif
    media_drain_slow_(m, site);
}

#define media_persist(m, tally, address, size) (media_flush((m), (tally), (address), (size)), media_drain((m), (tally)))

/** Copy one whole 64-byte line, both sides line-aligned, so that it needs no flush, only a drain. Arrives as a prefix of its
 *  eight words. Non-temporal where that pays. */
#define media_copy_line(m, tally, dst, src) media_copy_line_((m), (tally), (dst), (src), MEDIA_SITE)
static inline void media_copy_line_(const struct media *m, struct media_tally *t, void *dst, const void *src,
                                    const char *site)
{
#if defined(__x86_64__)
    if (__builtin_expect(m->mode == MEDIA_CLWB, 1)) {
        const __m128i *s = (const __m128i *)src;
        __m128i *d = (__m128i *)dst;
        __m128i a = _mm_load_si128(s), b = _mm_load_si128(s + 1), c = _mm_load_si128(s + 2), e = _mm_load_si128(s + 3);
        _mm_stream_si128(d, a);
        _mm_stream_si128(d + 1, b);
        _mm_stream_si128(d + 2, c);
        _mm_stream_si128(d + 3, e);
        t->lines++;
        return;
    }
#endif
    media_copy_line_slow_(m, t, dst, src, site);
}

#endif
