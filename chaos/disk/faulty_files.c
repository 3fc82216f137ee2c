/* A layer between a process and the C library that makes calls on files fail, and kills the process at them.
 *
 * Loaded by LD_PRELOAD. BRAID_CHAOS_FOLDER names the folder whose files are concerned, BRAID_CHAOS_CONTROL a file of
 * `struct control`, which is mapped: whoever writes there (chaos/disk/file_faults.py) turns faults on and off while the
 * process runs, and reads there how often each of them fired. Without the two variables nothing happens.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/* In the order of CALLS in file_faults.py. */
enum call { OPEN, WRITE, PWRITE, FSYNC, FDATASYNC, RENAME, MKDIR, UNLINK, TRUNCATE, READ, PREAD, N_CALLS };

#define PATH_PART 64

/* In the order of file_faults.py: numbers first, then counts, then texts. */
struct control {
    uint64_t error;        /* errno that calls fail with; 0: none fail */
    uint64_t error_calls;  /* which calls, a bit each */
    uint64_t chance;       /* of such a call, in parts of 2^32 */
    uint64_t errors_left;  /* how many more may fail */
    uint64_t seed;         /* of the draws */
    uint64_t draws;        /* how many there were */
    uint64_t kill_calls;   /* at which calls the process may be killed, a bit each */
    uint64_t kill_after;   /* 0: never; 1: at the next such call; n: at the n-th */
    uint64_t failed[N_CALLS];
    uint64_t killed[N_CALLS];
    char error_path[PATH_PART]; /* a part that the path must have; empty: any path below the folder */
    char kill_path[PATH_PART];
};

static struct control *control;
static char folder[PATH_MAX];
static size_t folder_length;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL)
        abort();
    return found;
}

__attribute__((constructor)) static void load(void) {
    const char *where = getenv("BRAID_CHAOS_FOLDER"), *file = getenv("BRAID_CHAOS_CONTROL");
    if (where == NULL || file == NULL || strlen(where) >= sizeof folder)
        return;
    strcpy(folder, where);
    folder_length = strlen(folder);
    int descriptor = REAL(open)(file, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        abort(); /* a chaos run without its faults would prove nothing */
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped == MAP_FAILED)
        abort();
    control = mapped;
}

static int is_armed(void) {
    return control != NULL && (__atomic_load_n(&control->error, __ATOMIC_RELAXED) ||
                               __atomic_load_n(&control->kill_after, __ATOMIC_RELAXED));
}

static uint32_t drawn(void) { /* splitmix64 */
    uint64_t n = __atomic_add_fetch(&control->draws, 1, __ATOMIC_RELAXED);
    uint64_t z = control->seed + n * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

/* Take one of `counter`, unless it is 0. Returns what was there. */
static uint64_t taken(uint64_t *counter) {
    uint64_t before = __atomic_load_n(counter, __ATOMIC_RELAXED);
    while (before && !__atomic_compare_exchange_n(counter, &before, before - 1, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return before;
}

enum fate { GOES_ON, FAILS, DIES };

/* Decide about a call on `path`. FAILS has set errno; whoever gets DIES calls `die`. */
static enum fate fate_of(enum call call, const char *path) {
    if (strncmp(path, folder, folder_length) != 0 || (path[folder_length] != '/' && path[folder_length] != '\0'))
        return GOES_ON;
    uint64_t bit = (uint64_t)1 << call;
    if ((control->kill_calls & bit) && strstr(path, control->kill_path) != NULL && taken(&control->kill_after) == 1)
        return DIES;
    uint64_t error = __atomic_load_n(&control->error, __ATOMIC_RELAXED);
    if (!error || !(control->error_calls & bit) || strstr(path, control->error_path) == NULL)
        return GOES_ON;
    if (call == OPEN && error == ENOSPC && access(path, F_OK) == 0)
        return GOES_ON; /* only a new file takes room */
    if (drawn() >= control->chance || !taken(&control->errors_left))
        return GOES_ON;
    __atomic_add_fetch(&control->failed[call], 1, __ATOMIC_RELAXED);
    errno = (int)error;
    return FAILS;
}

static void die(enum call call) {
    __atomic_add_fetch(&control->killed[call], 1, __ATOMIC_RELAXED);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* The path behind a descriptor, or "" where it has none. */
static const char *path_of(int descriptor, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length < 0 ? 0 : length] = '\0';
    return buffer;
}

/* The absolute path of a name in a folder that is open, or in the working folder for AT_FDCWD. */
static const char *path_at(int directory, const char *name, char *buffer) {
    if (name[0] == '/')
        return name;
    char base[PATH_MAX];
    if (directory == AT_FDCWD ? getcwd(base, sizeof base) == NULL : *path_of(directory, base) == '\0')
        return "";
    int length = snprintf(buffer, PATH_MAX, "%s/%s", base, name);
    return length < PATH_MAX ? buffer : "";
}

static enum fate fate_at(enum call call, int directory, const char *name) {
    char buffer[PATH_MAX];
    return fate_of(call, path_at(directory, name, buffer));
}

static enum fate fate_behind(enum call call, int descriptor) {
    char buffer[PATH_MAX];
    return fate_of(call, path_of(descriptor, buffer));
}

/* The whole of a call that either fails, kills, or is made. */
#define ORDINARY(call, decision, made)                                                                                 \
    do {                                                                                                               \
        if (is_armed()) {                                                                                              \
            int before = errno;                                                                                        \
            enum fate what = (decision);                                                                               \
            if (what == FAILS)                                                                                         \
                return -1;                                                                                             \
            if (what == DIES)                                                                                          \
                die(call);                                                                                             \
            errno = before;                                                                                            \
        }                                                                                                              \
        return (made);                                                                                                 \
    } while (0)

/* --- opening: for writing only; reading fails at the read ------------------------------------------------------- */

static int changes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)); }

