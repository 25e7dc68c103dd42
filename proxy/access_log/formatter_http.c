/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about the messages themselves: headers, path, query, gRPC status, local reply body. */
#include "proxy/access_log/formatter_internal.h"
#include "proxy/http/local_reply.h"

/* ---- headers ---- */

/* RFC 9110 token characters; a colon in front for pseudo headers. */
static bool header_name_is_valid(struct kb_str name)
{
    static const char others[] = "!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < name.len; i++) {
        char c = kb_ascii_lower(name.p[i]);

        if (!((c >= 'a' && c <= 'z') || kb_ascii_is_digit(c) ||
              (c != '\0' && strchr(others, c) != NULL) || (c == ':' && i == 0))) {
            return false;
        }
    }
    return true;
}

static struct kb_str str_lower(struct kb_arena *arena, struct kb_str s)
{
    struct kb_str copy = kb_str_dup(arena, s);

    for (size_t i = 0; i < copy.len; i++) {
        ((char *)(uintptr_t)copy.p)[i] = kb_ascii_lower(copy.p[i]);
    }
    return copy;
}

static void header_init(struct kb_format_header *header, struct kb_str name, struct kb_arena *arena)
{
    static const struct {
        const char *name;
        enum kb_format_pseudo pseudo;
    } pseudos[] = {
        {":method", KB_PSEUDO_METHOD},       {":path", KB_PSEUDO_PATH},
        {":authority", KB_PSEUDO_AUTHORITY}, {"host", KB_PSEUDO_AUTHORITY},
        {":scheme", KB_PSEUDO_SCHEME},       {":protocol", KB_PSEUDO_PROTOCOL},
        {":status", KB_PSEUDO_STATUS},
    };

    header->name = str_lower(arena, name);
    header->id = (uint16_t)kb_header_id_find(header->name);
    header->pseudo = KB_PSEUDO_NONE;
    for (size_t i = 0; i < KB_ARRAY_LEN(pseudos); i++) {
        if (kb_str_eq(header->name, kb_str_from_cstr(pseudos[i].name))) {
            header->pseudo = (uint8_t)pseudos[i].pseudo;
        }
    }
}

bool kb_format_make_header(struct kb_format_command *command, struct kb_str args,
                           struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str rest = args;
    struct kb_str main = KB_STR_NULL, alternative = KB_STR_NULL;

    kb_str_next_token(&rest, '?', &main);
    if (rest.p != NULL) {
        kb_str_next_token(&rest, '?', &alternative);
    }
    if (rest.p != NULL) {
        kb_diag_error(diag, "More than 1 alternative header specified in token: %.*s",
                      KB_STR_ARG(args));
        return false;
    }
    if (!header_name_is_valid(main) || !header_name_is_valid(alternative)) {
        kb_diag_error_hint(
            diag, KB_STR("a header name has letters, digits and !#$%&'*+-.^_`|~"),
            "Invalid header configuration. Format string contains invalid characters.");
        return false;
    }
    header_init(&command->header.main, main, arena);
    header_init(&command->header.alternative, alternative, arena);
    return true;
}

static const struct kb_header_map *input_map(const struct kb_formatter_input *input, int which)
{
    switch (which) {
    case KB_FORMAT_REQUEST:
        return input->request;
    case KB_FORMAT_RESPONSE:
        return input->response;
    default:
        return input->response_trailers;
    }
}

/* The first value of that name; p NULL when absent. */
static struct kb_str header_find(const struct kb_format_header *header,
                                 const struct kb_header_map *map, struct kb_format_source *source,
                                 struct kb_format_value *value)
{
    const struct kb_header *found;

    switch ((enum kb_format_pseudo)header->pseudo) {
    case KB_PSEUDO_METHOD:
        return map->method;
    case KB_PSEUDO_PATH:
        return map->path;
    case KB_PSEUDO_AUTHORITY:
        return map->authority;
    case KB_PSEUDO_SCHEME:
        return map->scheme;
    case KB_PSEUDO_PROTOCOL:
        return map->protocol;
    case KB_PSEUDO_STATUS:
        if (map->status == 0) {
            return KB_STR_NULL;
        }
        value->scratch = true;
        return kb_str_make(source->scratch, kb_u64_to_str(map->status, source->scratch));
    case KB_PSEUDO_NONE:
        break;
    }
    if (header->name.len == 0) {
        return KB_STR_NULL;
    }
    if (header->id != KB_HDR_NONE) {
        return kb_header_map_value_id(map, (enum kb_header_id)header->id);
    }
    found = kb_header_map_get(map, header->name);
    return found != NULL ? found->value : KB_STR_NULL;
}

