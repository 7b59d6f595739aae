/* A disk that can go away, for LD_PRELOAD: while the file $DISK_AWAY_SWITCH exists, what is below $DISK_AWAY cannot be
   opened or read, and fails with the error whose number is the file's content; where $DISK_AWAY_RANK is set, only for
   the process whose $RANK is the same. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FILES 65536
static char is_below[MAX_FILES];

/* The error that the disk gives just now, or 0. Straight to the kernel: our own functions are in the way. */
static int away(void) {
    const char *path = getenv("DISK_AWAY_SWITCH"), *only = getenv("DISK_AWAY_RANK"), *rank = getenv("RANK");
    char text[16] = {0};
    if (path == NULL || (only != NULL && (rank == NULL || strcmp(only, rank) != 0))) return 0;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0) return 0;
    long size = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return size > 0 ? atoi(text) : 0;
}

static int below(const char *path) {
    const char *disk = getenv("DISK_AWAY");
    return disk != NULL && path != NULL && strncmp(path, disk, strlen(disk)) == 0;
}

static int fails(int file) {
    int error = file >= 0 && file < MAX_FILES && is_below[file] ? away() : 0;
    if (error) errno = error;
    return error;
}

static int opened(const char *path, int file) {
    if (file >= 0 && file < MAX_FILES) is_below[file] = (char)below(path);
    return file;
}

#define OPEN(DIRECTORY) \
    {                                                                                                                  \
        mode_t mode = 0;                                                                                               \
        int error;                                                                                                     \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                           \
            va_list arguments;                                                                                         \
            va_start(arguments, flags);                                                                                \
            mode = va_arg(arguments, mode_t);                                                                          \
            va_end(arguments);                                                                                         \
        }                                                                                                              \
        if (below(path) && (error = away())) {                                                                         \
            errno = error;                                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        return opened(path, (int)syscall(SYS_openat, DIRECTORY, path, flags, mode));                                   \
    }

int open(const char *path, int flags, ...) OPEN(AT_FDCWD)
int open64(const char *path, int flags, ...) OPEN(AT_FDCWD)
int openat(int folder, const char *path, int flags, ...) OPEN(folder)
int openat64(int folder, const char *path, int flags, ...) OPEN(folder)

ssize_t read(int file, void *to, size_t size) { return fails(file) ? -1 : syscall(SYS_read, file, to, size); }

ssize_t pread(int file, void *to, size_t size, off_t at) {
    return fails(file) ? -1 : syscall(SYS_pread64, file, to, size, at);
}

ssize_t pread64(int file, void *to, size_t size, off64_t at) {
    return fails(file) ? -1 : syscall(SYS_pread64, file, to, size, at);
}

/* Python calls one of these for os.preadv. */
#define PREADV(NAME, OFFSET)                                                                                          \
    ssize_t NAME(int file, const struct iovec *to, int count, OFFSET at) {                                             \
        static ssize_t (*original)(int, const struct iovec *, int, OFFSET);                                            \
        if (original == NULL) *(void **)&original = dlsym(RTLD_NEXT, #NAME);                                           \
        return fails(file) ? -1 : original(file, to, count, at);                                                       \
    }
#define PREADV2(NAME, OFFSET)                                                                                         \
    ssize_t NAME(int file, const struct iovec *to, int count, OFFSET at, int flags) {                                  \
        static ssize_t (*original)(int, const struct iovec *, int, OFFSET, int);                                       \
        if (original == NULL) *(void **)&original = dlsym(RTLD_NEXT, #NAME);                                           \
        return fails(file) ? -1 : original(file, to, count, at, flags);                                                \
    }

PREADV(preadv, off_t)
PREADV(preadv64, off64_t)
PREADV2(preadv2, off_t)
PREADV2(preadv64v2, off64_t)
