/* SPDX-License-Identifier: Apache-2.0 */
/* /config_dump: the configuration as it arrived, one resource at a time, so that neither the dump
 * nor a section of it ever stands in memory as a message (but for ?mask= without ?resource=, which
 * cuts whole sections). */
#include "envoy/admin/v3/config_dump.pb-c.h"
#include "proto/any.h"
#include "proxy/admin/admin_internal.h"
#include "proxy/admin/field_mask.h"

static const ProtobufCMessageDescriptor *const section_types[KB_ADMIN_SECTIONS] = {
    [KB_ADMIN_BOOTSTRAP] = &envoy__admin__v3__bootstrap_config_dump__descriptor,
    [KB_ADMIN_CLUSTERS] = &envoy__admin__v3__clusters_config_dump__descriptor,
    [KB_ADMIN_ECDS] = &envoy__admin__v3__ecds_config_dump__descriptor,
    [KB_ADMIN_ENDPOINTS] = &envoy__admin__v3__endpoints_config_dump__descriptor,
    [KB_ADMIN_LISTENERS] = &envoy__admin__v3__listeners_config_dump__descriptor,
    [KB_ADMIN_SCOPED_ROUTES] = &envoy__admin__v3__scoped_routes_config_dump__descriptor,
    [KB_ADMIN_ROUTES] = &envoy__admin__v3__routes_config_dump__descriptor,
    [KB_ADMIN_SECRETS] = &envoy__admin__v3__secrets_config_dump__descriptor,
};

struct config_dump {
    struct kb_admin_request *request;
    struct kb_admin_response *response;
    struct kb_arena *arena; /* the request's */
    struct kb_regex *name_regex;
    struct kb_str resource; /* the field asked for; empty: everything */
    struct kb_str mask;
    struct kb_str *mask_paths;
    size_t mask_count;
    bool include_eds;
    bool any;                  /* an element of "configs" is written */
    bool bad_mask;             /* ?resource= with a mask that does not fit */
    const char *field;         /* of the section being written: the list that is open, or NULL */
    ProtobufCMessage *section; /* with a mask: the section being collected */
};

static void configs_begin(struct config_dump *dump)
{
    kb_admin_add(dump->response, dump->any ? KB_STR(",\n  ") : KB_STR("{\n \"configs\": [\n  "));
    dump->any = true;
}

/* Writes a message as an element of "configs", packed as Any would be. */
static void element_write(struct config_dump *dump, const ProtobufCMessage *message)
{
    Google__Protobuf__Any any;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    kb_any_pack(message, &arena, &any);
    configs_begin(dump);
    kb_pb_json_write(&dump->response->body, &any.base, KB_PB_JSON_PRETTY | KB_PB_JSON_REDACT, 2);
    kb_arena_dispose(&arena);
}

static bool name_wanted(const struct config_dump *dump, struct kb_str name)
{
    return dump->name_regex == NULL || kb_regex_full_match(dump->name_regex, name);
}

/* Masks an element of a repeated field: paths into its Any go into the message inside. */
static bool element_mask(struct config_dump *dump, ProtobufCMessage *message,
                         struct kb_arena *arena)
{
    struct kb_str *outer =
        kb_arena_alloc(arena, (dump->mask_count + 1) * sizeof(*outer), sizeof(void *));
    struct kb_str *inner =
        kb_arena_alloc(arena, (dump->mask_count + 1) * sizeof(*inner), sizeof(void *));
    const ProtobufCFieldDescriptor *any_field = NULL;
    Google__Protobuf__Any *any = NULL;
    size_t inner_count = 0;

