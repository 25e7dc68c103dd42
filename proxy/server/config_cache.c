/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration cache: an ordered set of packed resources, and the file that mirrors it. The
 * file is replaced by rename and carries its length and a checksum, so that a crash leaves the old
 * one, or one that is seen to be broken. */
#include "proxy/server/config_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/pb.h"
#include "proto/pb_json.h"
#include "xds/xds_decode.h"

#define MAGIC          UINT32_C(0x3143424b) /* "KBC1", little endian */
#define HEADER_BYTES   24                   /* magic, 0, length, checksum of what follows */
#define ENTRY_BYTES    16                   /* type, and the lengths of name, version, message */
#define WRITE_DELAY_MS 1000

struct entry {
    struct kb_list link;
    enum kb_xds_type type;
    uint32_t name_len, version_len, packed_len;
    uint32_t mark;
    struct kb_str key; /* type and name */
    char bytes[];      /* key, version, packed */
};

struct kb_config_cache {
    KB_OBJ;
    struct kb_loop *loop;
    struct kb_timer timer;
    struct kb_map by_key;
    struct kb_list entries; /* oldest first */
    size_t bytes;           /* of the file */
    uint32_t mark;
    bool dirty;
    bool full; /* said so */
    char *identity;
    char *path;
    char *path_new;
};
KB_OBJ_MAGIC(kb_config_cache, 0x43434143);

static struct kb_str entry_name(const struct entry *entry)
{
    return kb_str_make(entry->bytes + 1, entry->name_len);
}

static struct kb_str entry_version(const struct entry *entry)
{
    return kb_str_make(entry->bytes + 1 + entry->name_len, entry->version_len);
}

static struct kb_str entry_packed(const struct entry *entry)
{
    return kb_str_make(entry->bytes + 1 + entry->name_len + entry->version_len, entry->packed_len);
}

static size_t entry_bytes(const struct entry *entry)
{
    return ENTRY_BYTES + (size_t)entry->name_len + entry->version_len + entry->packed_len;
}

/* ---- the set ---- */

static struct entry *entry_find(struct kb_config_cache *cache, enum kb_xds_type type,
                                struct kb_str name)
{
    struct kb_arena arena;
    struct entry *entry;

    kb_arena_init(&arena, NULL);
    entry = kb_map_get(&cache->by_key,
                       kb_str_printf(&arena, "%c%.*s", 'A' + (int)type, KB_STR_ARG(name)));
    kb_arena_dispose(&arena);
    return entry;
}

static void entry_remove(struct kb_config_cache *cache, struct entry *entry)
{
    kb_map_remove(&cache->by_key, entry->key);
    kb_list_unlink(&entry->link);
    cache->bytes -= entry_bytes(entry);
    free(entry);
}

static bool entry_add(struct kb_config_cache *cache, enum kb_xds_type type, struct kb_str name,
                      struct kb_str version, struct kb_str packed)
{
    struct entry *entry = kb_malloc(sizeof(*entry) + 1 + name.len + version.len + packed.len);
    struct entry *old = entry_find(cache, type, name);

    memset(entry, 0, sizeof(*entry));
    entry->type = type;
    entry->name_len = (uint32_t)name.len;
    entry->version_len = (uint32_t)version.len;
    entry->packed_len = (uint32_t)packed.len;
    entry->bytes[0] = (char)('A' + (int)type);
    memcpy(entry->bytes + 1, name.p, name.len);
    memcpy(entry->bytes + 1 + name.len, version.p, version.len);
    memcpy(entry->bytes + 1 + name.len + version.len, packed.p, packed.len);
    entry->key = kb_str_make(entry->bytes, 1 + name.len);
    entry->mark = cache->mark;
    if (old != NULL) {
        entry_remove(cache, old);
    }
    if (cache->bytes + entry_bytes(entry) > KB_CONFIG_CACHE_MAX_BYTES) {
        free(entry);
        return false;
    }
    kb_map_put(&cache->by_key, entry->key, entry);
    kb_list_push_back(&cache->entries, &entry->link);
    cache->bytes += entry_bytes(entry);
    return true;
}

