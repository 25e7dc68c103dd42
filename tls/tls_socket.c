/* SPDX-License-Identifier: Apache-2.0 */
/* The TLS transport socket: one recv into the worker's room feeds OpenSSL until it has nothing left
 * to read, records are collected and leave with one send. An idle connection owns neither room nor
 * records. */
#include "tls/tls_socket.h"

#include <stdlib.h>

#include <openssl/err.h>

#include "base/log.h"
#include "base/mem.h"

#define READS_PER_EVENT 4           /* as the raw socket: others get their turn */
#define SEALED_MAX      (64 * 1024) /* records made ahead of a full descriptor */
#define COALESCE_BELOW  4096        /* pieces shorter than this share a record */

static const struct kb_transport_socket_ops tls_ops;

static struct kb_tls_socket *socket_of(struct kb_conn *conn)
{
    return KB_CAST(conn->transport_state, kb_tls_socket);
}

/* ---- records to the descriptor ---- */

/* Sends collected records. KB_EAGAIN is no error: conn->transport_write says that some are left.
 * `last`: the descriptor is closed next. */
static int records_send_with(struct kb_tls_socket *socket, bool last)
{
    struct kb_conn *conn = socket->conn;
    struct kb_buf *output = &socket->bio.output;

    while (output->len > 0) {
        struct iovec iov[KB_BUF_IOV_MAX];
        int count = kb_buf_iov(output, iov, KB_BUF_IOV_MAX);
        size_t before = output->len;
        ssize_t n = last ? kb_sock_send_last(conn->io.fd, iov, count)
                         : kb_sock_send(conn->io.fd, iov, count);

        if (n < 0 && n != KB_EAGAIN) {
            return (int)n;
        }
        if (n > 0) {
            kb_buf_consume(output, (size_t)n);
        }
        if (n < 0 || ((size_t)n < before && count < KB_BUF_IOV_MAX)) {
            break;
        }
    }
    conn->transport_bytes = output->len;
    conn->transport_write = output->len > 0     ? KB_TRANSPORT_WRITE_WANTED
                            : conn->handshaking ? KB_TRANSPORT_WRITE_HELD
                                                : KB_TRANSPORT_WRITE_DATA;
    return 0;
}

static int records_send(struct kb_tls_socket *socket)
{
    return records_send_with(socket, false);
}

/* The connection is broken: what OpenSSL wants to say of it (an alert) leaves if it can. */
static int fail(struct kb_tls_socket *socket)
{
    socket->failed = true;
    kb_tls_failure_take(socket);
    (void)records_send(socket);
    return KB_EPROTOCOL;
}

/* ---- handshake ---- */

/* OpenSSL reads its reasons of a failure from the thread's queue, so nothing old may stand there.
 * It hardly ever does, and to look is much cheaper than to clear. */
static void errors_none(void)
{
    if (KB_UNLIKELY(ERR_peek_error() != 0)) {
        ERR_clear_error();
    }
}

static void handshake_done(struct kb_tls_socket *socket)
{
    struct kb_conn *conn = socket->conn;

    kb_tls_session_peer_take(socket);
    if (SSL_session_reused(socket->ssl) && kb_ssl_info_peer(socket->info) != NULL) {
        /* It was checked when the session was made, by a context with the same rules. */
        socket->peer_validated = kb_tls_validation_verifies(socket->context->validation) &&
                                 !socket->context->validation->accept_untrusted;
    }
    kb_ssl_info_handshake_done(socket->info, socket->ssl, socket->peer_validated);
    kb_tls_handshake_count(socket);
    conn->transport_write =
        socket->bio.output.len > 0 ? KB_TRANSPORT_WRITE_WANTED : KB_TRANSPORT_WRITE_DATA;
    kb_conn_handshake_done(conn);
}

/* Goes on as far as it can. 0: done, or waits for the peer. */
static int handshake(struct kb_tls_socket *socket)
{
    int rc;

    if (socket->ssl == NULL || socket->failed) {
        return KB_EPROTOCOL;
    }
    errors_none();
    rc = SSL_do_handshake(socket->ssl);
    if (rc == 1) {
        handshake_done(socket); /* records that are left go with what follows them */
        return 0;
    }
    if (SSL_get_error(socket->ssl, rc) == SSL_ERROR_WANT_READ) {
        return records_send(socket);
    }
    return fail(socket);
}

