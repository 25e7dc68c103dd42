/* SPDX-License-Identifier: Apache-2.0 */
/* The listener_filters of a listener, and when each is out of use (filter_disabled). */
#include <stdlib.h>

#include "envoy/config/listener/v3/listener.pb-c.h"
#include "envoy/extensions/filters/listener/original_dst/v3/original_dst.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"
#include "proxy/api/extension.h"
#include "proxy/listener/listener_internal.h"

typedef Envoy__Config__Listener__V3__ListenerFilterChainMatchPredicate predicate_message;
typedef Envoy__Config__Listener__V3__ListenerFilterChainMatchPredicate__MatchSet predicate_set;

#define ORIGINAL_DST KB_STR("envoy.filters.listener.original_dst")

/* ---- filter_disabled ---- */

enum predicate_kind {
    PREDICATE_NEVER,
    PREDICATE_ANY,
    PREDICATE_NOT,
    PREDICATE_AND,
    PREDICATE_OR,
    PREDICATE_PORTS
};

struct kb_listener_filter_predicate {
    enum predicate_kind kind;
    int32_t port_from; /* inclusive */
    int32_t port_to;   /* exclusive */
    size_t count;
    struct kb_listener_filter_predicate *parts;
};

static void predicate_init(struct kb_listener_filter_predicate *predicate,
                           const predicate_message *m, struct kb_arena *arena);

static void set_init(struct kb_listener_filter_predicate *predicate, const predicate_set *set,
                     struct kb_arena *arena)
{
    predicate->count = set->n_rules;
    predicate->parts = kb_arena_calloc(arena, (set->n_rules + 1) * sizeof(*predicate->parts));
    for (size_t i = 0; i < set->n_rules; i++) {
        predicate_init(&predicate->parts[i], set->rules[i], arena);
    }
}

static void predicate_init(struct kb_listener_filter_predicate *predicate,
                           const predicate_message *m, struct kb_arena *arena)
{
#define RULE(name) ENVOY__CONFIG__LISTENER__V3__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_##name
    if (m->rule_case == RULE(OR_MATCH)) {
        predicate->kind = PREDICATE_OR;
        set_init(predicate, m->or_match, arena);
    } else if (m->rule_case == RULE(AND_MATCH)) {
        predicate->kind = PREDICATE_AND;
        set_init(predicate, m->and_match, arena);
    } else if (m->rule_case == RULE(NOT_MATCH)) {
        predicate->kind = PREDICATE_NOT;
        predicate->count = 1;
        predicate->parts = KB_ARENA_NEW(arena, struct kb_listener_filter_predicate);
        predicate_init(predicate->parts, m->not_match, arena);
    } else if (m->rule_case == RULE(DESTINATION_PORT_RANGE)) {
        predicate->kind = PREDICATE_PORTS;
        predicate->port_from = m->destination_port_range->start;
        predicate->port_to = m->destination_port_range->end;
    } else {
        predicate->kind = m->any_match ? PREDICATE_ANY : PREDICATE_NEVER;
    }
#undef RULE
}

static bool predicate_matches(const struct kb_listener_filter_predicate *predicate,
                              const struct kb_addr *destination)
{
    bool is_and = predicate->kind == PREDICATE_AND;
    int32_t port = kb_addr_port(destination);

    switch (predicate->kind) {
    case PREDICATE_NEVER:
        return false;
    case PREDICATE_ANY:
        return true;
    case PREDICATE_NOT:
        return !predicate_matches(predicate->parts, destination);
    case PREDICATE_PORTS:
        return kb_addr_is_ip(destination) && port >= predicate->port_from &&
               port < predicate->port_to;
    case PREDICATE_AND:
    case PREDICATE_OR:
        break;
    }
    for (size_t i = 0; i < predicate->count; i++) {
        if (predicate_matches(&predicate->parts[i], destination) != is_and) {
            return !is_and;
        }
    }
    return is_and;
}

bool kb_listener_filter_disabled(const struct kb_listener_filter_entry *entry,
                                 const struct kb_connection_info *info)
{
    return entry->disabled != NULL && predicate_matches(entry->disabled, &info->local);
}

/* ---- building ---- */

