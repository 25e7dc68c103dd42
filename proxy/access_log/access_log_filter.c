/* SPDX-License-Identifier: Apache-2.0 */
/* Access log filters: a tree of conditions on the finished stream. Envoy: "Access log filters". */
#include "proxy/access_log/access_log_filter.h"

#include "base/rand.h"
#include "envoy/config/accesslog/v3/accesslog.pb-c.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/type/v3/percent.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"
#include "proxy/access_log/formatter_internal.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/runtime.h"
#include "proxy/matcher/header_match.h"
#include "proxy/matcher/metadata_match.h"
#include "proxy/matcher/runtime_fraction.h"

#define DEPTH_MAX 32 /* and/or filters in one another */

enum filter_kind {
    FILTER_STATUS_CODE,
    FILTER_DURATION,
    FILTER_NOT_HEALTH_CHECK,
    FILTER_CONSTANT,
    FILTER_RUNTIME,
    FILTER_AND,
    FILTER_OR,
    FILTER_HEADER,
    FILTER_RESPONSE_FLAG,
    FILTER_GRPC_STATUS,
    FILTER_LOG_TYPE,
    FILTER_METADATA,
};

struct kb_log_filter {
    enum filter_kind kind;
    bool exclude; /* GRPC_STATUS, LOG_TYPE */
    const struct kb_runtime *runtime;
    union {
        struct {
            int op;
            uint64_t value;
            struct kb_str key;
        } comparison; /* STATUS_CODE, DURATION */
        bool constant;
        struct {
            struct kb_runtime_fraction fraction;
            bool independent;
        } sampled; /* RUNTIME */
        struct {
            struct kb_log_filter **items;
            size_t count;
        } children; /* AND, OR */
        const struct kb_header_matcher *header;
        uint32_t flags;         /* RESPONSE_FLAG; 0: any */
        uint32_t grpc_statuses; /* bits */
        struct {
            struct kb_str *names;
            size_t count;
        } types; /* LOG_TYPE */
        struct {
            const struct kb_metadata_matcher *matcher; /* NULL: none is as it asks */
            bool absent;
        } metadata; /* METADATA */
    };
};

/* What building needs at every node. */
struct filter_builder {
    struct kb_factory_context *factory;
    const struct kb_match_build *build;
    struct kb_diag *diag;
    unsigned depth;
};

static bool filter_build(struct kb_log_filter *filter,
                         const Envoy__Config__Accesslog__V3__AccessLogFilter *message,
                         struct filter_builder *builder);

static const struct kb_runtime *builder_runtime(const struct filter_builder *builder)
{
    return builder->factory->server != NULL ? builder->factory->server->runtime : NULL;
}

static bool comparison_build(struct kb_log_filter *filter,
                             const Envoy__Config__Accesslog__V3__ComparisonFilter *message,
                             struct filter_builder *builder)
{
    if (message == NULL || message->value == NULL) {
        kb_diag_error(builder->diag, "field: \"%s\", reason: is required",
                      message == NULL ? "comparison" : "value");
        return false;
    }
    filter->runtime = builder_runtime(builder);
    filter->comparison.op = (int)message->op;
    filter->comparison.value = message->value->default_value;
    filter->comparison.key =
        kb_str_dup(builder->build->arena, kb_str_from_cstr(message->value->runtime_key));
    return true;
}

static bool children_build(struct kb_log_filter *filter,
                           Envoy__Config__Accesslog__V3__AccessLogFilter **messages, size_t n,
                           struct filter_builder *builder)
{
    bool ok = true;

    if (builder->depth == DEPTH_MAX) {
        kb_diag_error(builder->diag, "access log filters are nested too deeply, at most %d",
                      DEPTH_MAX);
        return false;
    }
    builder->depth++;
    filter->children.items =
        kb_arena_calloc(builder->build->arena, (n + 1) * sizeof(struct kb_log_filter *));
    filter->children.count = n;
    for (size_t i = 0; i < n; i++) {
        filter->children.items[i] = KB_ARENA_NEW(builder->build->arena, struct kb_log_filter);
        kb_diag_push_index(builder->diag, "filters", i);
        ok = filter_build(filter->children.items[i], messages[i], builder) && ok;
        kb_diag_pop(builder->diag);
    }
    builder->depth--;
    return ok;
}

static bool sampled_build(struct kb_log_filter *filter,
                          const Envoy__Config__Accesslog__V3__RuntimeFilter *message,
                          struct filter_builder *builder)
{
    const Envoy__Type__V3__FractionalPercent *percent = message->percent_sampled;
    struct kb_runtime_fraction *fraction = &filter->sampled.fraction;

