/* SPDX-License-Identifier: Apache-2.0 */
/* The ClientHello parser. Every length is checked against what is left; nothing is believed that
 * was not there. What is refused here is what BoringSSL's SSL_parse_client_hello refuses, and a
 * server_name extension that it would not accept. */
#include "proxy/api/tls_client_hello.h"

#define RECORD_HEADER_BYTES    5
#define RECORD_HANDSHAKE       22
#define RECORD_MAX             (16384 + 256)
#define RECORDS_MAX            4096 /* one byte each would be hostile enough */
#define EMPTY_RECORDS_MAX      32
#define HANDSHAKE_HEADER_BYTES 4
#define HANDSHAKE_CLIENT_HELLO 1
#define RANDOM_BYTES           32
#define SESSION_ID_MAX         32
#define SERVER_NAME_MAX        255

#define EXTENSION_SERVER_NAME        0
#define EXTENSION_ALPN               16
#define EXTENSION_SUPPORTED_VERSIONS 43

/* ---- a cursor that cannot leave its bytes ---- */

static bool take_bytes(struct kb_str *from, size_t n, struct kb_str *out)
{
    if (from->len < n) {
        return false;
    }
    *out = kb_str_make(from->p, n);
    *from = kb_str_make(from->p + n, from->len - n);
    return true;
}

static bool take_number(struct kb_str *from, unsigned bytes, uint32_t *out)
{
    struct kb_str taken;

    if (!take_bytes(from, bytes, &taken)) {
        return false;
    }
    *out = 0;
    for (unsigned i = 0; i < bytes; i++) {
        *out = *out << 8 | (unsigned char)taken.p[i];
    }
    return true;
}

/* A vector with a length of `bytes` bytes before it. */
static bool take_vector(struct kb_str *from, unsigned bytes, struct kb_str *out)
{
    uint32_t len;

    return take_number(from, bytes, &len) && take_bytes(from, len, out);
}

/* ---- records ---- */

static enum kb_client_hello_result header_check(struct kb_str bytes)
{
    /* As soon as a byte can tell, it does: a plain text protocol need not send five. */
    if (bytes.len > 0 && bytes.p[0] != RECORD_HANDSHAKE) {
        return KB_CLIENT_HELLO_NOT_TLS;
    }
    if (bytes.len > 1 && bytes.p[1] != 3) {
        return KB_CLIENT_HELLO_NOT_TLS;
    }
    return bytes.len < RECORD_HEADER_BYTES ? KB_CLIENT_HELLO_MORE : KB_CLIENT_HELLO_DONE;
}

/* Where the handshake message is collected; `whole` is what the caller gets. */
struct collected {
    struct kb_str first; /* the first record's bytes, not copied */
    char *scratch;
    size_t len;    /* bytes of the message seen */
    size_t wanted; /* with its header; 0: not known yet */
    unsigned empty;
};

static unsigned char byte_at(const struct collected *message, size_t i)
{
    const char *p = message->first.len == message->len ? message->first.p : message->scratch;

    return (unsigned char)p[i];
}

static enum kb_client_hello_result wanted_find(struct collected *message, size_t limit)
{
    size_t body;

    if (message->len > 0 && byte_at(message, 0) != HANDSHAKE_CLIENT_HELLO) {
        return KB_CLIENT_HELLO_NOT_TLS;
    }
    if (message->len < HANDSHAKE_HEADER_BYTES) {
        return KB_CLIENT_HELLO_MORE;
    }
    body =
        (size_t)byte_at(message, 1) << 16 | (size_t)byte_at(message, 2) << 8 | byte_at(message, 3);
    if (body + HANDSHAKE_HEADER_BYTES > limit) {
        return KB_CLIENT_HELLO_TOO_LARGE;
    }
    message->wanted = body + HANDSHAKE_HEADER_BYTES;
    return KB_CLIENT_HELLO_DONE;
}

/* Adds what is there of one record, no more than `limit` bytes in all. */
static void collect(struct collected *message, struct kb_str piece, size_t limit)
{
    piece = kb_str_first(piece, limit - message->len);
    if (message->len == 0) {
        message->first = piece;
        message->len = piece.len;
        return;
    }
    if (message->first.len == message->len) {
        memcpy(message->scratch, message->first.p, message->first.len);
    }
    if (piece.len > 0) {
        memcpy(message->scratch + message->len, piece.p, piece.len);
        message->len += piece.len;
    }
}

/* Collects records until the message is whole. */
static enum kb_client_hello_result message_collect(struct kb_str bytes, size_t limit,
                                                   struct collected *message,
                                                   struct kb_client_hello *hello)
{
    struct kb_str rest = bytes;

