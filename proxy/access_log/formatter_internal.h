/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the formatter: parsed commands, and the table that makes them from their names. Not for
 * other rooms. */
#pragma once

#include "proxy/api/ssl_connection_info.h"

#include "proxy/access_log/format_value.h"

struct kb_format_time; /* formatter_time.c */
struct kb_format_command;

/* Leaves the value MISSING, as it comes, when there is none. */
typedef void (*kb_format_eval)(const struct kb_format_command *command,
                               struct kb_format_source *source, struct kb_format_value *value);

enum kb_format_pseudo { /* header names that a header map keeps in members of their own */
                        KB_PSEUDO_NONE,
                        KB_PSEUDO_METHOD,
                        KB_PSEUDO_PATH,
                        KB_PSEUDO_AUTHORITY,
                        KB_PSEUDO_SCHEME,
                        KB_PSEUDO_PROTOCOL,
                        KB_PSEUDO_STATUS,
};

struct kb_format_header {
    struct kb_str name; /* lower case; empty: none */
    uint16_t id;
    uint8_t pseudo;
};

struct kb_format_command {
    kb_format_eval eval;
    size_t max_len; /* of text; SIZE_MAX: all of it */
    int param;      /* which of the values that `eval` knows */
    union {
        struct {
            struct kb_format_header main, alternative;
        } header;
        struct kb_str text;
        const struct kb_format_time *time;
        struct {
            const struct kb_format_command *items;
            size_t count;
        } coalesce;
        struct {
            uint8_t from, to;
            uint32_t unit_ns;
        } duration;
        struct {
            bool with_query;
            uint8_t which;
        } path;
        struct {
            uint8_t order;
            uint8_t which;
        } server_name;
        struct {
            struct kb_str path; /* "namespace:key:key" */
            size_t max_len;
        } metadata;
        struct {
            const struct kb_filter_state_key *key;
            struct kb_str field;
            uint8_t form; /* enum state_form of formatter_filter_state.c */
        } state;
        int mask_len; /* addresses; INT_MIN: none */
    };
};

enum kb_format_syntax { /* what may follow a command's name */
                        KB_FORMAT_ONLY = 0,
                        KB_FORMAT_PARAMS_REQUIRED = 1,
                        KB_FORMAT_PARAMS_OPTIONAL = 2,
                        KB_FORMAT_LENGTH = 4,
};

enum kb_format_extension { /* commands that a configuration's `formatters` brings */
                           KB_FORMAT_REQ_WITHOUT_QUERY = 1,
};

/* One line of the table. */
struct kb_format_entry {
    const char *name;
    unsigned syntax;     /* kb_format_syntax */
    unsigned extension;  /* kb_format_extension, or 0 */
    kb_format_eval eval; /* set before make is called */
    int param;
    /* Reads the arguments into *command; false after an error was reported. NULL: there is nothing
     * to read. */
    bool (*make)(struct kb_format_command *command, struct kb_str args, struct kb_arena *arena,
                 struct kb_diag *diag);
};

/* NAME(args):max_len to a command. KB_ENOTFOUND when there is no such command (nothing is
 * reported), KB_EINVALID after an error was reported in Envoy's words. */
int kb_format_command_make(struct kb_format_command *command, struct kb_str name,
                           struct kb_str args, size_t max_len, unsigned extensions,
                           struct kb_arena *arena, struct kb_diag *diag) KB_MUST_USE;
/* The i-th command's name, NULL past the last; for tests. */
const char *kb_format_command_name(size_t i);

/* Evaluates, and cuts text to the command's length. */
KB_INLINE void kb_format_command_eval(const struct kb_format_command *command,
                                      struct kb_format_source *source,
                                      struct kb_format_value *value)
{
    value->kind = KB_FORMAT_MISSING;
    value->scratch = false;
    command->eval(command, source, value);
    if (value->kind == KB_FORMAT_TEXT && value->text.len > command->max_len) {
        value->text.len = command->max_len;
    }
}

