/* SPDX-License-Identifier: Apache-2.0 */
/* COALESCE, the first of several commands that has a value; filter state, which no stream has, is
 * checked as Envoy checks it and always missing; CEL is refused. */
#include "proto/doc.h"
#include "proxy/access_log/formatter_internal.h"

/* ---- COALESCE ---- */

/* First error of a diag of our own, as the end of a longer one. */
static struct kb_str first_error(const struct kb_diag *diag)
{
    for (const struct kb_diag_entry *entry = diag->first; entry != NULL; entry = entry->next) {
        if (entry->level == KB_DIAG_ERROR) {
            return entry->text;
        }
    }
    return KB_STR("unknown error");
}

static const struct kb_doc_node *member(const struct kb_doc_node *map, const char *name)
{
    return map->kind == KB_DOC_MAP ? kb_doc_get(map, kb_str_from_cstr(name)) : NULL;
}

/* "max_length": a positive whole number. */
static bool operator_max_len(const struct kb_doc_node *node, size_t *max_len, struct kb_diag *diag)
{
    int64_t number;

    if (node->kind != KB_DOC_NUMBER || kb_str_to_i64(kb_doc_text(node), &number) != 0) {
        kb_diag_error(diag, "'max_length' field must be an integer: key 'max_length' missing or "
                            "not an integer from "
                            "lines 1-1");
        return false;
    }
    if (number <= 0) {
        kb_diag_error(diag, "'max_length' must be a positive integer");
        return false;
    }
    *max_len = (size_t)number;
    return true;
}

static bool operator_make(struct kb_format_command *command, const struct kb_doc_node *node,
                          struct kb_arena *arena, struct kb_diag *diag)
{
    const struct kb_doc_node *name = node->kind == KB_DOC_STRING ? node : member(node, "command");
    const struct kb_doc_node *param = member(node, "param");
    const struct kb_doc_node *max = member(node, "max_length");
    size_t max_len = SIZE_MAX;
    int rc;

    if (node->kind != KB_DOC_STRING && node->kind != KB_DOC_MAP) {
        kb_diag_error(diag, "operator entry must be either a string (command name) or an object "
                            "with 'command' field");
        return false;
    }
    if (name == NULL || name->kind != KB_DOC_STRING) {
        kb_diag_error(
            diag,
            "operator object must have 'command' field: key 'command' missing or not a string from "
            "lines 1-1");
        return false;
    }
    if (param != NULL && param->kind != KB_DOC_STRING) {
        kb_diag_error(
            diag,
            "'param' field must be a string: key 'param' missing or not a string from lines 1-1");
        return false;
    }
    if (max != NULL && !operator_max_len(max, &max_len, diag)) {
        return false;
    }
    rc = kb_format_command_make(command, kb_doc_text(name),
                                param != NULL ? kb_doc_text(param) : KB_STR(""), max_len, 0, arena,
                                diag);
    if (rc == KB_ENOTFOUND) {
        kb_diag_error(diag, "unknown command: '%.*s'", KB_STR_ARG(kb_doc_text(name)));
    }
    return rc == 0;
}

static bool operators_make(struct kb_format_command *command, const struct kb_doc_node *root,
                           struct kb_arena *arena, struct kb_diag *diag)
{
    const struct kb_doc_node *operators = member(root, "operators");
    struct kb_format_command *items;
    size_t i = 0;

    if (operators == NULL) {
        kb_diag_error(diag, "COALESCE: JSON configuration must contain 'operators' array");
        return false;
    }
    if (operators->kind != KB_DOC_LIST) {
        kb_diag_error(
            diag,
            "COALESCE: 'operators' must be an array: key 'operators' missing or not an array from "
            "lines 1-1");
        return false;
    }
    if (operators->len == 0) {
        kb_diag_error(diag, "COALESCE: 'operators' array must not be empty");
        return false;
    }
    items = kb_arena_calloc(arena, operators->len * sizeof(*items));
    for (const struct kb_doc_node *node = operators->first; node != NULL; node = node->next, i++) {
        struct kb_diag inner;
        bool ok;

        kb_diag_init(&inner);
        ok = operator_make(&items[i], node, arena, &inner);
        if (!ok) {
            kb_diag_error(diag, "COALESCE: failed to parse operator at index %zu: %.*s", i,
                          KB_STR_ARG(first_error(&inner)));
        }
        kb_diag_dispose(&inner);
        if (!ok) {
            return false;
        }
    }
    command->coalesce.items = items;
    command->coalesce.count = i;
    return true;
}

bool kb_format_make_coalesce(struct kb_format_command *command, struct kb_str args,
                             struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_doc doc;
    struct kb_diag inner;
    bool ok = false;

    kb_doc_init(&doc);
    kb_diag_init(&inner);
    if (kb_doc_parse_json(&doc, KB_STR(""), args, &inner) != 0 || doc.root == NULL) {
        kb_diag_error(diag, "COALESCE: failed to parse JSON configuration: %.*s",
                      KB_STR_ARG(first_error(&inner)));
    } else {
        ok = operators_make(command, doc.root, arena, diag);
    }
    kb_diag_dispose(&inner);
    kb_doc_dispose(&doc);
    return ok;
}

void kb_format_eval_coalesce(const struct kb_format_command *command,
                             struct kb_format_source *source, struct kb_format_value *value)
{
    for (size_t i = 0; i < command->coalesce.count; i++) {
        kb_format_command_eval(&command->coalesce.items[i], source, value);
        if (value->kind == KB_FORMAT_NUMBER || value->kind == KB_FORMAT_MINUS ||
            value->kind == KB_FORMAT_JSON ||
            (value->kind == KB_FORMAT_TEXT && value->text.len > 0)) {
            return;
        }
    }
    value->kind = KB_FORMAT_MISSING;
}

/* ---- CEL ---- */

bool kb_format_make_unsupported(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag)
{
    (void)command;
    (void)args;
    (void)arena;
    kb_diag_error_hint(
        diag, KB_STR("use another command, or take this one out of the format"),
        "%%CEL%% and %%TYPED_CEL%% are not supported: there is no CEL evaluator in this build");
    return false;
}