static void entry_add(struct kb_listener *listener, const struct kb_listener_filter_ops *ops,
                      void *config, const struct kb_listener_filter_predicate *disabled)
{
    struct kb_listener_filter_entry *entry = &listener->filters[listener->filter_count++];
    size_t align = _Alignof(max_align_t);

    entry->ops = ops;
    entry->config = config;
    entry->disabled = disabled;
    entry->state_at = listener->filter_state_size;
    listener->filter_state_size += (ops->state_size + align - 1) / align * align;
    if (ops->max_bytes != NULL) {
        listener->filter_max_bytes = KB_MAX(listener->filter_max_bytes, ops->max_bytes(config));
    }
}

static void filter_create(struct kb_listener *listener,
                          const Envoy__Config__Listener__V3__ListenerFilter *m,
                          struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_str type = KB_STR_NULL;
    struct kb_listener_filter_predicate *disabled = NULL;
    const struct kb_extension *extension;
    const struct kb_listener_filter_ops *ops;
    const ProtobufCMessage *message;
    void *config = NULL;

    if (m->config_type_case ==
        ENVOY__CONFIG__LISTENER__V3__LISTENER_FILTER__CONFIG_TYPE_TYPED_CONFIG) {
        type = kb_any_inner_name(m->typed_config, &listener->arena);
    }
    extension =
        type.len > 0 ? kb_extension_find(KB_EXT_LISTENER_FILTER, type, kb_wkt_str(m->name)) : NULL;
    if (extension == NULL) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      m->name, KB_STR_ARG(type));
        return;
    }
    ops = extension->ops;
    kb_diag_push(diag, "typed_config");
    message = kb_any_unpack(m->typed_config, NULL, &listener->arena, diag);
    if (message != NULL && ops->config_create(message, factory, diag, &config) == 0) {
        if (m->filter_disabled != NULL) {
            disabled = KB_ARENA_NEW(&listener->arena, struct kb_listener_filter_predicate);
            predicate_init(disabled, m->filter_disabled, &listener->arena);
        }
        entry_add(listener, ops, config, disabled);
    }
    kb_diag_pop(diag);
}

/* use_original_dst stands for one more filter behind the others. */
static void original_dst_add(struct kb_listener *listener, struct kb_factory_context *factory,
                             struct kb_diag *diag)
{
    const struct kb_extension *extension =
        kb_extension_find(KB_EXT_LISTENER_FILTER, KB_STR_NULL, ORIGINAL_DST);
    const struct kb_listener_filter_ops *ops;
    Envoy__Extensions__Filters__Listener__OriginalDst__V3__OriginalDst message;
    void *config = NULL;

    if (extension == NULL) {
        kb_diag_error(diag, "use_original_dst needs the extension %.*s, which is out of use",
                      KB_STR_ARG(ORIGINAL_DST));
        return;
    }
    ops = extension->ops;
    envoy__extensions__filters__listener__original_dst__v3__original_dst__init(&message);
    if (ops->config_create(&message, factory, diag, &config) == 0) {
        entry_add(listener, ops, config, NULL);
    }
}

void kb_listener_filters_create(struct kb_listener *listener,
                                const struct Envoy__Config__Listener__V3__Listener *m,
                                struct kb_diag *diag)
{
    struct kb_factory_context factory = {
        .server = listener->server,
        .arena = &listener->arena,
        .init = &listener->init,
        .stat_prefix = listener->stat_prefix.p,
        .listener_name = listener->name,
        .inbound = listener->inbound,
    };

    listener->filters =
        kb_arena_calloc(&listener->arena, (m->n_listener_filters + 1) * sizeof(*listener->filters));
    for (size_t i = 0; i < m->n_listener_filters; i++) {
        kb_diag_push_index(diag, "listener_filters", i);
        filter_create(listener, m->listener_filters[i], &factory, diag);
        kb_diag_pop(diag);
    }
    if (listener->use_original_dst) {
        original_dst_add(listener, &factory, diag);
    }
}

void kb_listener_filters_destroy(struct kb_listener *listener)
{
    for (size_t i = 0; i < listener->filter_count; i++) {
        if (listener->filters[i].ops->config_destroy != NULL) {
            listener->filters[i].ops->config_destroy(listener->filters[i].config);
        }
    }
    listener->filter_count = 0;
}