/* Evaluators and readers of arguments, by file; the table in formatter_commands.c names them.
 * formatter_http.c: headers, paths, queries, gRPC status. `param` says which header map, path or
 * form. */
enum { KB_FORMAT_REQUEST, KB_FORMAT_RESPONSE, KB_FORMAT_TRAILERS };
enum { KB_FORMAT_GRPC_CAMEL, KB_FORMAT_GRPC_SNAKE, KB_FORMAT_GRPC_NUMBER };
void kb_format_eval_header(const struct kb_format_command *command, struct kb_format_source *source,
                           struct kb_format_value *value);
void kb_format_eval_header_without_query(const struct kb_format_command *command,
                                         struct kb_format_source *source,
                                         struct kb_format_value *value);
void kb_format_eval_headers_bytes(const struct kb_format_command *command,
                                  struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_path(const struct kb_format_command *command, struct kb_format_source *source,
                         struct kb_format_value *value);
void kb_format_eval_server_name(const struct kb_format_command *command,
                                struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_query_param(const struct kb_format_command *command,
                                struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_query_params(const struct kb_format_command *command,
                                 struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_grpc_status(const struct kb_format_command *command,
                                struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_local_reply_body(const struct kb_format_command *command,
                                     struct kb_format_source *source,
                                     struct kb_format_value *value);
void kb_format_eval_access_log_type(const struct kb_format_command *command,
                                    struct kb_format_source *source, struct kb_format_value *value);
bool kb_format_make_header(struct kb_format_command *command, struct kb_str args,
                           struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_path(struct kb_format_command *command, struct kb_str args,
                         struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_server_name(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_query_param(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_query_params(struct kb_format_command *command, struct kb_str args,
                                 struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_grpc_status(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag);

/* formatter_stream.c: facts of the stream and its connections. */
void kb_format_eval_missing(const struct kb_format_command *command,
                            struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_text(const struct kb_format_command *command, struct kb_format_source *source,
                         struct kb_format_value *value);
/* formatter_tls.c: `param` is an enum kb_ssl_text, or an enum kb_ssl_list with KB_FORMAT_SSL_LIST.
 */
enum { KB_FORMAT_SSL_LIST = 256, KB_FORMAT_SSL_UPSTREAM = 512 };
void kb_format_eval_ssl(const struct kb_format_command *command, struct kb_format_source *source,
                        struct kb_format_value *value);
void kb_format_eval_number(const struct kb_format_command *command, struct kb_format_source *source,
                           struct kb_format_value *value);
void kb_format_eval_duration(const struct kb_format_command *command,
                             struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_common_duration(const struct kb_format_command *command,
                                    struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_address(const struct kb_format_command *command,
                            struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_flags(const struct kb_format_command *command, struct kb_format_source *source,
                          struct kb_format_value *value);
void kb_format_eval_literal(const struct kb_format_command *command,
                            struct kb_format_source *source, struct kb_format_value *value);
void kb_format_eval_unique_id(const struct kb_format_command *command,
                              struct kb_format_source *source, struct kb_format_value *value);
bool kb_format_make_common_duration(struct kb_format_command *command, struct kb_str args,
                                    struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_address(struct kb_format_command *command, struct kb_str args,
                            struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_details(struct kb_format_command *command, struct kb_str args,
                            struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_environment(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_hostname(struct kb_format_command *command, struct kb_str args,
                             struct kb_arena *arena, struct kb_diag *diag);
/* Milliseconds from the start of the stream to its end, or to now when it goes on. */
uint64_t kb_format_duration_ms(const struct kb_stream_info *info);

enum { /* param of kb_format_eval_duration */
       KB_FORMAT_DURATION,
       KB_FORMAT_REQUEST_DURATION,
       KB_FORMAT_REQUEST_TX_DURATION,
       KB_FORMAT_RESPONSE_DURATION,
       KB_FORMAT_RESPONSE_TX_DURATION,
       KB_FORMAT_POOL_READY_DURATION,
       KB_FORMAT_ROUTE_RESOLUTION_US,
};

enum { /* param of kb_format_eval_address: an address, and below in which form */
       KB_FORMAT_ADDR_REMOTE,
       KB_FORMAT_ADDR_DIRECT_REMOTE,
       KB_FORMAT_ADDR_LOCAL,
       KB_FORMAT_ADDR_DIRECT_LOCAL,
       KB_FORMAT_ADDR_UPSTREAM_LOCAL,
       KB_FORMAT_ADDR_UPSTREAM_REMOTE,
       KB_FORMAT_ADDR_MASK = 15,
       KB_FORMAT_ADDR_WITHOUT_PORT = 16,
       KB_FORMAT_ADDR_PORT = 32,
       KB_FORMAT_ADDR_ENDPOINT_ID = 64,
};

enum { /* param of kb_format_eval_number */
       KB_FORMAT_BYTES_RECEIVED,
       KB_FORMAT_BYTES_SENT,
       KB_FORMAT_ZERO, /* not counted, 0 as in Envoy where nothing counts it */
       KB_FORMAT_DOWNSTREAM_WIRE_RECEIVED,
       KB_FORMAT_DOWNSTREAM_WIRE_SENT,
       KB_FORMAT_DOWNSTREAM_HEADER_RECEIVED,
       KB_FORMAT_DOWNSTREAM_HEADER_SENT,
       KB_FORMAT_UPSTREAM_WIRE_RECEIVED,
       KB_FORMAT_UPSTREAM_WIRE_SENT,
       KB_FORMAT_UPSTREAM_HEADER_RECEIVED,
       KB_FORMAT_UPSTREAM_HEADER_SENT,
       KB_FORMAT_RESPONSE_CODE,
       KB_FORMAT_ATTEMPT_COUNT,
       KB_FORMAT_CONNECTION_ID,
       KB_FORMAT_UPSTREAM_CONNECTION_ID,
       KB_FORMAT_ROUTE_RESOLUTIONS,
};

enum { /* param of kb_format_eval_text */
       KB_FORMAT_PROTOCOL,
       KB_FORMAT_UPSTREAM_PROTOCOL,
       KB_FORMAT_CODE_DETAILS,
       KB_FORMAT_CODE_DETAILS_RAW,
       KB_FORMAT_TERMINATION_DETAILS,
       KB_FORMAT_DOWNSTREAM_FAILURE,
       KB_FORMAT_UPSTREAM_FAILURE,
       KB_FORMAT_DOWNSTREAM_CLOSE_REASON,
       KB_FORMAT_UPSTREAM_CLOSE_REASON,
       KB_FORMAT_UPSTREAM_CLOSE_TYPE,
       KB_FORMAT_DOWNSTREAM_CLOSE_TYPE,
       KB_FORMAT_UPSTREAM_CLUSTER,
       KB_FORMAT_UPSTREAM_CLUSTER_RAW,
       KB_FORMAT_UPSTREAM_HOST,
       KB_FORMAT_UPSTREAM_HOST_NAME,
       KB_FORMAT_UPSTREAM_HOST_NAME_NO_PORT,
       KB_FORMAT_HOSTS_ATTEMPTED,
       KB_FORMAT_HOSTS_ATTEMPTED_NO_PORT,
       KB_FORMAT_HOST_NAMES_ATTEMPTED,
       KB_FORMAT_HOST_NAMES_ATTEMPTED_NO_PORT,
       KB_FORMAT_CONNECTION_IDS_ATTEMPTED,
       KB_FORMAT_ROUTE_NAME,
       KB_FORMAT_VIRTUAL_CLUSTER_NAME,
       KB_FORMAT_FILTER_CHAIN_NAME,
       KB_FORMAT_LISTENER_NAME,
       KB_FORMAT_STREAM_ID,
};

/* formatter_time.c. param: which time, and whether in local time. */
enum {
    KB_FORMAT_TIME_START,
    KB_FORMAT_TIME_EMIT,
    KB_FORMAT_TIME_CERTIFICATE,
    KB_FORMAT_TIME_LOCAL = 16,
    KB_FORMAT_TIME_CERTIFICATE_END = 32,
    KB_FORMAT_TIME_UPSTREAM = 64
};
/* As the other evaluators and readers of arguments above. */
void kb_format_eval_time(const struct kb_format_command *command, struct kb_format_source *source,
                         struct kb_format_value *value);
bool kb_format_make_time(struct kb_format_command *command, struct kb_str args,
                         struct kb_arena *arena, struct kb_diag *diag);
/* The text of a time in that format; in scratch (KB_FORMAT_SCRATCH bytes) when it fits, else in the
 * arena. */
struct kb_str kb_format_time_text(const struct kb_format_time *time, uint64_t wall_ns,
                                  char *scratch, struct kb_arena *arena);

/* formatter_combined.c: commands about other commands, and those whose data does not exist here
 * yet. */
void kb_format_eval_coalesce(const struct kb_format_command *command,
                             struct kb_format_source *source, struct kb_format_value *value);
bool kb_format_make_coalesce(struct kb_format_command *command, struct kb_str args,
                             struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_unsupported(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag);

/* formatter_filter_state.c. param: 1 for that of the upstream connection. */
void kb_format_eval_filter_state(const struct kb_format_command *command,
                                 struct kb_format_source *source, struct kb_format_value *value);
bool kb_format_make_filter_state(struct kb_format_command *command, struct kb_str args,
                                 struct kb_arena *arena, struct kb_diag *diag);

/* formatter_metadata.c. param: whose metadata. */
enum {
    KB_FORMAT_METADATA_DYNAMIC,
    KB_FORMAT_METADATA_CLUSTER,
    KB_FORMAT_METADATA_ROUTE,
    KB_FORMAT_METADATA_HOST,
    KB_FORMAT_METADATA_LISTENER,
    KB_FORMAT_METADATA_VIRTUAL_HOST,
};
/* As the other evaluators and readers of arguments above. */
void kb_format_eval_metadata(const struct kb_format_command *command,
                             struct kb_format_source *source, struct kb_format_value *value);
bool kb_format_make_metadata(struct kb_format_command *command, struct kb_str args,
                             struct kb_arena *arena, struct kb_diag *diag);
bool kb_format_make_metadata_path(struct kb_format_command *command, struct kb_str args,
                                  struct kb_arena *arena, struct kb_diag *diag);

/* A format with the commands of `extensions` too; see kb_formatter_create. */
struct kb_formatter *kb_formatter_create_extended(struct kb_arena *arena, struct kb_str format,
                                                  bool omit_empty, unsigned extensions,
                                                  struct kb_diag *diag);
struct kb_json_formatter *
kb_json_formatter_create_extended(struct kb_arena *arena,
                                  const struct Google__Protobuf__Struct *format, bool omit_empty,
                                  unsigned extensions, struct kb_diag *diag);
/* Append to `out`; the JSON line ends with a newline. */
void kb_formatter_append(const struct kb_formatter *formatter, struct kb_format_source *source,
                         struct kb_format_out *out);
void kb_json_formatter_append(const struct kb_json_formatter *formatter,
                              struct kb_format_source *source, struct kb_format_out *out);
/* Whether the format is nothing but one command, which JSON shows with its type; that command. NULL
 * otherwise. */
const struct kb_format_command *kb_formatter_single(const struct kb_formatter *formatter);
/* For a format inside JSON: escapes its literal text, once; then kb_formatter_append_json writes a
 * string or, for a single command, a typed value. Returns false, with nothing written, when that is
 * missing and `omit`. */
void kb_formatter_set_json(struct kb_formatter *formatter, struct kb_arena *arena);
bool kb_formatter_append_json(const struct kb_formatter *formatter, struct kb_format_source *source,
                              bool omit, struct kb_format_out *out);