/* An empty header is there: its text is empty and its p is not NULL. */
static struct kb_str header_or_alternative(const struct kb_format_command *command,
                                           struct kb_format_source *source,
                                           struct kb_format_value *value)
{
    const struct kb_header_map *map = input_map(source->input, command->param);
    struct kb_str text;

    if (map == NULL) {
        return KB_STR_NULL;
    }
    text = header_find(&command->header.main, map, source, value);
    if (text.p == NULL) {
        text = header_find(&command->header.alternative, map, source, value);
    }
    return text;
}

void kb_format_eval_header(const struct kb_format_command *command, struct kb_format_source *source,
                           struct kb_format_value *value)
{
    struct kb_str text = header_or_alternative(command, source, value);

    if (text.p != NULL) {
        kb_format_value_text(value, text);
    }
}

static struct kb_str without_query(struct kb_str path)
{
    ptrdiff_t query = kb_str_find_char(path, '?');

    return query < 0 ? path : kb_str_first(path, (size_t)query);
}

void kb_format_eval_header_without_query(const struct kb_format_command *command,
                                         struct kb_format_source *source,
                                         struct kb_format_value *value)
{
    struct kb_str text = header_or_alternative(command, source, value);

    if (text.p != NULL) {
        kb_format_value_text(value, without_query(text));
    }
}

void kb_format_eval_headers_bytes(const struct kb_format_command *command,
                                  struct kb_format_source *source, struct kb_format_value *value)
{
    const struct kb_header_map *map = input_map(source->input, command->param);

    kb_format_value_number(value, map != NULL ? kb_header_map_bytes(map) : 0);
}

/* ---- path and query ---- */

enum { PATH_ORIGINAL_OR_PATH, PATH_ONLY, PATH_ORIGINAL };

static struct kb_str request_path(const struct kb_formatter_input *input, unsigned which)
{
    const struct kb_header_map *map = input->request;
    struct kb_str original;

    if (map == NULL) {
        return KB_STR_NULL;
    }
    original = which == PATH_ONLY ? KB_STR_NULL
                                  : kb_header_map_value_id(map, KB_HDR_X_ENVOY_ORIGINAL_PATH);
    return original.len > 0 || which == PATH_ORIGINAL ? original : map->path;
}

static bool path_which(struct kb_str option, uint8_t *which)
{
    if (option.len == 0 || kb_str_eq(option, KB_STR("ORIG_OR_PATH"))) {
        *which = PATH_ORIGINAL_OR_PATH;
    } else if (kb_str_eq(option, KB_STR("PATH"))) {
        *which = PATH_ONLY;
    } else if (kb_str_eq(option, KB_STR("ORIG"))) {
        *which = PATH_ORIGINAL;
    } else {
        return false;
    }
    return true;
}

bool kb_format_make_path(struct kb_format_command *command, struct kb_str args,
                         struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str rest = args;
    struct kb_str query = KB_STR_NULL, option = KB_STR_NULL;

    (void)arena;
    kb_str_next_token(&rest, ':', &query);
    if (rest.p != NULL) {
        kb_str_next_token(&rest, ':', &option);
    }
    command->path.with_query = !kb_str_eq(query, KB_STR("NQ"));
    if (command->path.with_query && query.len > 0 && !kb_str_eq(query, KB_STR("WQ"))) {
        kb_diag_error(diag, "Invalid PATH option: '%.*s', only 'WQ'/'NQ' are allowed",
                      KB_STR_ARG(query));
        return false;
    }
    if (!path_which(option, &command->path.which)) {
        kb_diag_error(diag,
                      "Invalid PATH option: '%.*s', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed",
                      KB_STR_ARG(option));
        return false;
    }
    return true;
}

void kb_format_eval_path(const struct kb_format_command *command, struct kb_format_source *source,
                         struct kb_format_value *value)
{
    struct kb_str path = request_path(source->input, command->path.which);

    kb_format_value_filled(value, path);
    if (!command->path.with_query) {
        value->text = without_query(path);
    }
}

/* ---- server name ---- */