    filter->runtime = builder_runtime(builder);
    fraction->key = kb_str_dup(builder->build->arena, kb_str_from_cstr(message->runtime_key));
    fraction->numerator = percent != NULL ? percent->numerator : 0;
    fraction->denominator = percent != NULL ? kb_fraction_denominator(percent) : 100;
    filter->sampled.independent = message->use_independent_randomness != 0;
    return true;
}

static bool header_build(struct kb_log_filter *filter,
                         const Envoy__Config__Accesslog__V3__HeaderFilter *message,
                         struct filter_builder *builder)
{
    if (message->header == NULL) {
        kb_diag_error(builder->diag, "field: \"header\", reason: is required");
        return false;
    }
    filter->header = kb_header_matchers_create(&message->header, 1, "header", builder->build);
    return filter->header != NULL;
}

static bool flags_build(struct kb_log_filter *filter,
                        const Envoy__Config__Accesslog__V3__ResponseFlagFilter *message,
                        struct filter_builder *builder)
{
    for (size_t i = 0; i < message->n_flags; i++) {
        unsigned flag = 0;

        while (flag < KB_RF_COUNT && strcmp(kb_response_flag_short((enum kb_response_flag)flag),
                                            message->flags[i]) != 0) {
            flag++;
        }
        if (flag == KB_RF_COUNT) {
            kb_diag_push_index(builder->diag, "flags", i);
            kb_diag_error(builder->diag, "'%s' is not a response flag", message->flags[i]);
            kb_diag_pop(builder->diag);
            return false;
        }
        filter->flags |= UINT32_C(1) << flag;
    }
    return true;
}

static bool grpc_build(struct kb_log_filter *filter,
                       const Envoy__Config__Accesslog__V3__GrpcStatusFilter *message)
{
    filter->exclude = message->exclude != 0;
    for (size_t i = 0; i < message->n_statuses; i++) {
        if ((unsigned)message->statuses[i] < 32) {
            filter->grpc_statuses |= UINT32_C(1) << message->statuses[i];
        }
    }
    return true;
}

static bool types_build(struct kb_log_filter *filter,
                        const Envoy__Config__Accesslog__V3__LogTypeFilter *message,
                        struct filter_builder *builder)
{
    filter->exclude = message->exclude != 0;
    filter->types.names =
        kb_arena_calloc(builder->build->arena, (message->n_types + 1) * sizeof(struct kb_str));
    for (size_t i = 0; i < message->n_types; i++) {
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(
            &envoy__data__accesslog__v3__access_log_type__descriptor, (int)message->types[i]);

        if (value != NULL) {
            filter->types.names[filter->types.count++] = kb_str_from_cstr(value->name);
        }
    }
    return true;
}

static bool constant_build(struct kb_log_filter *filter, bool constant)
{
    filter->constant = constant;
    return true;
}

static bool extension_refuse(const Envoy__Config__Accesslog__V3__ExtensionFilter *message,
                             struct filter_builder *builder)
{
    kb_diag_error(builder->diag,
                  "Didn't find a registered implementation for '%s' with type URL: '%s'",
                  message->name,
                  message->config_type_case ==
                          ENVOY__CONFIG__ACCESSLOG__V3__EXTENSION_FILTER__CONFIG_TYPE_TYPED_CONFIG
                      ? message->typed_config->type_url
                      : "");
    return false;
}

static bool metadata_build(struct kb_log_filter *filter,
                           const Envoy__Config__Accesslog__V3__MetadataFilter *message,
                           struct filter_builder *builder)
{
    struct kb_metadata_matcher *matcher;
    int rc;

    filter->metadata.absent =
        message->match_if_key_not_found == NULL || message->match_if_key_not_found->value != 0;
    if (message->matcher == NULL) {
        return true;
    }
    matcher = KB_ARENA_NEW(builder->build->arena, struct kb_metadata_matcher);
    kb_diag_push(builder->diag, "matcher");
    rc = kb_metadata_matcher_init(matcher, message->matcher, builder->build);
    kb_diag_pop(builder->diag);
    filter->metadata.matcher = matcher;
    return rc == 0;
}

#define SPECIFIER(NAME) ENVOY__CONFIG__ACCESSLOG__V3__ACCESS_LOG_FILTER__FILTER_SPECIFIER_##NAME