    for (size_t i = 0; i < dump->mask_count; i++) {
        struct kb_str path = dump->mask_paths[i];
        ptrdiff_t dot = kb_str_find_char(path, '.');
        struct kb_str name = dot < 0 ? path : kb_str_first(path, (size_t)dot);
        const ProtobufCFieldDescriptor *field = kb_pb_field_find(message->descriptor, name);

        outer[i] = path;
        if (dot >= 0 && field != NULL && field->label != PROTOBUF_C_LABEL_REPEATED &&
            field->descriptor == &google__protobuf__any__descriptor) {
            outer[i] = name;
            inner[inner_count++] = kb_str_from(path, (size_t)dot + 1);
            any_field = field;
        }
    }
    if (any_field != NULL) {
        memcpy(&any, (const char *)message + any_field->offset, sizeof(any));
    }
    if (any != NULL) {
        ProtobufCMessage *resource = kb_any_peek(any, arena);

        for (size_t i = 0; i < inner_count; i++) {
            if (resource == NULL || !kb_field_mask_valid(resource->descriptor, inner[i])) {
                return false;
            }
        }
        kb_field_mask_trim(resource, inner, inner_count, arena);
        kb_any_pack(resource, arena, any);
    }
    for (size_t i = 0; i < dump->mask_count; i++) {
        if (!kb_field_mask_valid(message->descriptor, outer[i])) {
            return false;
        }
    }
    kb_field_mask_trim(message, outer, dump->mask_count, arena);
    return true;
}

/* ?resource=: the elements of one field become the configs. */
static void resource_visit(void *arg, const char *field, struct kb_str name,
                           const ProtobufCMessage *message)
{
    struct config_dump *dump = arg;
    struct kb_arena arena;
    ProtobufCMessage *copy;

    if (field == NULL || !kb_str_eq(kb_str_from_cstr(field), dump->resource) ||
        !name_wanted(dump, name) || dump->bad_mask) {
        return;
    }
    if (dump->mask_count == 0) {
        element_write(dump, message);
        return;
    }
    kb_arena_init(&arena, NULL);
    copy = kb_pb_copy(message, &arena);
    if (element_mask(dump, copy, &arena)) {
        element_write(dump, copy);
    } else {
        dump->bad_mask = true;
    }
    kb_arena_dispose(&arena);
}

/* As Envoy with x-content-type-options already set by the handler. */
static void error_answer(struct kb_admin_response *response, unsigned status, struct kb_str text)
{
    static const struct kb_admin_header headers[] = {
        {"x-content-type-options", "nosniff"},
        {"content-type", "text/plain"},
        {"cache-control", "no-cache, max-age=0"},
        {"x-content-type-options", "nosniff"},
    };

    memcpy(response->headers, headers, sizeof(headers));
    response->header_count = KB_ARRAY_LEN(headers);
    kb_admin_answer(response, status, text);
}

static void visit(struct config_dump *dump, enum kb_admin_section section, kb_admin_config_fn fn)
{
    const struct kb_admin_sources *sources = &dump->request->admin->sources;

    if (sources->visit_configs != NULL) {
        sources->visit_configs(sources->arg, section, fn, dump);
    }
}

static void resource_dump(struct config_dump *dump)
{
    for (int section = 0; section < KB_ADMIN_SECTIONS; section++) {
        const ProtobufCFieldDescriptor *field;

        if (section == KB_ADMIN_ENDPOINTS && !dump->include_eds) {
            continue;
        }
        field = kb_pb_field_find(section_types[section], dump->resource);
        if (field == NULL) {
            continue;
        }
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            error_answer(
                dump->response, 400,
                kb_str_printf(dump->arena,
                              "%s is not a repeated field. Use ?mask=%s to get only this field",
                              field->name, field->name));
            return;
        }
        visit(dump, (enum kb_admin_section)section, resource_visit);
        if (dump->bad_mask) {
            struct kb_str text = KB_STR("FieldMask goo.gle/debugstr    \n");

            for (size_t i = 0; i < dump->mask_count; i++) {
                text = kb_str_printf(dump->arena, "%.*spaths: \"%.*s\"\n", KB_STR_ARG(text),
                                     KB_STR_ARG(dump->mask_paths[i]));
            }
            error_answer(dump->response, 400,
                         kb_str_printf(dump->arena, "%.*s could not be successfully used.",
                                       KB_STR_ARG(text)));
            return;
        }
        kb_admin_add(dump->response, dump->any ? KB_STR("\n ]\n}\n") : KB_STR("{}\n"));
        return;
    }
    error_answer(
        dump->response, 404,
        kb_str_printf(dump->arena, "%.*s not found in config dump", KB_STR_ARG(dump->resource)));
}