/* ---- reading ---- */

/* Everything that the records received so far hold. */
static int plain_read(struct kb_tls_socket *socket)
{
    struct kb_conn *conn = socket->conn;

    while (socket->ssl != NULL) {
        size_t room, n = 0;
        char *at = kb_buf_read_room(&conn->in, &room);
        int rc;

        errors_none();
        rc = SSL_read_ex(socket->ssl, at, room, &n);
        if (rc == 1) {
            kb_buf_commit(&conn->in, n);
            conn->bytes_received += n;
            if (socket->bio.input.len == 0 && SSL_pending(socket->ssl) == 0) {
                kb_buf_trim(&conn->in);
                return 0; /* asked again, OpenSSL would take room only to give it back */
            }
            continue;
        }
        kb_buf_trim(&conn->in);
        switch (SSL_get_error(socket->ssl, rc)) {
        case SSL_ERROR_WANT_READ:
            return 0;
        case SSL_ERROR_ZERO_RETURN:
            return KB_ECLOSED; /* close_notify */
        default:
            return fail(socket);
        }
    }
    return KB_EPROTOCOL;
}

/* A ClientHello in the form of SSL 2.0, which OpenSSL would take. */
static bool is_old_hello(struct kb_tls_socket *socket)
{
    bool first = !socket->begun;

    socket->begun = true;
    return first && (socket->bio.input.p[0] & 0x80) != 0;
}

/* What one recv brought. */
static int input_process(struct kb_tls_socket *socket)
{
    struct kb_conn *conn = socket->conn;

    if (conn->handshaking) {
        if (is_old_hello(socket)) {
            ERR_raise(ERR_LIB_SSL, SSL_R_WRONG_VERSION_NUMBER);
            return fail(socket);
        }
        KB_TRY(handshake(socket));
        if (conn->handshaking) {
            return 0;
        }
        if (!kb_conn_is_open(conn)) {
            return 0; /* closed by its owner when it heard of it */
        }
    }
    return plain_read(socket);
}

/* What listener filters looked at before there was this socket. */
static int early_process(struct kb_tls_socket *socket)
{
    int rc = 0;

    while (socket->early.len > 0 && rc == 0) {
        struct kb_str piece = kb_buf_first(&socket->early);

        socket->bio.input = piece;
        rc = input_process(socket);
        socket->bio.input = KB_STR_NULL;
        kb_buf_consume(&socket->early, KB_MIN(piece.len, socket->early.len));
    }
    return rc;
}

static int tls_do_read(struct kb_conn *conn)
{
    struct kb_tls_socket *socket = socket_of(conn);
    struct kb_tls_worker *tls = kb_tls_worker_get(conn->worker);
    int rc = 0;

    if (socket->ssl == NULL || socket->failed) {
        return KB_EPROTOCOL;
    }
    if (KB_UNLIKELY(socket->early.len > 0)) {
        rc = early_process(socket);
    }
    for (unsigned i = 0; i < READS_PER_EVENT && rc == 0 && kb_conn_is_open(conn); i++) {
        ssize_t n = kb_sock_recv(conn->io.fd, tls->input, KB_TLS_INPUT_BYTES);

        if (n <= 0) {
            rc = n == 0 ? KB_ECLOSED : n == KB_EAGAIN ? 0 : (int)n;
            if (rc == KB_ECLOSED && conn->handshaking) {
                rc = KB_EPROTOCOL; /* half a handshake is none */
            }
            break;
        }
        socket->bio.input = kb_str_make(tls->input, (size_t)n);
        rc = input_process(socket);
        socket->bio.input = KB_STR_NULL; /* what is not understood after an end is dropped */
        if ((size_t)n < KB_TLS_INPUT_BYTES || kb_buf_above_high(&conn->in) ||
            !kb_conn_is_open(conn)) {
            break;
        }
    }
    if (socket->bio.output.len > 0 && socket->ssl != NULL && !socket->failed && rc != KB_ECLOSED) {
        /* The end of a handshake, tickets, answers of TLS 1.3 to key updates. */
        int sent = records_send(socket);

        rc = rc == 0 ? sent : rc;
    }
    return rc;
}

/* ---- writing ---- */

/* The next piece to seal: long pieces as they are, short ones together. */
static struct kb_str piece_next(struct kb_tls_socket *socket)
{
    struct kb_buf *out = &socket->conn->out;
    struct kb_str piece = kb_buf_first(out);

