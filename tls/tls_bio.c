/* SPDX-License-Identifier: Apache-2.0 */
/* The BIO between OpenSSL and the connection's bytes. Writing always succeeds: the socket looks at
 * the queue's length before it gives OpenSSL more. */
#include "tls/tls_bio.h"

static int bio_read(BIO *bio, char *out, int len)
{
    struct kb_tls_bio *state = BIO_get_data(bio);
    size_t n;

    BIO_clear_retry_flags(bio);
    if (state == NULL || len <= 0) {
        return 0;
    }
    n = KB_MIN((size_t)len, state->input.len);
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(out, state->input.p, n);
    state->input = kb_str_from(state->input, n);
    return (int)n;
}

static int bio_write(BIO *bio, const char *bytes, int len)
{
    struct kb_tls_bio *state = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (state == NULL || len <= 0) {
        return 0;
    }
    kb_buf_append(&state->output, bytes, (size_t)len);
    return len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static int bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

BIO_METHOD *kb_tls_bio_method_create(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "kobune");

    if (method != NULL) {
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_ctrl(method, bio_ctrl);
        BIO_meth_set_create(method, bio_create);
    }
    return method;
}