/* Appends an element to the section that is being collected for a mask. */
static void collect_visit(void *arg, const char *field_name, struct kb_str name,
                          const ProtobufCMessage *message)
{
    struct config_dump *dump = arg;
    const ProtobufCFieldDescriptor *field;
    ProtobufCMessage **list;
    ProtobufCMessage **longer;
    size_t count;

    if (field_name == NULL) {
        dump->section = kb_pb_copy(message, dump->arena);
        return;
    }
    if (!name_wanted(dump, name)) {
        return;
    }
    field = kb_pb_field_find(dump->section->descriptor, kb_str_from_cstr(field_name));
    KB_ASSERT(field != NULL && field->label == PROTOBUF_C_LABEL_REPEATED);
    memcpy(&count, (char *)dump->section + field->quantifier_offset, sizeof(count));
    memcpy(&list, (char *)dump->section + field->offset, sizeof(list));
    if ((count & (count - 1)) == 0) {
        longer =
            kb_arena_alloc(dump->arena, KB_MAX(count * 2, 1) * sizeof(*longer), sizeof(void *));
        if (count > 0) {
            memcpy(longer, list, count * sizeof(*longer));
        }
        memcpy((char *)dump->section + field->offset, &longer, sizeof(longer));
        list = longer;
    }
    list[count++] = kb_pb_copy(message, dump->arena);
    memcpy((char *)dump->section + field->quantifier_offset, &count, sizeof(count));
}

static struct kb_str section_version(const struct config_dump *dump, enum kb_admin_section section)
{
    const struct kb_admin_sources *sources = &dump->request->admin->sources;

    return sources->section_version != NULL ? sources->section_version(sources->arg, section)
                                            : KB_STR_NULL;
}

static void version_collect(struct config_dump *dump, struct kb_str version)
{
    const ProtobufCFieldDescriptor *field =
        kb_pb_field_find(dump->section->descriptor, KB_STR("version_info"));
    const char *text = kb_str_dup(dump->arena, version).p;

    if (field != NULL && version.len > 0) {
        memcpy((char *)dump->section + field->offset, &text, sizeof(text));
    }
}

static void masked_section_dump(struct config_dump *dump, enum kb_admin_section section)
{
    for (size_t i = 0; i < dump->mask_count; i++) {
        if (!kb_field_mask_valid(section_types[section], dump->mask_paths[i])) {
            return;
        }
    }
    dump->section = kb_pb_new(section_types[section], dump->arena);
    version_collect(dump, section_version(dump, section));
    visit(dump, section, collect_visit);
    kb_field_mask_trim(dump->section, dump->mask_paths, dump->mask_count, dump->arena);
    element_write(dump, dump->section);
}

/* Writes an element into the section's object, which is open behind its "@type". */
static void section_visit(void *arg, const char *field, struct kb_str name,
                          const ProtobufCMessage *message)
{
    struct config_dump *dump = arg;

    if (field != NULL && !name_wanted(dump, name)) {
        return;
    }
    if (field == NULL) {
        return;
    }
    if (dump->field != NULL && strcmp(dump->field, field) == 0) {
        kb_admin_add(dump->response, KB_STR(",\n    "));
    } else {
        kb_admin_printf(dump->response, "%s,\n   \"%s\": [\n    ",
                        dump->field != NULL ? "\n   ]" : "", field);
        dump->field = field;
    }
    kb_pb_json_write(&dump->response->body, message, KB_PB_JSON_PRETTY | KB_PB_JSON_REDACT, 4);
}