    for (unsigned i = 0; i < RECORDS_MAX; i++) {
        enum kb_client_hello_result result = header_check(rest);
        struct kb_str piece;
        size_t len, before = message->len;

        if (result != KB_CLIENT_HELLO_DONE) {
            return result;
        }
        len = (size_t)(unsigned char)rest.p[3] << 8 | (unsigned char)rest.p[4];
        message->empty += len == 0;
        if (len > RECORD_MAX || message->empty > EMPTY_RECORDS_MAX) {
            return KB_CLIENT_HELLO_NOT_TLS;
        }
        rest = kb_str_from(rest, RECORD_HEADER_BYTES);
        piece = kb_str_first(rest, len);
        collect(message, piece, limit);
        result = wanted_find(message, limit);
        if (result != KB_CLIENT_HELLO_DONE && result != KB_CLIENT_HELLO_MORE) {
            return result;
        }
        if (result == KB_CLIENT_HELLO_DONE && message->len >= message->wanted) {
            hello->wire_bytes = (size_t)(rest.p - bytes.p) + (message->wanted - before);
            return KB_CLIENT_HELLO_DONE;
        }
        if (piece.len < len) {
            return KB_CLIENT_HELLO_MORE;
        }
        rest = kb_str_from(rest, len);
    }
    return KB_CLIENT_HELLO_NOT_TLS;
}

/* ---- the message ---- */

/* One host_name, as RFC 6066 section 3 wants it. */
static bool server_name_read(struct kb_str bytes, struct kb_client_hello *hello)
{
    struct kb_str list, name;
    uint32_t type;

    if (!take_vector(&bytes, 2, &list) || bytes.len > 0 || !take_number(&list, 1, &type) ||
        type != 0 || !take_vector(&list, 2, &name) || list.len > 0 || name.len == 0 ||
        name.len > SERVER_NAME_MAX || kb_str_find_char(name, '\0') >= 0) {
        return false;
    }
    hello->server_name = name;
    return true;
}

/* A list that is not well formed counts as none: the handshake itself will say so. */
static void alpn_read(struct kb_str bytes, struct kb_client_hello *hello)
{
    struct kb_str list, rest, name;

    if (!take_vector(&bytes, 2, &list) || bytes.len > 0) {
        return;
    }
    rest = list;
    while (rest.len > 0) {
        if (!take_vector(&rest, 1, &name) || name.len == 0) {
            return;
        }
    }
    hello->alpn = list;
}

static void versions_read(struct kb_str bytes, struct kb_client_hello *hello)
{
    struct kb_str list;
    uint32_t version, max = 0;

    if (!take_vector(&bytes, 1, &list)) {
        return;
    }
    while (take_number(&list, 2, &version)) {
        /* GREASE values (RFC 8701) are no versions. */
        if (version > max && version >> 8 == 3) {
            max = version;
        }
    }
    if (max > 0) {
        hello->max_version = (uint16_t)max;
    }
}

static bool extensions_read(struct kb_client_hello *hello)
{
    struct kb_str rest = hello->extensions;
    struct kb_str bytes;
    uint16_t type;

    while (rest.len > 0) {
        if (!kb_client_hello_next_extension(&rest, &type, &bytes)) {
            return false;
        }
        if (type == EXTENSION_SERVER_NAME && !server_name_read(bytes, hello)) {
            return false;
        }
        if (type == EXTENSION_ALPN) {
            alpn_read(bytes, hello);
        } else if (type == EXTENSION_SUPPORTED_VERSIONS) {
            versions_read(bytes, hello);
        }
    }
    return true;
}

static bool message_read(struct kb_str body, struct kb_client_hello *hello)
{
    struct kb_str random, session_id, compression;
    uint32_t version;

    if (!take_number(&body, 2, &version) || !take_bytes(&body, RANDOM_BYTES, &random) ||
        !take_vector(&body, 1, &session_id) || session_id.len > SESSION_ID_MAX ||
        !take_vector(&body, 2, &hello->cipher_suites) || hello->cipher_suites.len < 2 ||
        hello->cipher_suites.len % 2 != 0 || !take_vector(&body, 1, &compression) ||
        compression.len < 1) {
        return false;
    }
    hello->legacy_version = (uint16_t)version;
    hello->max_version = (uint16_t)version;
    if (body.len == 0) {
        return true; /* before extensions, and well */
    }
    return take_vector(&body, 2, &hello->extensions) && body.len == 0 && extensions_read(hello);
}

enum kb_client_hello_result kb_client_hello_parse(struct kb_str bytes, size_t limit, char *scratch,
                                                  struct kb_client_hello *hello)
{
    struct collected message = {.scratch = scratch};
    enum kb_client_hello_result result;
    const char *p;

    memset(hello, 0, sizeof(*hello));
    result = message_collect(bytes, KB_MIN(limit, (size_t)KB_CLIENT_HELLO_MAX), &message, hello);
    if (result != KB_CLIENT_HELLO_DONE) {
        return result;
    }
    p = message.first.len == message.len ? message.first.p : scratch;
    if (!message_read(
            kb_str_make(p + HANDSHAKE_HEADER_BYTES, message.wanted - HANDSHAKE_HEADER_BYTES),
            hello)) {
        return KB_CLIENT_HELLO_NOT_TLS;
    }
    return KB_CLIENT_HELLO_DONE;
}

bool kb_client_hello_next_alpn(struct kb_str *alpn, struct kb_str *name)
{
    return alpn->len > 0 && take_vector(alpn, 1, name);
}

bool kb_client_hello_next_extension(struct kb_str *extensions, uint16_t *type, struct kb_str *bytes)
{
    uint32_t number;

    if (!take_number(extensions, 2, &number) || !take_vector(extensions, 2, bytes)) {
        return false;
    }
    *type = (uint16_t)number;
    return true;
}