/* ---- the file ---- */

static void u32_put(char **at, uint32_t value)
{
    memcpy(*at, &value, sizeof(value));
    *at += sizeof(value);
}

static uint32_t u32_get(const char *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static uint64_t u64_get(const char *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static void text_put(char **at, struct kb_str text)
{
    if (text.len > 0) {
        memcpy(*at, text.p, text.len);
    }
    *at += text.len;
}

static char *file_image(const struct kb_config_cache *cache, size_t *len)
{
    struct kb_str identity = kb_str_from_cstr(cache->identity);
    size_t payload = sizeof(uint32_t) + identity.len + cache->bytes;
    char *image = kb_malloc(HEADER_BYTES + payload);
    char *at = image + HEADER_BYTES;
    uint64_t header[2] = {payload, 0};

    u32_put(&at, (uint32_t)identity.len);
    text_put(&at, identity);
    KB_LIST_FOREACH (link, &cache->entries) {
        const struct entry *entry = KB_LIST_ENTRY(link, struct entry, link);

        u32_put(&at, (uint32_t)entry->type);
        u32_put(&at, entry->name_len);
        u32_put(&at, entry->version_len);
        u32_put(&at, entry->packed_len);
        text_put(&at, entry_name(entry));
        text_put(&at, entry_version(entry));
        text_put(&at, entry_packed(entry));
    }
    *len = HEADER_BYTES + payload;
    KB_ASSERT(at == image + *len);
    header[1] = XXH64(image + HEADER_BYTES, payload, 0);
    at = image;
    u32_put(&at, MAGIC);
    u32_put(&at, 0);
    memcpy(at, header, sizeof(header));
    return image;
}

static bool all_written(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

static void file_write(struct kb_config_cache *cache)
{
    size_t len;
    char *image;
    bool ok;
    int fd;

    cache->dirty = false;
    fd = open(cache->path_new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        KB_LOG(CONFIG, WARNING, "config cache: '%s' cannot be written: %s", cache->path_new,
               strerror(errno));
        return;
    }
    image = file_image(cache, &len);
    ok = all_written(fd, image, len);
    ok = close(fd) == 0 && ok && rename(cache->path_new, cache->path) == 0;
    if (!ok) {
        KB_LOG(CONFIG, WARNING, "config cache: '%s' cannot be written: %s; the old one stays",
               cache->path, strerror(errno));
        (void)unlink(cache->path_new);
    }
    free(image);
}

static void timer_fired(struct kb_timer *timer)
{
    file_write(KB_CONTAINER_OF(timer, struct kb_config_cache, timer));
}

static void changed(struct kb_config_cache *cache)
{
    cache->dirty = true;
    if (!kb_timer_armed(&cache->timer)) {
        kb_loop_timer_arm(cache->loop, &cache->timer, WRITE_DELAY_MS);
    }
}

/* ---- reading ---- */

/* Why the image cannot be used, or NULL after its entries were taken. */
static const char *image_parse(struct kb_config_cache *cache, const char *image, size_t len)
{
    const char *at = image + HEADER_BYTES, *end = image + len;
    size_t n;

    if (len < HEADER_BYTES + sizeof(uint32_t) || u32_get(image) != MAGIC ||
        u32_get(image + 4) != 0) {
        return "it is not one that this version writes";
    }
    if (u64_get(image + 8) != len - HEADER_BYTES ||
        u64_get(image + 16) != XXH64(at, len - HEADER_BYTES, 0)) {
        return "it is cut or damaged";
    }
    n = u32_get(at);
    at += sizeof(uint32_t);
    if (n > (size_t)(end - at) ||
        !kb_str_eq(kb_str_make(at, n), kb_str_from_cstr(cache->identity))) {
        return "it is another node's";
    }
    at += n;
    while (at < end) {
        uint64_t name, version, packed;
        uint32_t type;

        if (end - at < ENTRY_BYTES) {
            return "it is cut or damaged";
        }
        type = u32_get(at);
        name = u32_get(at + 4);
        version = u32_get(at + 8);
        packed = u32_get(at + 12);
        at += ENTRY_BYTES;
        if (type >= KB_XDS_TYPE_COUNT || type == KB_XDS_SECRET ||
            name + version + packed > (uint64_t)(end - at)) {
            return "it is cut or damaged";
        }
        (void)entry_add(cache, (enum kb_xds_type)type, kb_str_make(at, name),
                        kb_str_make(at + name, version), kb_str_make(at + name + version, packed));
        at += name + version + packed;
    }
    return NULL;
}

static void entries_clear(struct kb_config_cache *cache)
{
    while (!kb_list_empty(&cache->entries)) {
        entry_remove(cache, KB_LIST_ENTRY(cache->entries.next, struct entry, link));
    }
}

static void file_read(struct kb_config_cache *cache)
{
    const char *why;
    struct kb_arena arena;
    struct kb_str image;
    int rc;

    kb_arena_init(&arena, NULL);
    rc = kb_file_read(cache->path, KB_CONFIG_CACHE_MAX_BYTES + 65536, &arena, &image);
    why = rc == 0 ? image_parse(cache, image.p, image.len) : kb_file_error_text(rc);
    if (why != NULL && rc != KB_ENOTFOUND) {
        entries_clear(cache);
        KB_LOG(CONFIG, WARNING, "config cache: '%s' is ignored: %s", cache->path, why);
    }
    kb_arena_dispose(&arena);
}

/* ---- interface ---- */

static char *path_make(struct kb_str dir, const char *suffix)
{
    struct kb_arena arena;
    char *path;

    kb_arena_init(&arena, NULL);
    path = kb_strdup(
        kb_str_printf(&arena, "%.*s/" KB_CONFIG_CACHE_FILE "%s", KB_STR_ARG(dir), suffix).p);
    kb_arena_dispose(&arena);
    return path;
}

struct kb_config_cache *kb_config_cache_create(struct kb_loop *loop, struct kb_str dir,
                                               struct kb_str identity)
{
    struct kb_config_cache *cache = kb_calloc(1, sizeof(*cache));

    KB_OBJ_SET(cache, kb_config_cache);
    cache->loop = loop;
    kb_timer_init(&cache->timer, timer_fired);
    kb_map_init(&cache->by_key);
    kb_list_init(&cache->entries);
    cache->identity = kb_malloc(identity.len + 1);
    memcpy(cache->identity, identity.p, identity.len);
    cache->identity[identity.len] = '\0';
    cache->path = path_make(dir, "");
    cache->path_new = path_make(dir, ".new");
    file_read(cache);
    return cache;
}

void kb_config_cache_destroy(struct kb_config_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    kb_loop_timer_cancel(cache->loop, &cache->timer);
    if (cache->dirty) {
        file_write(cache);
    }
    entries_clear(cache);
    kb_map_dispose(&cache->by_key);
    free(cache->identity);
    free(cache->path);
    free(cache->path_new);
    KB_OBJ_CLEAR(cache);
    free(cache);
}

const char *kb_config_cache_path(const struct kb_config_cache *cache)
{
    return cache->path;
}

/* Whether a sensitive field is set anywhere inside, also behind Any. */
static bool has_secrets(const ProtobufCMessage *message)
{
    struct kb_json_out json;
    bool found;

    kb_json_out_init(&json, 0);
    kb_pb_json_write(&json, message, KB_PB_JSON_REDACT, 0);
    found = json.overflow || kb_str_find(kb_str_make(json.p, json.len), KB_STR("[redacted]")) >= 0;
    kb_json_out_dispose(&json);
    return found;
}

static void resource_keep(struct kb_config_cache *cache, enum kb_xds_type type,
                          const struct kb_xds_resource *resource)
{
    struct entry *old = entry_find(cache, type, resource->name);
    struct kb_arena arena;
    struct kb_str packed;

    if (resource->message == NULL) {
        if (old != NULL) {
            old->mark = cache->mark;
        }
        return;
    }
    kb_arena_init(&arena, NULL);
    packed = kb_pb_pack(resource->message, &arena);
    if (old != NULL && kb_str_eq(entry_packed(old), packed) &&
        kb_str_eq(entry_version(old), resource->version)) {
        old->mark = cache->mark;
    } else if (has_secrets(resource->message)) {
        KB_LOG(CONFIG, DEBUG, "config cache: '%.*s' holds secrets and is not kept",
               KB_STR_ARG(resource->name));
        kb_config_cache_forget(cache, type, resource->name);
    } else {
        if (!entry_add(cache, type, resource->name, resource->version, packed) && !cache->full) {
            cache->full = true;
            KB_LOG(CONFIG, WARNING, "config cache: '%s' is full; not everything is kept",
                   cache->path);
        }
        changed(cache);
    }
    kb_arena_dispose(&arena);
}

void kb_config_cache_keep(struct kb_config_cache *cache, enum kb_xds_type type,
                          const struct kb_xds_update *update, bool all)
{
    if (type == KB_XDS_SECRET) {
        return;
    }
    cache->mark++;
    for (size_t i = 0; i < update->resource_count; i++) {
        resource_keep(cache, type, &update->resources[i]);
    }
    for (size_t i = 0; i < update->removed_count; i++) {
        kb_config_cache_forget(cache, type, update->removed[i]);
    }
    KB_LIST_FOREACH (link, &cache->entries) {
        struct entry *entry = KB_LIST_ENTRY(link, struct entry, link);

        if (all && entry->type == type && entry->mark != cache->mark) {
            entry_remove(cache, entry);
            changed(cache);
        }
    }
}

void kb_config_cache_forget(struct kb_config_cache *cache, enum kb_xds_type type,
                            struct kb_str name)
{
    struct entry *entry = entry_find(cache, type, name);

    if (entry != NULL) {
        entry_remove(cache, entry);
        changed(cache);
    }
}

static bool entry_decode(const struct kb_config_cache *cache, const struct entry *entry,
                         struct kb_arena *arena, struct kb_xds_resource *resource)
{
    struct kb_str packed = entry_packed(entry);
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    struct kb_diag diag;

    any.type_url = (char *)(uintptr_t)kb_xds_types[entry->type].url;
    any.value.data = (uint8_t *)(uintptr_t)packed.p;
    any.value.len = packed.len;
    kb_diag_init(&diag);
    diag.unknown_fields_warn = true;
    *resource = (struct kb_xds_resource){
        .name = kb_str_dup(arena, entry_name(entry)),
        .version = kb_str_dup(arena, entry_version(entry)),
        .message = kb_xds_decode_resource(entry->type, &any, arena, &diag),
    };
    if (resource->message == NULL) {
        KB_LOG(CONFIG, WARNING, "config cache: '%.*s' of '%s' does not decode and is left out",
               KB_STR_ARG(resource->name), cache->path);
    }
    kb_diag_dispose(&diag);
    return resource->message != NULL;
}

bool kb_config_cache_load(struct kb_config_cache *cache, enum kb_xds_type type, struct kb_str name,
                          struct kb_arena *arena, struct kb_xds_update *update)
{
    struct kb_xds_resource *resources = kb_arena_alloc(
        arena, (cache->by_key.len + 1) * sizeof(*resources), _Alignof(struct kb_xds_resource));
    size_t count = 0;

    KB_LIST_FOREACH (link, &cache->entries) {
        const struct entry *entry = KB_LIST_ENTRY(link, struct entry, link);

        if (entry->type == type && (name.len == 0 || kb_str_eq(entry_name(entry), name))) {
            count += entry_decode(cache, entry, arena, &resources[count]);
        }
    }
    *update = (struct kb_xds_update){.resources = resources,
                                     .resource_count = count,
                                     .version = count > 0 ? resources[0].version : KB_STR(""),
                                     .state_of_the_world = true};
    return count > 0;
}
