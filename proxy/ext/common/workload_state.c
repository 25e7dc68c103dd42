/* SPDX-License-Identifier: Apache-2.0 */
/* Workloads as filter state: the keys, and the forms in which access logs show them. */
#include "base/mem.h"
#include "proto/pb_json.h"
#include "proxy/ext/common/workload.h"

const struct kb_filter_state_key *kb_workload_downstream_key;
const struct kb_filter_state_key *kb_workload_upstream_key;
const struct kb_filter_state_key *kb_workload_not_found_key;

void kb_workload_keys_init(void)
{
    kb_workload_downstream_key = kb_filter_state_key(KB_STR("downstream_peer"));
    kb_workload_upstream_key = kb_filter_state_key(KB_STR("upstream_peer"));
    kb_workload_not_found_key = kb_filter_state_key(KB_STR("peer_not_found"));
}

#define PARTS_MAX 9

struct part {
    const char *name;
    struct kb_str value;
};

/* Every part, in the order of the PLAIN form. */
static void parts_of(const struct kb_workload *w, struct part parts[PARTS_MAX])
{
    parts[0] = (struct part){"type", kb_workload_type_names[w->type]};
    parts[1] = (struct part){"workload", w->name};
    parts[2] = (struct part){"name", w->instance};
    parts[3] = (struct part){"cluster", w->cluster};
    parts[4] = (struct part){"namespace", w->namespace_name};
    parts[5] = (struct part){"service", w->canonical_name};
    parts[6] = (struct part){"revision", w->canonical_revision};
    parts[7] = (struct part){"app", w->app};
    parts[8] = (struct part){"version", w->version};
}

static bool state_text(const void *object, struct kb_arena *arena, struct kb_str *text)
{
    const struct kb_workload *workload = KB_CAST((void *)(uintptr_t)object, kb_workload);
    struct part parts[PARTS_MAX];
    struct kb_json_out out = {0};

    parts_of(workload, parts);
    for (size_t i = 0; i < PARTS_MAX; i++) {
        if (parts[i].value.len > 0) {
            kb_json_out_add(&out, out.len > 0 ? KB_STR(",") : KB_STR(""));
            kb_json_out_add(&out, kb_str_from_cstr(parts[i].name));
            kb_json_out_add(&out, KB_STR("="));
            kb_json_out_add(&out, parts[i].value);
        }
    }
    for (size_t i = 0; i < workload->label_count; i++) {
        kb_json_out_add(&out, out.len > 0 ? KB_STR(",labels[]") : KB_STR("labels[]"));
        kb_json_out_add(&out, workload->labels[i].name);
        kb_json_out_add(&out, KB_STR("="));
        kb_json_out_add(&out, workload->labels[i].value);
    }
    *text = kb_str_dup(arena, kb_str_make(out.p, out.len));
    kb_json_out_dispose(&out);
    return true;
}

static void json_member(struct kb_json_out *out, bool *first, struct kb_str name)
{
    kb_json_out_add(out, *first ? KB_STR("") : KB_STR(","));
    *first = false;
    kb_json_out_add_quoted(out, name);
    kb_json_out_add(out, KB_STR(":"));
}

static void json_labels(struct kb_json_out *out, const struct kb_workload *workload)
{
    bool first = true;

    kb_json_out_add(out, KB_STR("{"));
    for (size_t i = 0; i < workload->label_count; i++) {
        json_member(out, &first, workload->labels[i].name);
        kb_json_out_add_quoted(out, workload->labels[i].value);
    }
    kb_json_out_add(out, KB_STR("}"));
}

/* An Any of a Struct, members by name. */
static bool state_json(const void *object, struct kb_arena *arena, struct kb_str *json)
{
    static const unsigned char by_name[PARTS_MAX] = {7, 3, 2, 4, 6, 5, 0, 8, 1};
    const struct kb_workload *workload = KB_CAST((void *)(uintptr_t)object, kb_workload);
    struct part parts[PARTS_MAX];
    struct kb_json_out out = {0};
    bool first = true;

    parts_of(workload, parts);
    kb_json_out_add(&out, KB_STR("{\"@type\":\"type.googleapis.com/google.protobuf.Struct\","
                                 "\"value\":{"));
    for (size_t i = 0; i < PARTS_MAX; i++) {
        const struct part *part = &parts[by_name[i]];

        if (i == 2 && workload->label_count > 0) {
            json_member(&out, &first, KB_STR("labels"));
            json_labels(&out, workload);
        }
        /* The name of the instance stands there with the cluster's, even when it is empty. */
        if (by_name[i] == 2 ? workload->cluster.len > 0 : part->value.len > 0) {
            json_member(&out, &first, kb_str_from_cstr(part->name));
            kb_json_out_add_quoted(&out, part->value);
        }
    }
    kb_json_out_add(&out, KB_STR("}}"));
    *json = kb_str_dup(arena, kb_str_make(out.p, out.len));
    kb_json_out_dispose(&out);
    return true;
}

static bool state_field(const void *object, struct kb_str name, struct kb_filter_state_field *field)
{
    const struct kb_workload *workload = KB_CAST((void *)(uintptr_t)object, kb_workload);
    struct part parts[PARTS_MAX];

    parts_of(workload, parts);
    for (size_t i = 0; i < PARTS_MAX; i++) {
        if (kb_str_eq(name, kb_str_from_cstr(parts[i].name))) {
            field->text = i == 0 && parts[i].value.len == 0 ? KB_STR("unknown") : parts[i].value;
            return true;
        }
    }
    return false;
}

static void state_retain(const void *object)
{
    kb_workload_ref(KB_CAST((void *)(uintptr_t)object, kb_workload));
}

static void state_release(const void *object)
{
    kb_workload_unref(KB_CAST((void *)(uintptr_t)object, kb_workload));
}

const struct kb_filter_state_type kb_workload_state_type = {
    .name = "istio.workload",
    .text = state_text,
    .json = state_json,
    .field = state_field,
    .retain = state_retain,
    .release = state_release,
};
