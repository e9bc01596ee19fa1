/* SPDX-License-Identifier: BSD-3-Clause */
/* fault.c -- see fault.h. */
#include "tests/fault/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bits.h"

static enum fault_source source_now;
static struct fault now;
static atomic_bool armed;
static atomic_uint seen, fired, interruptions[CALL_COUNT];

/* --- totals --------------------------------------------------------------------------------------------------------------- */

#define OPS_MAX   32u
#define SITES_MAX 4096u

static struct totals {
    atomic_ulong faults, interrupted;
    atomic_uint ops[OPS_MAX];
    _Atomic uint64_t sites[SITES_MAX]; /* hashes of operation, place and errno value */
    atomic_uint site_count;
} * totals;

void fault_totals_init(void)
{
    totals = mmap(NULL, sizeof *totals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (totals == MAP_FAILED)
        abort();
}

void fault_totals_print(const char *name)
{
    printf("%s: %lu faults injected, %u different ones; %lu calls interrupted\n", name, atomic_load(&totals->faults),
           atomic_load(&totals->site_count), atomic_load(&totals->interrupted));
}

bool fault_was_seen(int op)
{
    return atomic_load(&totals->ops[op]) != 0;
}

static void count_fault(int op, const char *site, int error_number)
{
    uint64_t h = 14695981039346656037u ^ (uint64_t)op << 32 ^ (uint64_t)error_number;
    for (const char *c = site; *c != '\0'; c++)
        h = (h ^ (unsigned char)*c) * 1099511628211u;
    h = mix64(h) | 1;
    atomic_fetch_add(&totals->faults, 1);
    atomic_fetch_add(&totals->ops[op], 1);
    for (unsigned i = 0; i < SITES_MAX; i++) {
        uint64_t expected = 0;
        _Atomic uint64_t *place = &totals->sites[(h + i) % SITES_MAX];
        if (atomic_load(place) == h)
            return;
        if (atomic_compare_exchange_strong(place, &expected, h)) {
            atomic_fetch_add(&totals->site_count, 1);
            return;
        }
    }
}

/* --- errno values that fit ------------------------------------------------------------------------------------------------- */

#define FITS_MAX 10
typedef int fits[FITS_MAX]; /* ends with 0 */

static const fits file_fits[FILE_OP_COUNT] = {
    [FILE_OP_OPEN_DIR] = {EACCES, EMFILE, ENFILE, EIO, ENOMEM, EROFS, EINTR},
    [FILE_OP_CREATE] = {ENOSPC, EMFILE, EACCES, EDQUOT, ENFILE, EROFS, EIO, ENOMEM, EINTR},
    [FILE_OP_OPEN] = {EMFILE, EACCES, EIO, ENFILE, EROFS, ENOMEM, EINTR},
    [FILE_OP_STAT] = {EIO, EACCES, ENOMEM, EINTR},
    [FILE_OP_ALLOCATE] = {ENOSPC, EIO, EDQUOT, EFBIG, EOPNOTSUPP, EINTR},
    [FILE_OP_PUNCH] = {EOPNOTSUPP, EIO, ENOSPC, EINTR},
    [FILE_OP_MAP] = {ENOMEM, EACCES, ENFILE, EIO},
    [FILE_OP_SYNC] = {EIO, ENOSPC, EDQUOT, EROFS, EINTR},
    [FILE_OP_UNLINK] = {EACCES, EIO, EROFS, ENOMEM, EBUSY},
    [FILE_OP_SYNC_DIR] = {EIO, ENOSPC, EROFS, EDQUOT, EINTR},
    [FILE_OP_RENAME] = {ENOSPC, EIO, EACCES, EROFS, EDQUOT},
    [FILE_OP_LOCK] = {EWOULDBLOCK, ENOLCK, EIO, EINTR},
    [FILE_OP_RESERVE] = {ENOMEM},
    [FILE_OP_READ] = {EIO, EINTR},
    [FILE_OP_LIST] = {EMFILE, EACCES, ENOMEM, EIO},
    [FILE_OP_WRITE] = {ENOSPC, EIO, EDQUOT, EFBIG, EINTR},
};

static const fits call_fits[CALL_COUNT] = {
    [CALL_MKDIR] = {EACCES, ENOSPC, EROFS, EDQUOT, EIO, ENOMEM},
    [CALL_OPEN] = {EMFILE, EACCES, EIO, ENFILE, EROFS, ENOMEM},
    [CALL_CREATE] = {ENOSPC, EMFILE, EACCES, EDQUOT, ENFILE, EROFS, EIO, ENOMEM},
    [CALL_FLOCK] = {EWOULDBLOCK, ENOLCK, EIO},
    [CALL_FSTAT] = {EIO, ENOMEM},
    [CALL_FSTATAT] = {EIO, EACCES, ENOMEM},
    [CALL_FSTATFS] = {EIO, ENOMEM},
    [CALL_READDIR] = {EIO, EACCES},
    [CALL_PREAD] = {EIO},
    [CALL_PWRITE] = {ENOSPC, EIO, EDQUOT, EFBIG},
    [CALL_FSYNC] = {EIO, ENOSPC, EDQUOT, EROFS},
    [CALL_FALLOCATE] = {ENOSPC, EOPNOTSUPP, EIO, EDQUOT, EFBIG},
    [CALL_PUNCH] = {EOPNOTSUPP, EIO, ENOSPC},
    [CALL_FTRUNCATE] = {EFBIG, EIO, EACCES},
    [CALL_UNLINK] = {EACCES, EIO, EROFS, ENOMEM, EBUSY},
    [CALL_RENAME] = {ENOSPC, EIO, EACCES, EROFS, EDQUOT},
    [CALL_GETRANDOM] = {ENOSYS, EIO},
    [CALL_MAP] = {ENOMEM, EACCES, EIO},
    [CALL_RESERVE] = {ENOMEM},
};

static const fits memory_fits = {ENOMEM};

static const int *fits_of(enum fault_source source, int op)
{
    return source == FAULT_FILE ? file_fits[op] : source == FAULT_CALL ? call_fits[op] : memory_fits;
}

static unsigned count_fits(const int *values)
{
    unsigned n = 0;
    while (n < FITS_MAX && values[n] != 0)
        n++;
    return n;
}

/* --- limits ---------------------------------------------------------------------------------------------------------------- */

static const struct {
    int resource, error_number;
    const char *name;
} limits[LIMIT_COUNT] = {
    [LIMIT_DESCRIPTORS] = {RLIMIT_NOFILE, EMFILE, "descriptors"},
    [LIMIT_FILE_SIZE] = {RLIMIT_FSIZE, EFBIG, "file size"},
    [LIMIT_ADDRESS_SPACE] = {RLIMIT_AS, ENOMEM, "address space"},
};

static const uint64_t file_sizes[] = {0,       4096,   65536, (1 << 20) - 1, 1 << 20, 3 << 19, (3 << 19) + 4096,
                                      2 << 20, 4 << 20};
static const uint64_t more_addresses[] = {0, 65536, 1 << 20, 16 << 20, 256 << 20, 1200ull << 20, 2500ull << 20};
static struct rlimit before_limit;

unsigned fault_limit_steps(enum fault_limit limit)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    if (limit == LIMIT_ADDRESS_SPACE)
        return 0; /* shadow memory */
#endif
    return limit == LIMIT_DESCRIPTORS ? 6
           : limit == LIMIT_FILE_SIZE ? sizeof file_sizes / sizeof *file_sizes
                                      : sizeof more_addresses / sizeof *more_addresses;
}

