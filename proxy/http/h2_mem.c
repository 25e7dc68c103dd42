/* SPDX-License-Identifier: Apache-2.0 */
/* Freelists by size for nghttp2: each block begins with the number of its class, so that it finds
 * its list again; what is larger than the largest class comes from the heap. */
#include "proxy/http/h2_mem.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Of the block, header included. The largest holds nghttp2's frame buffer. */
static const uint32_t class_bytes[KB_H2_MEM_CLASSES] = {64, 128, 256, 512, 1024, 2304, 4352, 16640};
static const uint32_t class_idle_max[KB_H2_MEM_CLASSES] = {512, 512, 512, 256, 128, 64, 32, 32};

#define CLASS_HEAP KB_H2_MEM_CLASSES

/* The class of blocks of up to so many times 64 bytes: nearly all that nghttp2 asks for. */
#define SMALL_BYTES 64
static const uint8_t small_class[] = {0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4};

struct block {
    uint32_t class;
    uint32_t size;     /* of the block; the heap's are below 4 GiB, see kb_h2_mem_malloc */
    uint64_t reserved; /* keeps what follows aligned for any type */
};

KB_INLINE uint32_t class_of(size_t bytes)
{
    size_t smalls = (bytes + SMALL_BYTES - 1) / SMALL_BYTES;
    uint32_t class = 5;

    if (KB_LIKELY(smalls < KB_ARRAY_LEN(small_class))) {
        return small_class[smalls];
    }
    while (class < CLASS_HEAP && class_bytes[class] < bytes) {
        class++;
    }
    return class;
}

void kb_h2_mem_init(struct kb_h2_mem *mem)
{
    KB_OBJ_SET(mem, kb_h2_mem);
    mem->bytes_in_use = 0;
    for (size_t i = 0; i < KB_H2_MEM_CLASSES; i++) {
        kb_pool_init(&mem->classes[i], class_bytes[i], class_idle_max[i]);
    }
}

void kb_h2_mem_dispose(struct kb_h2_mem *mem)
{
    KB_ASSERT(mem->bytes_in_use == 0);
    for (size_t i = 0; i < KB_H2_MEM_CLASSES; i++) {
        kb_pool_dispose(&mem->classes[i]);
    }
    KB_OBJ_CLEAR(mem);
}

void *kb_h2_mem_malloc(size_t size, void *arg)
{
    struct kb_h2_mem *mem = KB_CAST(arg, kb_h2_mem);
    size_t wanted = size + sizeof(struct block);
    uint32_t class;
    struct block *block;

    if (wanted > UINT32_MAX) {
        return NULL; /* nghttp2 asks for nothing like it */
    }
    class = class_of(wanted);
    block = class < CLASS_HEAP ? kb_pool_acquire(&mem->classes[class]) : kb_malloc(wanted);
    block->class = class;
    block->size = class < CLASS_HEAP ? class_bytes[class] : (uint32_t)wanted;
    mem->bytes_in_use += block->size;
    return block + 1;
}

void *kb_h2_mem_calloc(size_t count, size_t size, void *mem)
{
    size_t bytes;
    void *memory;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        return NULL;
    }
    memory = kb_h2_mem_malloc(bytes, mem);
    if (memory != NULL) {
        memset(memory, 0, bytes);
    }
    return memory;
}

void *kb_h2_mem_realloc(void *memory, size_t size, void *mem)
{
    struct block *block = memory;
    size_t room;
    void *larger;

    if (memory == NULL) {
        return kb_h2_mem_malloc(size, mem);
    }
    block--;
    room = block->size - sizeof(*block);
    if (size <= room) {
        return memory;
    }
    larger = kb_h2_mem_malloc(size, mem);
    if (larger != NULL) {
        memcpy(larger, memory, room);
        kb_h2_mem_free(memory, mem);
    }
    return larger;
}

void kb_h2_mem_free(void *memory, void *arg)
{
    struct kb_h2_mem *mem = KB_CAST(arg, kb_h2_mem);
    struct block *block = memory;

    if (memory == NULL) {
        return;
    }
    block--;
    mem->bytes_in_use -= block->size;
    if (block->class == CLASS_HEAP) {
        free(block);
    } else {
        kb_pool_release(&mem->classes[block->class], block);
    }
}