enum { SERVER_NAME_ONLY, SERVER_NAME_FIRST, SERVER_HOST_FIRST };
enum { HOST_ORIGINAL_OR_HOST, HOST_ONLY, HOST_ORIGINAL };

static bool server_name_order(struct kb_str option, uint8_t *order)
{
    if (option.len == 0 || kb_str_eq(option, KB_STR("SNI_ONLY"))) {
        *order = SERVER_NAME_ONLY;
    } else if (kb_str_eq(option, KB_STR("SNI_FIRST"))) {
        *order = SERVER_NAME_FIRST;
    } else if (kb_str_eq(option, KB_STR("HOST_FIRST"))) {
        *order = SERVER_HOST_FIRST;
    } else {
        return false;
    }
    return true;
}

static bool host_which(struct kb_str option, uint8_t *which)
{
    if (option.len == 0 || kb_str_eq(option, KB_STR("ORIG_OR_HOST"))) {
        *which = HOST_ORIGINAL_OR_HOST;
    } else if (kb_str_eq(option, KB_STR("HOST"))) {
        *which = HOST_ONLY;
    } else if (kb_str_eq(option, KB_STR("ORIG"))) {
        *which = HOST_ORIGINAL;
    } else {
        return false;
    }
    return true;
}

bool kb_format_make_server_name(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str rest = args;
    struct kb_str order = KB_STR_NULL, host = KB_STR_NULL;

    (void)arena;
    kb_str_next_token(&rest, ':', &order);
    if (rest.p != NULL) {
        kb_str_next_token(&rest, ':', &host);
    }
    if (!server_name_order(order, &command->server_name.order)) {
        kb_diag_error(diag,
                      "Invalid REQUESTED_SERVER_NAME option: '%.*s', only "
                      "'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed",
                      KB_STR_ARG(order));
        return false;
    }
    if (!host_which(host, &command->server_name.which)) {
        kb_diag_error(diag,
                      "Invalid REQUESTED_SERVER_NAME option: '%.*s', only "
                      "'ORIG_OR_HOST'/'HOST'/'ORIG' are allowed",
                      KB_STR_ARG(host));
        return false;
    }
    return true;
}

KB_INLINE bool is_host_char(char c)
{
    return kb_ascii_is_alpha(c) || kb_ascii_is_digit(c) || c == '-' || c == '.';
}

/* The name of the TLS client hello comes from the peer: what no host name has becomes '_'. */
static struct kb_str server_name(struct kb_format_source *source)
{
    const struct kb_connection_info *connection = source->info->connection;
    struct kb_str name = connection != NULL ? connection->requested_server_name : KB_STR_NULL;
    size_t good = 0;
    char *copy;

    while (good < name.len && is_host_char(name.p[good])) {
        good++;
    }
    if (KB_LIKELY(good == name.len)) {
        return name.len > 0 ? name : KB_STR_NULL;
    }
    copy = kb_arena_alloc(source->arena, name.len, 1);
    for (size_t i = 0; i < name.len; i++) {
        copy[i] = is_host_char(name.p[i]) ? name.p[i] : '_';
    }
    return kb_str_make(copy, name.len);
}

static struct kb_str request_host(const struct kb_formatter_input *input, unsigned which)
{
    const struct kb_header_map *map = input->request;
    struct kb_str original;

    if (map == NULL) {
        return KB_STR_NULL;
    }
    original = which == HOST_ONLY ? KB_STR_NULL
                                  : kb_header_map_value_id(map, KB_HDR_X_ENVOY_ORIGINAL_HOST);
    return original.len > 0 || which == HOST_ORIGINAL ? original : map->authority;
}

void kb_format_eval_server_name(const struct kb_format_command *command,
                                struct kb_format_source *source, struct kb_format_value *value)
{
    struct kb_str name = KB_STR_NULL;

    if (command->server_name.order != SERVER_HOST_FIRST) {
        name = server_name(source);
    }
    if (name.len == 0 && command->server_name.order != SERVER_NAME_ONLY) {
        name = request_host(source->input, command->server_name.which);
    }
    if (name.len == 0 && command->server_name.order == SERVER_HOST_FIRST) {
        name = server_name(source);
    }
    kb_format_value_filled(value, name);
}

/* ---- query parameters ---- */

static int hex_digit(char c)
{
    c = kb_ascii_lower(c);
    return kb_ascii_is_digit(c) ? c - '0' : (c >= 'a' && c <= 'f') ? c - 'a' + 10 : -1;
}