static void bootstrap_visit(void *arg, const char *field, struct kb_str name,
                            const ProtobufCMessage *message)
{
    (void)field;
    (void)name;
    element_write(arg, message);
}

static void any_visit(void *arg, const char *field, struct kb_str name,
                      const ProtobufCMessage *message)
{
    (void)field;
    (void)name;
    (void)message;
    *(bool *)arg = true;
}

/* Of the extension configurations Envoy has no section before one was asked for. */
static bool section_there(const struct config_dump *dump, enum kb_admin_section section)
{
    const struct kb_admin_sources *sources = &dump->request->admin->sources;
    bool any = section != KB_ADMIN_ECDS;

    if (!any && sources->visit_configs != NULL) {
        sources->visit_configs(sources->arg, section, any_visit, &any);
    }
    return any;
}

static void section_dump(struct config_dump *dump, enum kb_admin_section section)
{
    struct kb_str version = section_version(dump, section);

    if (section == KB_ADMIN_BOOTSTRAP) {
        visit(dump, section, bootstrap_visit);
        return;
    }
    configs_begin(dump);
    dump->field = NULL;
    kb_admin_printf(dump->response, "{\n   \"@type\": \"type.googleapis.com/%s\"",
                    section_types[section]->name);
    if (version.len > 0) {
        kb_admin_add(dump->response, KB_STR(",\n   \"version_info\": "));
        kb_json_out_add_quoted(&dump->response->body, version);
    }
    visit(dump, section, section_visit);
    kb_admin_add(dump->response, dump->field != NULL ? KB_STR("\n   ]\n  }") : KB_STR("\n  }"));
}

static void everything_dump(struct config_dump *dump)
{
    for (int section = 0; section < KB_ADMIN_SECTIONS; section++) {
        if ((section == KB_ADMIN_ENDPOINTS && !dump->include_eds) ||
            !section_there(dump, (enum kb_admin_section)section)) {
            continue;
        }
        if (dump->mask_count > 0) {
            masked_section_dump(dump, (enum kb_admin_section)section);
        } else {
            section_dump(dump, (enum kb_admin_section)section);
        }
    }
    if (!dump->any && dump->mask_count > 0) {
        error_answer(
            dump->response, 400,
            kb_str_printf(dump->arena,
                          "FieldMask %.*s could not be successfully applied to any configs.",
                          KB_STR_ARG(dump->mask)));
        return;
    }
    kb_admin_add(dump->response, KB_STR("\n ]\n}\n"));
}

KB_ADMIN_HANDLER(config_dump)
{
    struct kb_str name_regex = kb_admin_query_get(&request->parameters, KB_STR("name_regex"));
    struct config_dump dump = {
        .request = request,
        .response = response,
        .arena = request->arena,
        .resource = kb_admin_query_get(&request->parameters, KB_STR("resource")),
        .mask = kb_admin_query_get(&request->parameters, KB_STR("mask")),
        .include_eds = kb_admin_query_has(&request->parameters, KB_STR("include_eds")),
    };
    struct kb_str error;

    if (name_regex.len > 0) {
        dump.name_regex = kb_regex_create(name_regex, request->arena, &error);
        if (dump.name_regex == NULL) {
            kb_admin_set_content_type(response, "text/plain");
            kb_admin_answer(
                response, 400,
                kb_str_printf(request->arena,
                              "INVALID_ARGUMENT: Error while parsing name_regex from %.*s: %.*s",
                              KB_STR_ARG(name_regex), KB_STR_ARG(error)));
            return;
        }
    }
    kb_field_mask_parse(dump.mask, request->arena, &dump.mask_paths, &dump.mask_count);
    kb_admin_set_content_type(response, KB_ADMIN_JSON);
    if (dump.resource.len > 0) {
        resource_dump(&dump);
    } else {
        everything_dump(&dump);
    }
    kb_regex_destroy(dump.name_regex);
}
