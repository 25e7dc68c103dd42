/* SPDX-License-Identifier: Apache-2.0 */
/* Workloads: reading and writing what proxies tell of themselves. One allocation for each. */
#include "proxy/ext/common/workload.h"

#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/mem.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/pb.h"
#include "proto/wkt.h"

#define OWNER_PREFIX "kubernetes://apis/apps/v1/namespaces/"

const struct kb_str kb_workload_type_names[] = {
    [KB_WORKLOAD_UNKNOWN] = {"", 0},
    [KB_WORKLOAD_POD] = {"pod", 3},
    [KB_WORKLOAD_DEPLOYMENT] = {"deployment", 10},
    [KB_WORKLOAD_JOB] = {"job", 3},
    [KB_WORKLOAD_CRONJOB] = {"cronjob", 7},
};

/* ---- making ---- */

/* A copy of what `from` says, whose texts and labels may be anybody's. */
static struct kb_workload *workload_create(const struct kb_workload *from)
{
    static uint64_t last;
    struct kb_workload *workload;
    size_t bytes = 0;
    char *at;
    struct kb_str *texts[] = {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};

    bytes = from->instance.len + from->cluster.len + from->namespace_name.len + from->name.len +
            from->canonical_name.len + from->canonical_revision.len + from->app.len +
            from->version.len;
    for (size_t i = 0; i < from->label_count; i++) {
        bytes += from->labels[i].name.len + from->labels[i].value.len;
    }
    workload = kb_malloc(sizeof(*workload) + from->label_count * sizeof(*from->labels) + bytes);
    *workload = *from;
    workload->labels = (struct kb_workload_label *)(void *)(workload + 1);
    at = (char *)(workload->labels + from->label_count);
    texts[0] = &workload->instance;
    texts[1] = &workload->cluster;
    texts[2] = &workload->namespace_name;
    texts[3] = &workload->name;
    texts[4] = &workload->canonical_name;
    texts[5] = &workload->canonical_revision;
    texts[6] = &workload->app;
    texts[7] = &workload->version;
    for (size_t i = 0; i < KB_ARRAY_LEN(texts) + 2 * from->label_count; i++) {
        size_t label = (i - KB_ARRAY_LEN(texts)) / 2;
        struct kb_str *text = i < KB_ARRAY_LEN(texts) ? texts[i]
                              : i % 2 == 0            ? &workload->labels[label].name
                                                      : &workload->labels[label].value;

        if (i >= KB_ARRAY_LEN(texts)) {
            *text = i % 2 == 0 ? from->labels[label].name : from->labels[label].value;
        }
        if (text->len > 0) {
            memcpy(at, text->p, text->len);
        }
        text->p = at;
        at += text->len;
    }
    KB_OBJ_SET(workload, kb_workload);
    workload->refs = 1;
    workload->serial = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
    return workload;
}

void kb_workload_ref(const struct kb_workload *workload)
{
    ((struct kb_workload *)(uintptr_t)workload)->refs++;
}

void kb_workload_unref(const struct kb_workload *workload)
{
    struct kb_workload *own = (struct kb_workload *)(uintptr_t)workload;

    if (own != NULL && --own->refs == 0) {
        KB_OBJ_CLEAR(own);
        free(own);
    }
}

/* ---- reading ---- */

static struct kb_str string_of(const Google__Protobuf__Value *value)
{
    return value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE
               ? kb_wkt_str(value->string_value)
               : KB_STR("");
}

void kb_workload_labels_read(struct kb_workload_labels *labels, char *const *names, size_t count,
                             struct kb_arena *arena)
{
    labels->names = kb_arena_calloc(arena, (count + 1) * sizeof(*labels->names));
    labels->count = count;
    for (size_t i = 0; i < count; i++) {
        labels->names[i] = kb_str_dup(arena, kb_str_from_cstr(names[i]));
    }
}

static bool label_wanted(const struct kb_workload_labels *labels, struct kb_str name)
{
    for (size_t i = 0; labels != NULL && i < labels->count; i++) {
        if (kb_str_eq(labels->names[i], name)) {
            return true;
        }
    }
    return false;
}

static int label_cmp(const void *a, const void *b)
{
    return kb_str_cmp(((const struct kb_workload_label *)a)->name,
                      ((const struct kb_workload_label *)b)->name);
}

