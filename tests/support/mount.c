/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/run.h"
#include "tests/support/temp.h"

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return written;
}

/* Into namespaces where this process may mount, once. */
static bool enter_namespace(void)
{
    static bool entered;
    if (entered)
        return true;
    char map[64];
    uid_t uid = getuid();
    gid_t gid = getgid();
    if (unshare(CLONE_NEWNS) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
            return false;
        snprintf(map, sizeof map, "0 %u 1", (unsigned)uid);
        if (!write_text("/proc/self/uid_map", map))
            return false;
        (void)write_text("/proc/self/setgroups", "deny");
        snprintf(map, sizeof map, "0 %u 1", (unsigned)gid);
        if (!write_text("/proc/self/gid_map", map))
            return false;
    }
    entered = mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    return entered;
}

bool mount_is_possible(void)
{
    pid_t child = fork();
    if (child == 0) {
        char path[] = "/tmp/pallocator-mount.XXXXXX";
        if (mkdtemp(path) == NULL)
            _exit(1);
        bool mounted = enter_namespace() && mount("none", path, "tmpfs", 0, "size=1m") == 0;
        if (mounted)
            umount(path);
        rmdir(path);
        _exit(mounted ? 0 : 1);
    }
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void mount_tmpfs(const char *path, uint64_t bytes)
{
    char size[64];
    snprintf(size, sizeof size, "size=%llu,mode=0755,huge=never", (unsigned long long)bytes);
    temp_make_dir(path);
    EXPECT(enter_namespace(), "no namespace to mount in: %s", strerror(errno));
    int result = mount("none", path, "tmpfs", 0, size);
    if (result != 0 && errno == EINVAL) { /* kernels without huge pages */
        *strchr(size, ',') = '\0';
        result = mount("none", path, "tmpfs", 0, size);
    }
    EXPECT(result == 0, "cannot mount on %s: %s", path, strerror(errno));
}

void mount_set_read_only(const char *path, bool read_only)
{
    /* Of this mount point only, as administrators do: files that are open for writing are no obstacle. */
    EXPECT(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | (read_only ? MS_RDONLY : 0), NULL) == 0,
           "cannot remount %s: %s", path, strerror(errno));
}

uint64_t mount_free_bytes(const char *path)
{
    struct statvfs s;
    EXPECT(statvfs(path, &s) == 0, "cannot examine %s: %s", path, strerror(errno));
    return (uint64_t)s.f_bfree * s.f_frsize;
}

void mount_eat(const char *path, uint64_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    EXPECT(fd >= 0, "cannot make %s: %s", path, strerror(errno));
    EXPECT(bytes == 0 || fallocate(fd, 0, 0, (off_t)bytes) == 0, "cannot reserve %llu bytes for %s: %s",
           (unsigned long long)bytes, path, strerror(errno));
    close(fd);
}