    if (piece.len < COALESCE_BELOW && piece.len < out->len) {
        char *scratch = kb_tls_worker_get(socket->conn->worker)->scratch;

        piece = kb_str_make(scratch, kb_buf_peek(out, scratch, KB_TLS_RECORD_BYTES));
    }
    return kb_str_first(piece, KB_TLS_RECORD_BYTES);
}

static int plain_seal(struct kb_tls_socket *socket)
{
    struct kb_conn *conn = socket->conn;

    while (conn->out.len > 0 && socket->bio.output.len < SEALED_MAX) {
        struct kb_str piece = piece_next(socket);
        size_t n = 0;

        errors_none();
        if (SSL_write_ex(socket->ssl, piece.p, piece.len, &n) != 1) {
            return fail(socket);
        }
        kb_buf_consume(&conn->out, n);
        conn->bytes_sent += n;
    }
    return 0;
}

static void close_notify(struct kb_tls_socket *socket)
{
    if (socket->ssl != NULL && !socket->shutdown_sent && !socket->failed &&
        !socket->conn->handshaking) {
        socket->shutdown_sent = true;
        errors_none();
        (void)SSL_shutdown(socket->ssl);
        errors_none();
    }
}

static int tls_do_write(struct kb_conn *conn, bool end_stream)
{
    struct kb_tls_socket *socket = socket_of(conn);

    if (socket->ssl == NULL || socket->failed) {
        return KB_EPROTOCOL;
    }
    KB_TRY(records_send(socket));
    while (!conn->handshaking && conn->out.len > 0 && socket->bio.output.len == 0) {
        KB_TRY(plain_seal(socket));
        KB_TRY(records_send(socket));
    }
    if (end_stream && !conn->end_sent && !conn->handshaking && conn->out.len == 0) {
        close_notify(socket);
        KB_TRY(records_send(socket));
        if (socket->bio.output.len == 0) {
            conn->end_sent = true;
            kb_sock_shutdown_write(conn->io.fd);
        }
    }
    return 0;
}

/* ---- lifecycle ---- */

static void tls_on_connected(struct kb_conn *conn)
{
    struct kb_tls_socket *socket = socket_of(conn);

    if (handshake(socket) != 0) {
        /* The next write fails, and tells the owner: never from within this call. */
        socket->failed = true;
        conn->transport_write = KB_TRANSPORT_WRITE_WANTED;
        kb_conn_transport_written(conn);
    }
}

static void ssl_free(struct kb_tls_socket *socket)
{
    if (socket->ssl != NULL) {
        kb_ssl_info_closing(socket->info);
        SSL_free(socket->ssl);
        socket->ssl = NULL;
    }
    kb_buf_dispose(&socket->bio.output);
    kb_buf_dispose(&socket->early);
}

static void tls_close(struct kb_conn *conn)
{
    struct kb_tls_socket *socket = socket_of(conn);

    close_notify(socket);
    if (socket->ssl != NULL && conn->io.fd >= 0 && !conn->reset_detected) {
        /* Where the peer has not ended, unread bytes may make the close a reset, which would take
         * what has not left by then. */
        (void)records_send_with(socket, conn->closed_by_peer);
    }
    conn->transport_write = KB_TRANSPORT_WRITE_DATA;
    ssl_free(socket);
}

static void tls_dispose(struct kb_conn *conn)
{
    struct kb_tls_socket *socket = socket_of(conn);

    ssl_free(socket);
    kb_ssl_connection_info_unref(socket->info);
    if (socket->context != NULL) {
        kb_shared_unref(&socket->context->shared, conn->worker);
    }
    free(socket->failure);
    free(socket->verify_details);
    free(socket->verify_sans);
    KB_OBJ_CLEAR(socket);
    free(socket);
    conn->transport_state = NULL;
}