static void labels_read(struct kb_workload *out, const Google__Protobuf__Struct *object,
                        const struct kb_workload_labels *labels)
{
    for (size_t i = 0; object != NULL && i < object->n_fields; i++) {
        struct kb_str name = kb_wkt_str(object->fields[i]->key);
        struct kb_str value = string_of(object->fields[i]->value);

        if (kb_str_eq(name, KB_STR("service.istio.io/canonical-name"))) {
            out->canonical_name = value;
        } else if (kb_str_eq(name, KB_STR("service.istio.io/canonical-revision"))) {
            out->canonical_revision = value;
        } else if (kb_str_eq(name, KB_STR("app"))) {
            out->app = value;
        } else if (kb_str_eq(name, KB_STR("version"))) {
            out->version = value;
        } else if (out->label_count < KB_WORKLOAD_LABELS_MAX && label_wanted(labels, name)) {
            out->labels[out->label_count++] = (struct kb_workload_label){name, value};
        }
    }
    qsort(out->labels, out->label_count, sizeof(*out->labels), label_cmp);
}

/* The last but one part of ".../deployments/NAME", without its plural "s". */
static enum kb_workload_type owner_read(struct kb_str owner, struct kb_str name)
{
    ptrdiff_t slash;

    if (owner.len <= name.len + 2) {
        return KB_WORKLOAD_UNKNOWN;
    }
    owner = kb_str_first(owner, owner.len - name.len - 2);
    slash = kb_str_rfind_char(owner, '/');
    for (size_t i = KB_WORKLOAD_POD; slash >= 0 && i < KB_WORKLOAD_TYPE_COUNT; i++) {
        if (kb_str_eq(kb_str_from(owner, (size_t)slash + 1), kb_workload_type_names[i])) {
            return (enum kb_workload_type)i;
        }
    }
    return KB_WORKLOAD_UNKNOWN;
}

struct kb_workload *kb_workload_from_struct(const struct Google__Protobuf__Struct *metadata,
                                            const struct kb_workload_labels *labels)
{
    struct kb_workload_label found[KB_WORKLOAD_LABELS_MAX];
    struct kb_workload out = {.labels = found};
    struct kb_str owner = KB_STR("");

    for (size_t i = 0; metadata != NULL && i < metadata->n_fields; i++) {
        struct kb_str key = kb_wkt_str(metadata->fields[i]->key);
        const Google__Protobuf__Value *value = metadata->fields[i]->value;

        if (kb_str_eq(key, KB_STR("NAME"))) {
            out.instance = string_of(value);
        } else if (kb_str_eq(key, KB_STR("NAMESPACE"))) {
            out.namespace_name = string_of(value);
        } else if (kb_str_eq(key, KB_STR("OWNER"))) {
            owner = string_of(value);
        } else if (kb_str_eq(key, KB_STR("WORKLOAD_NAME"))) {
            out.name = string_of(value);
        } else if (kb_str_eq(key, KB_STR("CLUSTER_ID"))) {
            out.cluster = string_of(value);
        } else if (kb_str_eq(key, KB_STR("LABELS")) && value != NULL &&
                   value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE) {
            labels_read(&out, value->struct_value, labels);
        }
    }
    out.type = owner_read(owner, out.name);
    return workload_create(&out);
}

struct kb_workload *kb_workload_from_bytes(struct kb_str bytes,
                                           const struct kb_workload_labels *labels)
{
    struct kb_workload *workload = NULL;
    ProtobufCMessage *message;
    struct kb_arena arena;

    if (bytes.len > KB_WORKLOAD_BYTES_MAX) {
        return NULL;
    }
    kb_arena_init(&arena, NULL);
    if (kb_pb_unpack(&google__protobuf__struct__descriptor, bytes, &arena, &message) == 0) {
        workload =
            kb_workload_from_struct((const Google__Protobuf__Struct *)(void *)message, labels);
    }
    kb_arena_dispose(&arena);
    return workload;
}

struct kb_workload *kb_workload_from_base64(struct kb_str text,
                                            const struct kb_workload_labels *labels)
{
    char bytes[KB_WORKLOAD_BYTES_MAX];
    size_t len = sizeof(bytes);

    if (kb_base64_decode(text, bytes, &len) != 0) {
        return NULL;
    }
    return kb_workload_from_bytes(kb_str_make(bytes, len), labels);
}

struct kb_workload *kb_workload_from_endpoint(struct kb_str text)
{
    struct kb_workload out = {0};
    struct kb_str parts[5] = {KB_STR_NULL};

    for (size_t i = 0; i < KB_ARRAY_LEN(parts); i++) {
        if (text.p == NULL) {
            return NULL;
        }
        kb_str_next_token(&text, ';', &parts[i]);
    }
    out.name = parts[0];
    out.namespace_name = parts[1];
    out.canonical_name = parts[2];
    out.canonical_revision = parts[3];
    out.cluster = parts[4];
    return workload_create(&out);
}