static uint64_t address_space_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%llu", &pages) != 1)
        abort();
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int lowest_descriptor(void)
{
    int fd = dup(STDERR_FILENO);
    close(fd);
    return fd;
}

static void limit_set(void)
{
    uint64_t step = now.at - 1;
    uint64_t value = now.limit == LIMIT_DESCRIPTORS ? (uint64_t)lowest_descriptor() + step
                     : now.limit == LIMIT_FILE_SIZE ? file_sizes[step]
                                                    : address_space_bytes() + more_addresses[step];
    signal(SIGXFSZ, SIG_IGN);
    if (getrlimit((__rlimit_resource_t)limits[now.limit].resource, &before_limit) != 0)
        abort();
    struct rlimit limit = {.rlim_cur = value, .rlim_max = before_limit.rlim_max};
    if (setrlimit((__rlimit_resource_t)limits[now.limit].resource, &limit) != 0)
        abort();
}

static void limit_lift(void)
{
    if (setrlimit((__rlimit_resource_t)limits[now.limit].resource, &before_limit) != 0)
        abort();
}

void fault_note_limit(struct fault *f)
{
    f->fired = 1;
    f->error_number = limits[f->limit].error_number;
    snprintf(f->site, sizeof f->site, "limit of %s", limits[f->limit].name);
    count_fault((int)f->limit, f->site, f->error_number);
}

