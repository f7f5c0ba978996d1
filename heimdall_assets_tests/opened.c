/* Logs which files a process and its children open and which machines they look for; no other machine is reached.
 *
 * Built with `cc -shared -fPIC` and named in LD_PRELOAD. Each line goes to the file named by OPENED_LOG with one write():
 *
 *     PID <tab> read | write | update | resolve | connect <tab> absolute path, name or address
 *
 * Names are refused with EAI_AGAIN and addresses with ENETUNREACH, save those of this machine itself. Not seen: what a
 * program opens without the C library, and what the C library opens for itself (the linker its libraries).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
/* The function of the same name behind this one, and what it is called as here. */
#define BEHIND(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void note(const char *what, const char *thing) {
    char line[4600];
    const char *log = getenv("OPENED_LOG");
    int before = errno, length = snprintf(line, sizeof line, "%d\t%s\t%s\n", (int)getpid(), what, thing);
    if (log == NULL || length >= (int)sizeof line) abort(); /* a log that lacks something would prove nothing */
    int file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0 || write(file, line, (size_t)length) != length) abort();
    close(file);
    errno = before;
}

/* Files: by the name under which the kernel knows what was opened, so that links and relative names are followed. */
static int opened(int file, int flags) {
    char link[64], path[4097];
    struct stat about;
    int before = errno;
    if (file < 0 || (flags & O_PATH) || fstat(file, &about) != 0 || S_ISDIR(about.st_mode)) {
        errno = before;
        return file;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    int way = flags & O_ACCMODE;
    note(way == O_RDONLY && !(flags & O_TRUNC) ? "read" : way == O_WRONLY ? "write" : "update", path);
    errno = before;
    return file;
}

/* The mode stands in the arguments only where a file may be made. */
#define TAKE_MODE(flags)                                                                                               \
    mode_t mode = 0;                                                                                                   \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {                                                   \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }
#define OPEN(name)                                                                                                     \
    EXPORT int name(const char *path, int flags, ...) {                                                                \
        TAKE_MODE(flags)                                                                                               \
        return opened(BEHIND(name)(path, flags, mode), flags);                                                         \
    }
#define OPENAT(name)                                                                                                   \
    EXPORT int name(int folder, const char *path, int flags, ...) {                                                    \
        TAKE_MODE(flags)                                                                                               \
        return opened(BEHIND(name)(folder, path, flags, mode), flags);                                                 \
    }
#define FOPEN(name)                                                                                                    \
    EXPORT FILE *name(const char *path, const char *mode) {                                                            \
        FILE *file = BEHIND(name)(path, mode);                                                                         \
        if (file != NULL) opened(fileno(file), strchr(mode, '+') ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY);     \
        return file;                                                                                                   \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64) FOPEN(fopen) FOPEN(fopen64)
/* What the compiler makes of `open` where it checks arguments (_FORTIFY_SOURCE). */
EXPORT int __open_2(const char *path, int flags) { return open(path, flags); }
EXPORT int __open64_2(const char *path, int flags) { return open64(path, flags); }
EXPORT int __openat_2(int folder, const char *path, int flags) { return openat(folder, path, flags); }
EXPORT int __openat64_2(int folder, const char *path, int flags) { return openat64(folder, path, flags); }
EXPORT int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int mkstemp(char *path) { return opened(BEHIND(mkstemp)(path), O_RDWR); }
EXPORT int mkstemp64(char *path) { return opened(BEHIND(mkstemp64)(path), O_RDWR); }
EXPORT int mkostemp(char *path, int flags) { return opened(BEHIND(mkostemp)(path, flags), O_RDWR); }

/* Whether an address is another machine's, or a resolver's: one may run on this machine. Local sockets are neither. */
static int is_away(const struct sockaddr *address) {
    char text[INET6_ADDRSTRLEN] = "", line[INET6_ADDRSTRLEN + 16];
    if (address == NULL || (address->sa_family != AF_INET && address->sa_family != AF_INET6)) return 0;
    const struct sockaddr_in *four = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
    int is_four = address->sa_family == AF_INET, port = ntohs(is_four ? four->sin_port : six->sin6_port);
    inet_ntop(address->sa_family, is_four ? (void *)&four->sin_addr : (void *)&six->sin6_addr, text, sizeof text);
    int is_own = is_four ? !strncmp(text, "127.", 4) : !strcmp(text, "::1") || !strncmp(text, "::ffff:127.", 11);
    if (is_own && port != 53) return 0;
    snprintf(line, sizeof line, "%s port %d", text, port);
    note("connect", line);
    errno = ENETUNREACH;
    return 1;
}
EXPORT int connect(int socket, const struct sockaddr *address, socklen_t size) {
    return is_away(address) ? -1 : BEHIND(connect)(socket, address, size);
}
EXPORT ssize_t sendto(int socket, const void *data, size_t count, int flags, const struct sockaddr *to, socklen_t size) {
    return is_away(to) ? -1 : BEHIND(sendto)(socket, data, count, flags, to, size);
}
EXPORT ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
    return is_away(message->msg_name) ? -1 : BEHIND(sendmsg)(socket, message, flags);
}

/* Whether a name would have to be asked for: an address in figures and this machine's own name are not. */
static int is_asked(const char *name) {
    unsigned char address[16];
    if (name == NULL || !strcmp(name, "localhost") || !*name) return 0;
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1) return 0;
    note("resolve", name);
    h_errno = TRY_AGAIN;
    return 1;
}
EXPORT int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    return is_asked(name) ? EAI_AGAIN : BEHIND(getaddrinfo)(name, service, hints, found);
}
EXPORT struct hostent *gethostbyname(const char *name) { return is_asked(name) ? NULL : BEHIND(gethostbyname)(name); }
EXPORT struct hostent *gethostbyname2(const char *name, int family) {
    return is_asked(name) ? NULL : BEHIND(gethostbyname2)(name, family);
}
EXPORT int gethostbyname_r(const char *name, struct hostent *entry, char *buffer, size_t size, struct hostent **found,
                           int *error) {
    if (!is_asked(name)) return BEHIND(gethostbyname_r)(name, entry, buffer, size, found, error);
    *found = NULL, *error = TRY_AGAIN;
    return EAGAIN;
}
/* The other way round: the name of an address is asked for too. */
EXPORT int gethostbyaddr_r(const void *address, socklen_t size, int family, struct hostent *entry, char *buffer,
                           size_t count, struct hostent **found, int *error) {
    (void)address, (void)size, (void)family, (void)entry, (void)buffer, (void)count;
    note("resolve", "the name of an address");
    *found = NULL, *error = TRY_AGAIN;
    return EAGAIN;
}
