/* SPDX-License-Identifier: BSD-3-Clause */
/* file_copy.c -- see file_copy.h. */
#include "pmem/file_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"

#define COPY_BYTES (1u << 20)

static int copy_content(struct dir *from, struct file *in, struct dir *to, struct file *out)
{
    char *buffer = malloc(COPY_BYTES);
    if (buffer == NULL)
        return error_set(PA_ENOMEM, "no memory to copy %s/%s", from->path, in->name);
    int code = 0;
    for (uint64_t done = 0; code == 0 && done < in->size; done += COPY_BYTES) {
        size_t n = in->size - done < COPY_BYTES ? (size_t)(in->size - done) : COPY_BYTES;
        code = file_read(from, in, done, buffer, n);
        if (code == 0)
            code = file_write(to, out, done, buffer, n);
    }
    free(buffer);
    return code;
}

/* The copy is durable before the original goes. */
static int copy_over(struct dir *from, struct dir *to, const char *name)
{
    struct file in = {.fd = -1}, out = {.fd = -1};
    int code = file_open(from, &in, name);
    if (code != 0)
        return code;
    code = dir_unlink(to, name, false); /* what a copy that was cut off has left */
    if (code == 0)
        code = file_create(to, &out, name, in.size, true);
    if (code == 0)
        code = copy_content(from, &in, to, &out);
    if (code == 0)
        code = file_sync(to, &out);
    if (code == 0)
        code = dir_sync_of(to, name);
    if (code == 0)
        code = dir_unlink(from, name, false);
    file_close(from, &in);
    file_close(to, &out);
    return code;
}

/* Tell the test of a renaming. */
static void after_move(const struct dir *from, const struct dir *to, const char *name)
{
    const struct file_hooks *hooks = from->hooks;
    char path[PATH_MAX];
    if (hooks == NULL || hooks->after == NULL)
        return;
    snprintf(path, sizeof path, "%s/%s", to->path, name);
    hooks->after(hooks->context, from, FILE_OP_RENAME, name, 0, 0, path, MEDIA_SITE);
}

int dir_move(struct dir *from, struct dir *to, const char *name)
{
    const struct file_hooks *hooks = from->hooks;
    int failure =
        hooks != NULL && hooks->before != NULL ? hooks->before(hooks->context, FILE_OP_RENAME, name, MEDIA_SITE) : 0;
    if (failure == 0 && renameat(from->fd, name, to->fd, name) != 0)
        failure = errno;
    int code = 0;
    if (failure == 0)
        after_move(from, to, name);
    if (failure == EXDEV)
        code = copy_over(from, to, name);
    else if (failure != 0 && !(failure == ENOENT && faccessat(to->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0))
        return error_set_errno(failure, "cannot move %s/%s to %s", from->path, name, to->path);
    if (code == 0)
        code = dir_sync_of(to, name);
    return code == 0 ? dir_sync_of(from, name) : code;
}