static enum filter_kind filter_kind(const Envoy__Config__Accesslog__V3__AccessLogFilter *message)
{
    switch (message->filter_specifier_case) {
    case SPECIFIER(STATUS_CODE_FILTER):
        return FILTER_STATUS_CODE;
    case SPECIFIER(DURATION_FILTER):
        return FILTER_DURATION;
    case SPECIFIER(NOT_HEALTH_CHECK_FILTER):
        return FILTER_NOT_HEALTH_CHECK;
    case SPECIFIER(RUNTIME_FILTER):
        return FILTER_RUNTIME;
    case SPECIFIER(AND_FILTER):
        return FILTER_AND;
    case SPECIFIER(OR_FILTER):
        return FILTER_OR;
    case SPECIFIER(HEADER_FILTER):
        return FILTER_HEADER;
    case SPECIFIER(RESPONSE_FLAG_FILTER):
        return FILTER_RESPONSE_FLAG;
    case SPECIFIER(GRPC_STATUS_FILTER):
        return FILTER_GRPC_STATUS;
    case SPECIFIER(LOG_TYPE_FILTER):
        return FILTER_LOG_TYPE;
    case SPECIFIER(METADATA_FILTER):
        return FILTER_METADATA;
    case SPECIFIER(TRACEABLE_FILTER):
    case SPECIFIER(EXTENSION_FILTER):
    case SPECIFIER(_NOT_SET):
    default:
        return FILTER_CONSTANT;
    }
}

/* The part of the message that its specifier names. */
static bool specifier_build(struct kb_log_filter *filter,
                            const Envoy__Config__Accesslog__V3__AccessLogFilter *message,
                            struct filter_builder *builder)
{
    switch (message->filter_specifier_case) {
    case SPECIFIER(STATUS_CODE_FILTER):
        return comparison_build(filter, message->status_code_filter->comparison, builder);
    case SPECIFIER(DURATION_FILTER):
        return comparison_build(filter, message->duration_filter->comparison, builder);
    case SPECIFIER(NOT_HEALTH_CHECK_FILTER):
        return true;
    case SPECIFIER(TRACEABLE_FILTER):
        return constant_build(filter, false); /* nothing is traced: no tracer can be configured */
    case SPECIFIER(RUNTIME_FILTER):
        return sampled_build(filter, message->runtime_filter, builder);
    case SPECIFIER(AND_FILTER):
        return children_build(filter, message->and_filter->filters, message->and_filter->n_filters,
                              builder);
    case SPECIFIER(OR_FILTER):
        return children_build(filter, message->or_filter->filters, message->or_filter->n_filters,
                              builder);
    case SPECIFIER(HEADER_FILTER):
        return header_build(filter, message->header_filter, builder);
    case SPECIFIER(RESPONSE_FLAG_FILTER):
        return flags_build(filter, message->response_flag_filter, builder);
    case SPECIFIER(GRPC_STATUS_FILTER):
        return grpc_build(filter, message->grpc_status_filter);
    case SPECIFIER(LOG_TYPE_FILTER):
        return types_build(filter, message->log_type_filter, builder);
    case SPECIFIER(METADATA_FILTER):
        return metadata_build(filter, message->metadata_filter, builder);
    case SPECIFIER(EXTENSION_FILTER):
        return extension_refuse(message->extension_filter, builder);
    case SPECIFIER(_NOT_SET):
    default:
        kb_diag_error(builder->diag, "field: \"filter_specifier\", reason: is required");
        return false;
    }
}

static bool filter_build(struct kb_log_filter *filter,
                         const Envoy__Config__Accesslog__V3__AccessLogFilter *message,
                         struct filter_builder *builder)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(
        message->base.descriptor, (unsigned)message->filter_specifier_case);
    bool ok;

    filter->kind = filter_kind(message);
    if (field == NULL) {
        return specifier_build(filter, message, builder);
    }
    kb_diag_push(builder->diag, field->name);
    ok = specifier_build(filter, message, builder);
    kb_diag_pop(builder->diag);
    return ok;
}

struct kb_log_filter *
kb_log_filter_create(const struct Envoy__Config__Accesslog__V3__AccessLogFilter *message,
                     struct kb_factory_context *factory, const struct kb_match_build *build)
{
    struct filter_builder builder = {.factory = factory, .build = build, .diag = build->diag};
    struct kb_log_filter *filter = KB_ARENA_NEW(build->arena, struct kb_log_filter);

    return filter_build(filter, message, &builder) ? filter : NULL;
}

/* ---- on the worker ---- */