/* ---- writing ---- */

static void field_add(Google__Protobuf__Struct *object, struct kb_str name,
                      Google__Protobuf__Value *value, struct kb_arena *arena)
{
    Google__Protobuf__Struct__FieldsEntry *entry =
        KB_ARENA_NEW(arena, Google__Protobuf__Struct__FieldsEntry);

    kb_pb_init(&google__protobuf__struct__fields_entry__descriptor, &entry->base);
    entry->key = (char *)(uintptr_t)kb_str_dup(arena, name).p;
    entry->value = value;
    object->fields[object->n_fields++] = entry;
}

static Google__Protobuf__Struct *struct_new(size_t fields, struct kb_arena *arena)
{
    Google__Protobuf__Struct *object = KB_ARENA_NEW(arena, Google__Protobuf__Struct);

    kb_pb_init(&google__protobuf__struct__descriptor, &object->base);
    object->fields = kb_arena_calloc(arena, (fields + 1) * sizeof(*object->fields));
    return object;
}

static Google__Protobuf__Value *value_new(struct kb_arena *arena)
{
    Google__Protobuf__Value *value = KB_ARENA_NEW(arena, Google__Protobuf__Value);

    kb_pb_init(&google__protobuf__value__descriptor, &value->base);
    return value;
}

static void string_add(Google__Protobuf__Struct *object, const char *name, struct kb_str text,
                       struct kb_arena *arena)
{
    Google__Protobuf__Value *value;

    if (text.len == 0) {
        return;
    }
    value = value_new(arena);
    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    value->string_value = (char *)(uintptr_t)kb_str_dup(arena, text).p;
    field_add(object, kb_str_from_cstr(name), value, arena);
}

static void struct_add(Google__Protobuf__Struct *object, const char *name,
                       Google__Protobuf__Struct *inner, struct kb_arena *arena)
{
    Google__Protobuf__Value *value = value_new(arena);

    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    value->struct_value = inner;
    field_add(object, kb_str_from_cstr(name), value, arena);
}

static int entry_cmp(const void *a, const void *b)
{
    return strcmp((*(Google__Protobuf__Struct__FieldsEntry *const *)a)->key,
                  (*(Google__Protobuf__Struct__FieldsEntry *const *)b)->key);
}

static Google__Protobuf__Struct *sorted(Google__Protobuf__Struct *object)
{
    qsort(object->fields, object->n_fields, sizeof(*object->fields), entry_cmp);
    return object;
}

static struct kb_str owner_text(const struct kb_workload *workload, struct kb_arena *arena)
{
    if (workload->type == KB_WORKLOAD_UNKNOWN) {
        return KB_STR("");
    }
    return kb_str_printf(
        arena, OWNER_PREFIX "%.*s/%.*ss/%.*s", KB_STR_ARG(workload->namespace_name),
        KB_STR_ARG(kb_workload_type_names[workload->type]), KB_STR_ARG(workload->name));
}

struct Google__Protobuf__Struct *kb_workload_to_struct(const struct kb_workload *workload,
                                                       struct kb_arena *arena)
{
    Google__Protobuf__Struct *object = struct_new(6, arena);
    Google__Protobuf__Struct *labels = struct_new(4 + workload->label_count, arena);

    string_add(labels, "service.istio.io/canonical-name", workload->canonical_name, arena);
    string_add(labels, "service.istio.io/canonical-revision", workload->canonical_revision, arena);
    string_add(labels, "app", workload->app, arena);
    string_add(labels, "version", workload->version, arena);
    for (size_t i = 0; i < workload->label_count; i++) {
        string_add(labels, kb_str_dup(arena, workload->labels[i].name).p, workload->labels[i].value,
                   arena);
    }
    string_add(object, "CLUSTER_ID", workload->cluster, arena);
    struct_add(object, "LABELS", sorted(labels), arena);
    string_add(object, "NAME", workload->instance, arena);
    string_add(object, "NAMESPACE", workload->namespace_name, arena);
    string_add(object, "OWNER", owner_text(workload, arena), arena);
    string_add(object, "WORKLOAD_NAME", workload->name, arena);
    return object;
}

struct kb_str kb_workload_to_base64(const struct kb_workload *workload, struct kb_arena *arena)
{
    return kb_base64_encode(kb_pb_pack(&kb_workload_to_struct(workload, arena)->base, arena),
                            arena);
}