/* The byte that "%xx" at p stands for, -1 when it is none. */
static int percent_byte(const char *p)
{
    int high = hex_digit(p[1]);
    int low = hex_digit(p[2]);

    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Not line breaks and zero bytes, or a peer could put headers into a request, and lines into a log,
 * that name the parameter. */
static bool parameter_byte(int byte)
{
    return byte > 0 && byte != '\r' && byte != '\n';
}

/* What a URL may show. */
static bool visible_byte(int byte)
{
    return byte > ' ' && byte < 0x7f && strchr("\"<>\\^{|}", byte) == NULL;
}

/* Decodes the sequences of `wanted` bytes; other ones stay. A percent sign of none stays as well,
 * or, unless it is among the last two bytes, is dropped. */
static struct kb_str percent_decode(struct kb_str text, bool (*wanted)(int byte), bool drop,
                                    struct kb_arena *arena)
{
    char *out;
    size_t len = 0;

    if (kb_str_find_char(text, '%') < 0) {
        return text;
    }
    out = kb_arena_alloc(arena, text.len, 1);
    for (size_t i = 0; i < text.len; i++) {
        bool whole = text.p[i] == '%' && text.len - i > 2;
        int byte = whole ? percent_byte(text.p + i) : 0;

        if (whole && byte >= 0 && wanted(byte)) {
            out[len++] = (char)byte;
            i += 2;
        } else if (byte >= 0 || !drop) {
            out[len++] = text.p[i];
        }
    }
    return kb_str_make(out, len);
}

/* Behind the first question mark; p NULL when there is none. */
static struct kb_str query_of(struct kb_str path)
{
    ptrdiff_t query = kb_str_find_char(path, '?');

    return query < 0 ? KB_STR_NULL : kb_str_from(path, (size_t)query + 1);
}

bool kb_format_make_query_param(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag)
{
    (void)diag;
    command->text = kb_str_dup(arena, args);
    return true;
}

void kb_format_eval_query_param(const struct kb_format_command *command,
                                struct kb_format_source *source, struct kb_format_value *value)
{
    struct kb_str rest = query_of(request_path(source->input, PATH_ONLY));
    struct kb_str param;

    while (rest.p != NULL && kb_str_next_token(&rest, '&', &param)) {
        ptrdiff_t equals = kb_str_find_char(param, '=');
        struct kb_str key = equals < 0 ? param : kb_str_first(param, (size_t)equals);

        if (param.len > 0 &&
            kb_str_eq(percent_decode(key, parameter_byte, false, source->arena), command->text)) {
            struct kb_str raw = equals < 0 ? KB_STR("") : kb_str_from(param, (size_t)equals + 1);

            kb_format_value_text(value, percent_decode(raw, parameter_byte, false, source->arena));
            return;
        }
    }
}

bool kb_format_make_query_params(struct kb_format_command *command, struct kb_str args,
                                 struct kb_arena *arena, struct kb_diag *diag)
{
    (void)arena;
    command->param = kb_str_eq(args, KB_STR("DECODED"));
    if (command->param == 0 && args.len > 0 && !kb_str_eq(args, KB_STR("ORIG"))) {
        kb_diag_error(diag,
                      "Invalid QUERY_PARAMS option: '%.*s', only 'ORIG'/'DECODED' are allowed",
                      KB_STR_ARG(args));
        return false;
    }
    return true;
}

void kb_format_eval_query_params(const struct kb_format_command *command,
                                 struct kb_format_source *source, struct kb_format_value *value)
{
    struct kb_str query = query_of(request_path(source->input, PATH_ONLY));

    if (query.p != NULL) {
        kb_format_value_text(value, command->param != 0
                                        ? percent_decode(query, visible_byte, true, source->arena)
                                        : query);
    }
}

/* ---- gRPC ---- */

static bool request_is_grpc(const struct kb_header_map *request)
{
    struct kb_str type =
        request != NULL ? kb_header_map_value_id(request, KB_HDR_CONTENT_TYPE) : KB_STR_NULL;
    struct kb_str grpc = KB_STR("application/grpc");

    return kb_str_starts_with(type, grpc) && (type.len == grpc.len || type.p[grpc.len] == '+');
}

static bool grpc_from_map(const struct kb_header_map *map, int64_t *status)
{
    struct kb_str text =
        map != NULL ? kb_str_trim(kb_header_map_value_id(map, KB_HDR_GRPC_STATUS)) : KB_STR_NULL;
    uint64_t number;

    if (text.len == 0) {
        return false;
    }
    *status = kb_str_to_u64(text, &number) == 0 && number <= INT64_MAX ? (int64_t)number : -1;
    return true;
}

bool kb_format_grpc_status(const struct kb_formatter_input *input,
                           const struct kb_stream_info *info, int64_t *status)
{
    if (grpc_from_map(input->response_trailers, status) || grpc_from_map(input->response, status)) {
        return true;
    }
    if (info->response_code == 0) {
        return false;
    }
    *status = kb_grpc_status_from_http(info->response_code);
    return true;
}

bool kb_format_make_grpc_status(struct kb_format_command *command, struct kb_str args,
                                struct kb_arena *arena, struct kb_diag *diag)
{
    (void)arena;
    if (args.len == 0 || kb_str_eq(args, KB_STR("CAMEL_STRING"))) {
        command->param = KB_FORMAT_GRPC_CAMEL;
    } else if (kb_str_eq(args, KB_STR("SNAKE_STRING"))) {
        command->param = KB_FORMAT_GRPC_SNAKE;
    } else if (kb_str_eq(args, KB_STR("NUMBER"))) {
        command->param = KB_FORMAT_GRPC_NUMBER;
    } else {
        kb_diag_error(
            diag,
            "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: %.*s",
            KB_STR_ARG(args));
        return false;
    }
    return true;
}

void kb_format_eval_grpc_status(const struct kb_format_command *command,
                                struct kb_format_source *source, struct kb_format_value *value)
{
    static const struct {
        const char *camel, *snake;
    } names[] = {
        {"OK", "OK"},
        {"Canceled", "CANCELLED"},
        {"Unknown", "UNKNOWN"},
        {"InvalidArgument", "INVALID_ARGUMENT"},
        {"DeadlineExceeded", "DEADLINE_EXCEEDED"},
        {"NotFound", "NOT_FOUND"},
        {"AlreadyExists", "ALREADY_EXISTS"},
        {"PermissionDenied", "PERMISSION_DENIED"},
        {"ResourceExhausted", "RESOURCE_EXHAUSTED"},
        {"FailedPrecondition", "FAILED_PRECONDITION"},
        {"Aborted", "ABORTED"},
        {"OutOfRange", "OUT_OF_RANGE"},
        {"Unimplemented", "UNIMPLEMENTED"},
        {"Internal", "INTERNAL"},
        {"Unavailable", "UNAVAILABLE"},
        {"DataLoss", "DATA_LOSS"},
        {"Unauthenticated", "UNAUTHENTICATED"},
    };
    bool snake = command->param == KB_FORMAT_GRPC_SNAKE;
    int64_t status, named;

    if (!request_is_grpc(source->input->request) ||
        !kb_format_grpc_status(source->input, source->info, &status)) {
        return;
    }
    named = snake ? (int32_t)status : status; /* Envoy keeps so much of it for this name */
    if (command->param == KB_FORMAT_GRPC_NUMBER) {
        value->kind = status < 0 ? KB_FORMAT_MINUS : KB_FORMAT_NUMBER;
        value->number = (uint64_t)(status < 0 ? -status : status);
    } else if (named >= 0 && (size_t)named < KB_ARRAY_LEN(names)) {
        kb_format_value_text(value,
                             kb_str_from_cstr(snake ? names[named].snake : names[named].camel));
    } else if (status < 0) {
        kb_format_value_text(value, KB_STR("-1"));
    } else {
        kb_format_value_scratch(
            value, kb_str_make(source->scratch, kb_u64_to_str((uint64_t)status, source->scratch)));
    }
}

/* ---- others ---- */

void kb_format_eval_local_reply_body(const struct kb_format_command *command,
                                     struct kb_format_source *source, struct kb_format_value *value)
{
    (void)command;
    kb_format_value_text(value, source->input->local_reply_body);
}

void kb_format_eval_access_log_type(const struct kb_format_command *command,
                                    struct kb_format_source *source, struct kb_format_value *value)
{
    (void)command;
    kb_format_value_text(value, source->input->access_log_type != NULL
                                    ? kb_str_from_cstr(source->input->access_log_type)
                                    : KB_STR("NotSet"));
}
