/* SPDX-License-Identifier: Apache-2.0 */
/* What the handlers share: one file each. */
#pragma once

#include "base/regex.h"
#include "proxy/admin/admin.h"
#include "proxy/admin/query.h"

struct kb_admin {
    KB_OBJ;
    struct kb_admin_sources sources;
    struct kb_stat_store *stats;
};
KB_OBJ_MAGIC(kb_admin, 0x41444d49);

struct kb_admin_request {
    struct kb_admin *admin;
    struct kb_str method;
    struct kb_str path;               /* without the query */
    struct kb_admin_query query;      /* of the path */
    struct kb_admin_query parameters; /* of the path, or else of the form */
    struct kb_arena *arena;           /* during kb_admin_handle */
};

/* Fills in status, headers that differ from the default, and body. */
typedef void (*kb_admin_handler_fn)(struct kb_admin_request *request,
                                    struct kb_admin_response *response);

/* One path. */
struct kb_admin_page {
    const char *path;
    const char *help;
    const char *parameters_help; /* lines as /help prints them; may be empty */
    bool mutates;                /* POST only */
    kb_admin_handler_fn handler;
};

extern const struct kb_admin_page kb_admin_pages[]; /* by path */
extern const size_t kb_admin_page_count;

#define KB_ADMIN_JSON "application/json"
/* Default is text/plain; charset=UTF-8. */
void kb_admin_set_content_type(struct kb_admin_response *response, const char *content_type);

/* One more header; both texts are static. */
void kb_admin_header_add(struct kb_admin_response *response, const char *name, const char *value);

/* To the end of the body. */
void kb_admin_add(struct kb_admin_response *response, struct kb_str text);
/* At most 1,000 bytes. */
void kb_admin_printf(struct kb_admin_response *response, const char *fmt, ...) KB_PRINTF(2, 3);
/* Status and text, and nothing else. */
void kb_admin_answer(struct kb_admin_response *response, unsigned status, struct kb_str text);
/* The message as pretty JSON with its content type; `flags` of enum kb_pb_json_flags beside PRETTY.
 */
void kb_admin_answer_message(struct kb_admin_response *response, const ProtobufCMessage *message,
                             unsigned flags);

/* The text of /help. */
void kb_admin_help_add(struct kb_admin_response *response);

/* A slice as the text of a message's field, in the arena. */
char *kb_admin_text(struct kb_str text, struct kb_arena *arena);

#define KB_ADMIN_HANDLER(name) \
    void kb_admin_##name(struct kb_admin_request *request, struct kb_admin_response *response)

KB_ADMIN_HANDLER(home);
KB_ADMIN_HANDLER(help);
KB_ADMIN_HANDLER(certs);
KB_ADMIN_HANDLER(clusters);
KB_ADMIN_HANDLER(config_dump);
KB_ADMIN_HANDLER(contention);
KB_ADMIN_HANDLER(cpuprofiler);
KB_ADMIN_HANDLER(heapprofiler);
KB_ADMIN_HANDLER(allocprofiler);
KB_ADMIN_HANDLER(heap_dump);
KB_ADMIN_HANDLER(drain_listeners);
KB_ADMIN_HANDLER(healthcheck_fail);
KB_ADMIN_HANDLER(healthcheck_ok);
KB_ADMIN_HANDLER(hot_restart_version);
KB_ADMIN_HANDLER(init_dump);
KB_ADMIN_HANDLER(live);
KB_ADMIN_HANDLER(pushes);
KB_ADMIN_HANDLER(unsupported);
KB_ADMIN_HANDLER(listeners);
KB_ADMIN_HANDLER(logging);
KB_ADMIN_HANDLER(memory);
KB_ADMIN_HANDLER(memory_tcmalloc);
KB_ADMIN_HANDLER(quitquitquit);
KB_ADMIN_HANDLER(ready);
KB_ADMIN_HANDLER(reopen_logs);
KB_ADMIN_HANDLER(reset_counters);
KB_ADMIN_HANDLER(runtime);
KB_ADMIN_HANDLER(runtime_modify);
KB_ADMIN_HANDLER(server_info);
KB_ADMIN_HANDLER(stats);
KB_ADMIN_HANDLER(stats_prometheus);
KB_ADMIN_HANDLER(recentlookups);
KB_ADMIN_HANDLER(recentlookups_clear);
KB_ADMIN_HANDLER(recentlookups_disable);
KB_ADMIN_HANDLER(recentlookups_enable);
