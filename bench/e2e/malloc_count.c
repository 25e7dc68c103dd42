/* SPDX-License-Identifier: Apache-2.0 */
/* Counts heap calls of a process from outside: preloaded into it (LD_PRELOAD), it adds to counters
 * in the file named by MALLOC_COUNT_FILE, which the benchmark maps too. Layout: four 64-bit
 * counters: malloc, calloc, realloc (and aligned forms), free. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

enum { MALLOC, CALLOC, REALLOC, FREE, COUNTERS };

static _Atomic uint64_t before_start[COUNTERS];
static _Atomic uint64_t *counters = before_start;

__attribute__((constructor)) static void counters_map(void)
{
    const char *path = getenv("MALLOC_COUNT_FILE");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *shared;

    if (fd < 0) {
        return;
    }
    shared = mmap(NULL, sizeof(before_start), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED) {
        counters = shared;
    }
}

static void count(int which)
{
    atomic_fetch_add_explicit(&counters[which], 1, memory_order_relaxed);
}

__attribute__((visibility("default"))) void *malloc(size_t size)
{
    count(MALLOC);
    return __libc_malloc(size);
}

__attribute__((visibility("default"))) void *calloc(size_t items, size_t size)
{
    count(CALLOC);
    return __libc_calloc(items, size);
}

__attribute__((visibility("default"))) void *realloc(void *old, size_t size)
{
    count(REALLOC);
    return __libc_realloc(old, size);
}

__attribute__((visibility("default"))) void *aligned_alloc(size_t alignment, size_t size)
{
    count(REALLOC);
    return __libc_memalign(alignment, size);
}

__attribute__((visibility("default"))) int posix_memalign(void **out, size_t alignment, size_t size)
{
    count(REALLOC);
    *out = __libc_memalign(alignment, size);
    return *out != NULL ? 0 : ENOMEM;
}

__attribute__((visibility("default"))) void free(void *memory)
{
    if (memory != NULL) {
        count(FREE);
    }
    __libc_free(memory);
}