static mode_t mode_in(int flags, va_list arguments) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define OPENING(name)                                                                                                  \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = mode_in(flags, arguments);                                                                       \
        va_end(arguments);                                                                                             \
        ORDINARY(OPEN, changes(flags) ? fate_at(OPEN, AT_FDCWD, path) : GOES_ON, REAL(name)(path, flags, mode));       \
    }
#define OPENING_AT(name)                                                                                               \
    int name(int directory, const char *path, int flags, ...) {                                                        \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = mode_in(flags, arguments);                                                                       \
        va_end(arguments);                                                                                             \
        ORDINARY(OPEN, changes(flags) ? fate_at(OPEN, directory, path) : GOES_ON,                                      \
                 REAL(name)(directory, path, flags, mode));                                                            \
    }
OPENING(open)
OPENING(open64)
OPENING_AT(openat)
OPENING_AT(openat64)

/* What programs call that were built with _FORTIFY_SOURCE. */
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }

/* --- reading ----------------------------------------------------------------------------------------------------- */

ssize_t read(int descriptor, void *data, size_t size) {
    ORDINARY(READ, fate_behind(READ, descriptor), REAL(read)(descriptor, data, size));
}
ssize_t pread(int descriptor, void *data, size_t size, off_t offset) {
    ORDINARY(PREAD, fate_behind(PREAD, descriptor), REAL(pread)(descriptor, data, size, offset));
}
ssize_t pread64(int descriptor, void *data, size_t size, off64_t offset) {
    ORDINARY(PREAD, fate_behind(PREAD, descriptor), REAL(pread64)(descriptor, data, size, offset));
}
ssize_t __read_chk(int descriptor, void *data, size_t size, size_t room) {
    if (size > room)
        abort();
    return read(descriptor, data, size);
}

/* --- writing: who is killed has written half ---------------------------------------------------------------------- */

#define WRITING(call, half, made)                                                                                      \
    do {                                                                                                               \
        if (is_armed()) {                                                                                              \
            int before = errno;                                                                                        \
            enum fate what = fate_behind(call, descriptor);                                                            \
            if (what == FAILS)                                                                                         \
                return -1;                                                                                             \
            if (what == DIES) {                                                                                        \
                ssize_t ignored = (half);                                                                              \
                (void)ignored;                                                                                         \
                die(call);                                                                                             \
            }                                                                                                          \
            errno = before;                                                                                            \
        }                                                                                                              \
        return (made);                                                                                                 \
    } while (0)

ssize_t write(int descriptor, const void *data, size_t size) {
    WRITING(WRITE, REAL(write)(descriptor, data, size / 2), REAL(write)(descriptor, data, size));
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    WRITING(PWRITE, REAL(pwrite)(descriptor, data, size / 2, offset), REAL(pwrite)(descriptor, data, size, offset));
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    WRITING(PWRITE, REAL(pwrite64)(descriptor, data, size / 2, offset), REAL(pwrite64)(descriptor, data, size, offset));
}
int ftruncate(int descriptor, off_t size) {
    ORDINARY(TRUNCATE, fate_behind(TRUNCATE, descriptor), REAL(ftruncate)(descriptor, size));
}
int ftruncate64(int descriptor, off64_t size) {
    ORDINARY(TRUNCATE, fate_behind(TRUNCATE, descriptor), REAL(ftruncate64)(descriptor, size));
}
int fsync(int descriptor) { ORDINARY(FSYNC, fate_behind(FSYNC, descriptor), REAL(fsync)(descriptor)); }
int fdatasync(int descriptor) { ORDINARY(FDATASYNC, fate_behind(FDATASYNC, descriptor), REAL(fdatasync)(descriptor)); }

/* --- names: a rename is known by where it leads ------------------------------------------------------------------- */

int rename(const char *from, const char *to) { ORDINARY(RENAME, fate_at(RENAME, AT_FDCWD, to), REAL(rename)(from, to)); }
int renameat(int from_at, const char *from, int to_at, const char *to) {
    ORDINARY(RENAME, fate_at(RENAME, to_at, to), REAL(renameat)(from_at, from, to_at, to));
}
int mkdir(const char *path, mode_t mode) { ORDINARY(MKDIR, fate_at(MKDIR, AT_FDCWD, path), REAL(mkdir)(path, mode)); }
int unlink(const char *path) { ORDINARY(UNLINK, fate_at(UNLINK, AT_FDCWD, path), REAL(unlink)(path)); }
int unlinkat(int directory, const char *path, int flags) {
    ORDINARY(UNLINK, fate_at(UNLINK, directory, path), REAL(unlinkat)(directory, path, flags));
}
