/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of pushes. */
#include "xds/xds_push.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"

/* Not within a character: what is kept has to be UTF-8 where the text is. */
static char *text_cut(struct kb_str text, size_t max)
{
    size_t len = KB_MIN(text.len, max);

    while (len > 0 && len < text.len && ((unsigned char)text.p[len] & 0xc0) == 0x80) {
        len--;
    }
    return kb_str_to_cstr(kb_str_first(text, len));
}

void kb_xds_push_log_init(struct kb_xds_push_log *log)
{
    kb_list_init(&log->pushes);
    log->count = 0;
    log->total = 0;
}

static void push_free(struct kb_xds_push *push)
{
    for (uint32_t i = 0; i < push->name_count; i++) {
        free(push->names[i].name);
    }
    free(push->version);
    free(push->error);
    free(push);
}

void kb_xds_push_log_dispose(struct kb_xds_push_log *log)
{
    struct kb_list *link;

    while ((link = kb_list_pop_front(&log->pushes)) != NULL) {
        push_free(KB_LIST_ENTRY(link, struct kb_xds_push, link));
    }
    log->count = 0;
}

struct kb_xds_push *kb_xds_push_begin(const struct kb_xds_push_log *log, enum kb_xds_type type,
                                      const char *way)
{
    struct kb_xds_push *push;

    if (log == NULL) {
        return NULL;
    }
    push = kb_calloc(1, sizeof(*push));
    push->type = type;
    push->way = way;
    return push;
}

void kb_xds_push_note(struct kb_xds_push *push, enum kb_xds_change change, struct kb_str name)
{
    if (push == NULL) {
        return;
    }
    push->counts[change]++;
    if (change != KB_XDS_UNCHANGED && push->name_count < KB_XDS_PUSH_NAMES_MAX) {
        struct kb_xds_push_name *kept = &push->names[push->name_count++];

        kept->change = change;
        kept->name = text_cut(name, KB_XDS_PUSH_NAME_BYTES_MAX);
    }
}

void kb_xds_push_end(struct kb_xds_push_log *log, struct kb_xds_push *push, struct kb_str version,
                     struct kb_str error)
{
    if (push == NULL) {
        return;
    }
    push->wall_ns = kb_clock_wall_ns();
    push->version = text_cut(version, KB_XDS_PUSH_NAME_BYTES_MAX);
    push->error = error.p != NULL ? text_cut(error, KB_XDS_PUSH_ERROR_BYTES_MAX) : NULL;
    if (log->count == KB_XDS_PUSHES_MAX) {
        struct kb_xds_push *oldest = KB_LIST_ENTRY(log->pushes.prev, struct kb_xds_push, link);

        kb_list_unlink(&oldest->link);
        push_free(oldest);
        log->count--;
    }
    kb_list_push_front(&log->pushes, &push->link);
    log->count++;
    log->total++;
}
