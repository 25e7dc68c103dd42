/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into a process, makes its n-th socket calls fail. The file named by KB_FAULTS_FILE,
 * which the test maps too, says which: how often each of them comes (0: never), and how many there
 * were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum call { ACCEPT, SOCKET, CONNECT, RECV, SEND };

/* In the order of tests/harness/faults.py. */
static const struct {
    enum call call;
    int error; /* 0: one byte only */
} faults[] = {
    {ACCEPT, ECONNABORTED},  {ACCEPT, EMFILE},
    {ACCEPT, EINTR},         {SOCKET, EMFILE},
    {CONNECT, ECONNREFUSED}, {CONNECT, EADDRNOTAVAIL},
    {RECV, EAGAIN},          {RECV, EINTR},
    {RECV, ECONNRESET},      {RECV, 0},
    {SEND, EAGAIN},          {SEND, EINTR},
    {SEND, EPIPE},           {SEND, 0},
};

enum { FAULTS = sizeof(faults) / sizeof(faults[0]) };

struct shared {
    _Atomic uint32_t every[FAULTS];
    _Atomic uint32_t made[FAULTS];
    _Atomic uint32_t calls[FAULTS];
};

static struct shared none;
static struct shared *shared = &none;

__attribute__((constructor)) static void shared_map(void)
{
    const char *path = getenv("KB_FAULTS_FILE");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *mapped;

    if (fd < 0) {
        return;
    }
    mapped = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) {
        shared = mapped;
    }
}

/* The index of the fault that this call gets, or -1. */
static int fault_of(enum call call)
{
    for (int i = 0; i < FAULTS; i++) {
        uint32_t every = faults[i].call == call ? shared->every[i] : 0;

        if (every > 0 && (shared->calls[i]++ + 1) % every == 0) {
            shared->made[i]++;
            return i;
        }
    }
    return -1;
}

/* True: the call fails; *short_call: it may do one byte. */
static int fails(enum call call, int *short_call)
{
    int fault = fault_of(call);

    *short_call = fault >= 0 && faults[fault].error == 0;
    if (fault < 0 || *short_call) {
        return 0;
    }
    errno = faults[fault].error;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int accept4(int fd, struct sockaddr *restrict addr, socklen_t *restrict len, int flags)
{
    int one;

    return fails(ACCEPT, &one) ? -1 : REAL(accept4)(fd, addr, len, flags);
}

int socket(int domain, int type, int protocol)
{
    int one;

    return fails(SOCKET, &one) ? -1 : REAL(socket)(domain, type, protocol);
}

int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    int one;

    return fails(CONNECT, &one) ? -1 : REAL(connect)(fd, addr, len);
}

ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    int one;

    return fails(RECV, &one) ? -1 : REAL(recv)(fd, bytes, one && len > 0 ? 1 : len, flags);
}

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    int one;

    return fails(SEND, &one) ? -1 : REAL(send)(fd, bytes, one && len > 0 ? 1 : len, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    int one;

    if (fails(SEND, &one)) {
        return -1;
    }
    if (one && msg->msg_iovlen > 0 && msg->msg_iov[0].iov_len > 0) {
        return REAL(send)(fd, msg->msg_iov[0].iov_base, 1, flags);
    }
    return REAL(sendmsg)(fd, msg, flags);
}
