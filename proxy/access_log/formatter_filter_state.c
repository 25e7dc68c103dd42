/* SPDX-License-Identifier: Apache-2.0 */
/* FILTER_STATE and UPSTREAM_FILTER_STATE: objects that filters left on the stream, its connection,
 * or the connection to the host. */
#include "proto/wire.h"
#include "proxy/access_log/formatter_internal.h"
#include "proxy/api/filter_state.h"

enum state_form {
    STATE_PLAIN,
    STATE_TYPED,
    STATE_FIELD,
};

bool kb_format_make_filter_state(struct kb_format_command *command, struct kb_str args,
                                 struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str rest = args;
    struct kb_str key = KB_STR_NULL, form = KB_STR_NULL, field = KB_STR_NULL;

    kb_str_next_token(&rest, ':', &key);
    if (rest.p != NULL) {
        kb_str_next_token(&rest, ':', &form);
    }
    if (rest.p != NULL) {
        kb_str_next_token(&rest, ':', &field);
    }
    if (key.len == 0) {
        kb_diag_error(diag, "Invalid filter state configuration, key cannot be empty.");
        return false;
    }
    if (form.len > 0 && !kb_str_eq(form, KB_STR("PLAIN")) && !kb_str_eq(form, KB_STR("TYPED")) &&
        !kb_str_eq(form, KB_STR("FIELD"))) {
        kb_diag_error(diag, "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.");
        return false;
    }
    if (kb_str_eq(form, KB_STR("FIELD")) != (field.len > 0)) {
        kb_diag_error(
            diag, "Invalid filter state serialize type, FIELD should be used with the field name.");
        return false;
    }
    command->state.key = kb_filter_state_key(key);
    command->state.field = kb_str_dup(arena, field);
    command->state.form = field.len > 0                      ? STATE_FIELD
                          : kb_str_eq(form, KB_STR("PLAIN")) ? STATE_PLAIN
                                                             : STATE_TYPED;
    return true;
}

static const struct kb_filter_state_item *item_find(const struct kb_format_command *command,
                                                    const struct kb_stream_info *info)
{
    if (command->param != 0) {
        return kb_filter_state_item_find(info->upstream.filter_state, command->state.key);
    }
    return kb_filter_state_find(info, command->state.key);
}

static void field_eval(const struct kb_filter_state_item *item, struct kb_str name,
                       struct kb_format_value *value)
{
    struct kb_filter_state_field field = {0};

    if (item->type->field == NULL || !item->type->field(item->object, name, &field)) {
        return;
    }
    if (!field.number) {
        kb_format_value_text(value, field.text);
        return;
    }
    value->kind = field.value < 0 ? KB_FORMAT_MINUS : KB_FORMAT_NUMBER;
    value->number = field.value < 0 ? (uint64_t)0 - (uint64_t)field.value : (uint64_t)field.value;
}

void kb_format_eval_filter_state(const struct kb_format_command *command,
                                 struct kb_format_source *source, struct kb_format_value *value)
{
    const struct kb_filter_state_item *item = item_find(command, source->info);
    struct kb_str text = KB_STR_NULL;

    if (item == NULL) {
        return;
    }
    if (command->state.form == STATE_FIELD) {
        field_eval(item, command->state.field, value);
    } else if (command->state.form == STATE_PLAIN) {
        if (item->type->text != NULL && item->type->text(item->object, source->arena, &text)) {
            kb_format_value_text(value, text);
        }
    } else if (item->type->json != NULL && item->type->json(item->object, source->arena, &text)) {
        kb_format_value_text(value, text);
        /* Alone in JSON it is a value of its own, of any length; none if that cannot be read. */
        if (source->typed) {
            value->kind = kb_utf8_valid(text.p, text.len) ? KB_FORMAT_JSON : KB_FORMAT_MISSING;
        }
    }
}