/* --- asking ---------------------------------------------------------------------------------------------------------------- */

void fault_source_set(enum fault_source source)
{
    source_now = source;
}

enum fault_source fault_source_now(void)
{
    return source_now;
}

void fault_begin(const struct fault *f)
{
    now = *f;
    atomic_store(&seen, 0);
    atomic_store(&fired, 0);
}

void fault_arm(void)
{
    atomic_store(&armed, true);
    if (source_now == FAULT_LIMIT && now.at != 0)
        limit_set();
}

const struct fault *fault_disarm(void)
{
    if (source_now == FAULT_LIMIT && atomic_load(&armed) && now.at != 0)
        limit_lift();
    atomic_store(&armed, false);
    now.seen = atomic_load(&seen);
    now.fired = atomic_load(&fired);
    return &now;
}

static bool is_removal(enum fault_source source, int op)
{
    if (source == FAULT_FILE)
        return op == FILE_OP_UNLINK || op == FILE_OP_SYNC_DIR;
    return source == FAULT_CALL && (op == CALL_UNLINK || op == CALL_FSYNC);
}

/* The first that fails decides what its errno value is; those after it fail with the same. */
static void note_first(enum fault_source source, int op, const char *name, const char *site)
{
    const int *values = fits_of(source, op);
    now.choices = count_fits(values);
    if (now.choices == 0)
        abort(); /* a new operation: what may it fail with? */
    now.error_number = values[now.pick % now.choices];
    now.op = op;
    snprintf(now.name, sizeof now.name, "%.63s", name);
    snprintf(now.site, sizeof now.site, "%.63s", site);
}

int fault_ask(enum fault_source source, int op, const char *name, const char *site)
{
    if (source != source_now || !atomic_load(&armed))
        return 0;
    unsigned number = atomic_fetch_add(&seen, 1) + 1;
    if (now.at == 0 || number < now.at || (number > now.at && !now.onwards))
        return 0;
    if (atomic_fetch_add(&fired, 1) == 0)
        note_first(source, op, name, site);
    now.removal = now.removal || is_removal(source, op);
    count_fault(op, site, now.error_number);
    return now.error_number;
}

bool fault_interrupts(enum fault_call call)
{
    if (!now.interrupt || !atomic_load(&armed) || atomic_fetch_add(&interruptions[call], 1) % 3 == 2)
        return false;
    atomic_fetch_add(&totals->interrupted, 1);
    return true;
}

bool fault_interrupts_always(uint64_t bytes)
{
    return now.interrupt && atomic_load(&armed) && bytes > 65536;
}

size_t fault_transfer_limit(size_t size)
{
    return now.interrupt && atomic_load(&armed) && size > 7 ? size / 3 : size;
}

static atomic_long live_memory;

long fault_live_memory(void)
{
    return atomic_load(&live_memory);
}

void fault_count_memory(int change)
{
    atomic_fetch_add(&live_memory, change);
}

static int before(void *context, enum file_op op, const char *name, const char *site)
{
    (void)context;
    return fault_ask(FAULT_FILE, (int)op, name, site);
}

const struct file_hooks *fault_hooks(void)
{
    static const struct file_hooks hooks = {.before = before};
    return &hooks;
}

const char *fault_verb(const struct fault *f)
{
    static const char *const verbs[FILE_OP_COUNT] = {
        [FILE_OP_OPEN_DIR] = "open",    [FILE_OP_CREATE] = "create",    [FILE_OP_OPEN] = "open",
        [FILE_OP_STAT] = "examine",     [FILE_OP_ALLOCATE] = "reserve", [FILE_OP_PUNCH] = "punch",
        [FILE_OP_MAP] = "map",          [FILE_OP_SYNC] = "durable",     [FILE_OP_UNLINK] = "remove",
        [FILE_OP_SYNC_DIR] = "durable", [FILE_OP_RENAME] = "rename",    [FILE_OP_LOCK] = "",
        [FILE_OP_RESERVE] = "reserve",  [FILE_OP_READ] = "read",        [FILE_OP_LIST] = "list",
        [FILE_OP_WRITE] = "write",
    };
    return source_now == FAULT_FILE ? verbs[f->op] : "";
}
