/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about TLS: %DOWNSTREAM_PEER_SUBJECT% and the like, of both sides. */
#include "proxy/access_log/formatter_internal.h"

static void value_list(struct kb_format_value *value, const struct kb_str *names, size_t count,
                       struct kb_arena *arena)
{
    struct kb_str text = count > 0 ? names[0] : KB_STR("");

    for (size_t i = 1; i < count; i++) {
        text = kb_str_printf(arena, "%.*s,%.*s", KB_STR_ARG(text), KB_STR_ARG(names[i]));
    }
    kb_format_value_filled(value, text);
}

void kb_format_eval_ssl(const struct kb_format_command *command, struct kb_format_source *source,
                        struct kb_format_value *value)
{
    const struct kb_stream_info *info = source->info;
    const struct kb_ssl_connection_info *ssl = (command->param & KB_FORMAT_SSL_UPSTREAM) != 0
                                                   ? info->upstream.ssl
                                               : info->connection != NULL ? info->connection->ssl
                                                                          : NULL;
    int what = command->param & ~(KB_FORMAT_SSL_UPSTREAM | KB_FORMAT_SSL_LIST);
    size_t count;

    if (ssl == NULL) {
        return;
    }
    if ((command->param & KB_FORMAT_SSL_LIST) != 0) {
        const struct kb_str *names = kb_ssl_list(ssl, (enum kb_ssl_list)what, &count);

        value_list(value, names, count, source->arena);
    } else {
        kb_format_value_filled(value, kb_ssl_text(ssl, (enum kb_ssl_text)what));
    }
}