/* Copies the names: they belong to the caller. */
static void options_take(struct kb_tls_socket *socket,
                         const struct kb_transport_socket_options *options)
{
    size_t bytes = options->verify_san_count * sizeof(struct kb_str);
    char *at;

    if (options->verify_san_count == 0) {
        return;
    }
    for (size_t i = 0; i < options->verify_san_count; i++) {
        bytes += options->verify_sans[i].len;
    }
    socket->verify_sans = kb_malloc(bytes);
    socket->verify_san_count = options->verify_san_count;
    at = (char *)(socket->verify_sans + options->verify_san_count);
    for (size_t i = 0; i < options->verify_san_count; i++) {
        memcpy(at, options->verify_sans[i].p, options->verify_sans[i].len);
        socket->verify_sans[i] = kb_str_make(at, options->verify_sans[i].len);
        at += options->verify_sans[i].len;
    }
}

static bool alpn_override(SSL *ssl, const struct kb_transport_socket_options *options)
{
    unsigned char wire[512];
    size_t len = 0;

    for (size_t i = 0; i < options->alpn_count; i++) {
        struct kb_str name = options->alpn[i];

        if (name.len == 0 || name.len > 255 || len + 1 + name.len > sizeof(wire)) {
            return false;
        }
        wire[len++] = (unsigned char)name.len;
        memcpy(wire + len, name.p, name.len);
        len += name.len;
    }
    return SSL_set_alpn_protos(ssl, wire, (unsigned)len) == 0;
}

static bool client_prepare(struct kb_tls_socket *socket,
                           const struct kb_transport_socket_options *options)
{
    struct kb_str name = socket->context->settings->server_name;
    char text[256];

    if (options != NULL && options->server_name.len > 0) {
        name = options->server_name;
    }
    if (name.len >= sizeof(text)) {
        return false;
    }
    if (name.len > 0) {
        memcpy(text, name.p, name.len);
        text[name.len] = '\0';
        if (SSL_set_tlsext_host_name(socket->ssl, text) != 1) {
            return false;
        }
    }
    if (options != NULL && options->alpn_count > 0 && !alpn_override(socket->ssl, options)) {
        return false;
    }
    if (socket->verify_san_count == 0) {
        kb_tls_session_offer(socket->local, socket->ssl, name);
    }
    SSL_set_connect_state(socket->ssl);
    return true;
}

static bool ssl_create(struct kb_tls_socket *socket,
                       const struct kb_transport_socket_options *options)
{
    BIO *bio = BIO_new_ex(socket->local->lib->ctx, socket->local->lib->bio_method);

    socket->ssl = SSL_new(socket->local->ctx);
    if (bio == NULL || socket->ssl == NULL) {
        BIO_free(bio);
        return false;
    }
    BIO_set_data(bio, &socket->bio);
    SSL_set_bio(socket->ssl, bio, bio);
    SSL_set_app_data(socket->ssl, socket);
    if (socket->context->settings->downstream) {
        SSL_set_accept_state(socket->ssl);
        return true;
    }
    return client_prepare(socket, options);
}

void kb_tls_socket_create(struct kb_conn *conn, struct kb_tls_context *context,
                          const struct kb_transport_socket_options *options)
{
    struct kb_tls_socket *socket = kb_calloc(1, sizeof(*socket));

    KB_OBJ_SET(socket, kb_tls_socket);
    socket->conn = conn;
    kb_buf_init(&socket->bio.output, &conn->worker->slices, 0);
    kb_buf_init(&socket->early, &conn->worker->slices, 0);
    kb_buf_move(&socket->early, &conn->in);
    conn->transport = &tls_ops;
    conn->transport_state = socket;
    conn->handshaking = true;
    conn->transport_write = KB_TRANSPORT_WRITE_HELD;
    conn->info.tls = true;
    if (options != NULL) {
        options_take(socket, options);
    }
    if (context != NULL) {
        socket->local = kb_tls_context_local_get(context, conn->worker);
    }
    if (socket->local == NULL) {
        conn->info.transport_failure_reason = KB_STR("TLS error: Secret is not supplied by SDS");
        return;
    }
    kb_shared_ref(&context->shared, conn->worker);
    socket->context = context;
    if (!ssl_create(socket, options)) {
        ERR_clear_error();
        ssl_free(socket);
        return;
    }
    socket->info = kb_ssl_connection_info_create(socket->ssl, kb_tls_worker_get(conn->worker));
    conn->info.ssl = socket->info;
}

static const struct kb_transport_socket_ops tls_ops = {
    .name = "envoy.transport_sockets.tls",
    .do_read = tls_do_read,
    .do_write = tls_do_write,
    .on_connected = tls_on_connected,
    .close = tls_close,
    .dispose = tls_dispose,
};