static bool compare(const struct kb_log_filter *filter, uint64_t actual)
{
    uint64_t value =
        filter->comparison.key.len == 0
            ? filter->comparison.value
            : kb_runtime_get_u64(filter->runtime, filter->comparison.key, filter->comparison.value);

    switch (filter->comparison.op) {
    case ENVOY__CONFIG__ACCESSLOG__V3__COMPARISON_FILTER__OP__GE:
        return actual >= value;
    case ENVOY__CONFIG__ACCESSLOG__V3__COMPARISON_FILTER__OP__LE:
        return actual <= value;
    case ENVOY__CONFIG__ACCESSLOG__V3__COMPARISON_FILTER__OP__NE:
        return actual != value;
    default:
        return actual == value;
    }
}

/* The first eight digits of the request id, so that all hops decide alike. */
static bool request_id_number(struct kb_str id, uint64_t *number)
{
    *number = 0;
    for (size_t i = 0; i < 8; i++) {
        char c = i < id.len ? kb_ascii_lower(id.p[i]) : '\0';

        if (!kb_ascii_is_digit(c) && (c < 'a' || c > 'f')) {
            return false;
        }
        *number = *number * 16 + (uint64_t)(kb_ascii_is_digit(c) ? c - '0' : c - 'a' + 10);
    }
    return true;
}

static bool sampled(const struct kb_log_filter *filter, const struct kb_stream_info *info)
{
    uint64_t random = 0;

    if ((filter->sampled.independent || !request_id_number(info->request_id, &random)) &&
        info->worker != NULL) {
        random = kb_rand_u64(&info->worker->rand);
    }
    return kb_runtime_fraction_holds(&filter->sampled.fraction, filter->runtime, random);
}

static bool type_listed(const struct kb_log_filter *filter, const char *type)
{
    struct kb_str name = type != NULL ? kb_str_from_cstr(type) : KB_STR("NotSet");

    for (size_t i = 0; i < filter->types.count; i++) {
        if (kb_str_eq(filter->types.names[i], name)) {
            return true;
        }
    }
    return false;
}

static bool grpc_listed(const struct kb_log_filter *filter, const struct kb_formatter_input *input,
                        const struct kb_stream_info *info)
{
    int64_t status = 2; /* Unknown */

    kb_format_grpc_status(input, info, &status);
    return status >= 0 && status < 32 && (filter->grpc_statuses >> status & 1) != 0;
}

/* True when all of an AND, or one of an OR, say so. */
static bool children_evaluate(const struct kb_log_filter *filter,
                              const struct kb_formatter_input *input,
                              const struct kb_stream_info *info)
{
    bool all = filter->kind == FILTER_AND;

    for (size_t i = 0; i < filter->children.count; i++) {
        if (kb_log_filter_evaluate(filter->children.items[i], input, info) != all) {
            return !all;
        }
    }
    return all;
}

/* A value that is there decides; inverted matchers are not, as in Envoy. */
static bool metadata_evaluate(const struct kb_log_filter *filter, const struct kb_stream_info *info)
{
    const struct kb_metadata_matcher *matcher = filter->metadata.matcher;
    const Google__Protobuf__Value *value = NULL;

    if (matcher != NULL) {
        value = kb_metadata_matcher_find(
            matcher, kb_dynamic_metadata_get(kb_stream_info_metadata(info), matcher->filter));
    }
    return value != NULL && value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET
               ? kb_value_matcher_match(&matcher->value, value)
               : filter->metadata.absent;
}

bool kb_log_filter_evaluate(const struct kb_log_filter *filter,
                            const struct kb_formatter_input *input,
                            const struct kb_stream_info *info)
{
    switch (filter->kind) {
    case FILTER_STATUS_CODE:
        return compare(filter, info->response_code);
    case FILTER_DURATION:
        return compare(filter, kb_format_duration_ms(info));
    case FILTER_NOT_HEALTH_CHECK:
        return !info->health_check;
    case FILTER_CONSTANT:
        return filter->constant;
    case FILTER_RUNTIME:
        return sampled(filter, info);
    case FILTER_AND:
    case FILTER_OR:
        return children_evaluate(filter, input, info);
    case FILTER_HEADER:
        return input->request != NULL && kb_header_matcher_match(filter->header, input->request);
    case FILTER_RESPONSE_FLAG:
        return filter->flags == 0 ? info->flag_count > 0 : (info->flags & filter->flags) != 0;
    case FILTER_GRPC_STATUS:
        return grpc_listed(filter, input, info) != filter->exclude;
    case FILTER_LOG_TYPE:
        return type_listed(filter, input->access_log_type) != filter->exclude;
    case FILTER_METADATA:
        return metadata_evaluate(filter, info);
    }
    return true;
}
