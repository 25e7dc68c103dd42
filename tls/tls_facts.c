/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates that connections of a worker share, and what is read from them. */
#include "tls/tls_facts.h"

#include <stdlib.h>

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/obj.h"
#include "tls/tls_san.h"

#define IDLE_MAX     32 /* without users, a worker */
#define CHAIN_MAX    32 /* certificates behind the leaf that are kept */
#define DIGEST_BYTES 32
#define LENGTH_BYTES 3 /* before each certificate, the leaf's first */

struct kb_tls_facts_table {
    struct kb_map by_digest;
    struct kb_list idle; /* the one without users for the longest time first */
    uint32_t idle_count;
};

struct san_list {
    struct kb_str *names;
    size_t count;
    bool known;
};

struct kb_tls_facts {
    KB_OBJ;
    uint32_t refs;
    uint32_t texts_known;             /* 1 << enum kb_ssl_text */
    struct kb_tls_facts_table *table; /* NULL: not shared, or the worker is gone */
    struct kb_list link;              /* of table->idle, while refs is 0 */
    struct kb_tls_lib *lib;
    struct kb_str bytes; /* digest, then certificates; on the heap */
    X509 *leaf;          /* NULL: not decoded */
    STACK_OF(X509) * chain;
    struct kb_arena arena;
    struct kb_str texts[KB_SSL_SESSION_ID];
    struct san_list lists[KB_SSL_LIST_COUNT];
};
KB_OBJ_MAGIC(kb_tls_facts, 0x544c5346);

/* ---- bytes ---- */

static struct kb_str key_of(const struct kb_tls_facts *facts)
{
    return kb_str_first(facts->bytes, DIGEST_BYTES);
}

/* Takes the next certificate off `rest`; KB_STR_NULL at the end, or when it is cut. */
static struct kb_str certificate_next(struct kb_str *rest)
{
    const unsigned char *p = (const unsigned char *)rest->p;
    struct kb_str der;
    size_t len;

    if (rest->len < LENGTH_BYTES) {
        return KB_STR_NULL;
    }
    len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
    if (len == 0 || len > rest->len - LENGTH_BYTES) {
        return KB_STR_NULL;
    }
    der = kb_str_make(rest->p + LENGTH_BYTES, len);
    *rest = kb_str_from(*rest, LENGTH_BYTES + len);
    return der;
}

/* Appends one; `*len` grows even where `out` is NULL, which only measures. */
static bool certificate_put(unsigned char *out, size_t *len, X509 *certificate)
{
    int size = i2d_X509(certificate, NULL);

    if (size <= 0 || (size_t)size + LENGTH_BYTES > KB_TLS_FACTS_BYTES_MAX - *len) {
        return false;
    }
    if (out != NULL) {
        unsigned char *at = out + *len;

        *at++ = (unsigned char)(size >> 16);
        *at++ = (unsigned char)(size >> 8);
        *at++ = (unsigned char)size;
        (void)i2d_X509(certificate, &at);
    }
    *len += LENGTH_BYTES + (size_t)size;
    return true;
}

/* A client's view of the chain begins with the leaf, a server's does not. */
static int chain_first(X509 *leaf, const STACK_OF(X509) * chain)
{
    return sk_X509_num(chain) > 0 && X509_cmp(sk_X509_value(chain, 0), leaf) == 0 ? 1 : 0;
}

static bool certificates_put(unsigned char *out, size_t *len, X509 *leaf,
                             const STACK_OF(X509) * chain)
{
    int first = chain_first(leaf, chain), count = sk_X509_num(chain);
    bool good = count - first <= CHAIN_MAX && certificate_put(out, len, leaf);

    for (int i = first; good && i < count; i++) {
        good = certificate_put(out, len, sk_X509_value(chain, i));
    }
    return good;
}

/* Digest and certificates, on the heap; KB_STR_NULL: they are too long. */
static struct kb_str bytes_make(const struct kb_tls_lib *lib, X509 *leaf,
                                const STACK_OF(X509) * chain)
{
    size_t len = DIGEST_BYTES, end = DIGEST_BYTES;
    struct kb_str piece;
    unsigned char *out;

    if (!certificates_put(NULL, &len, leaf, chain)) {
        return KB_STR_NULL;
    }
    out = kb_malloc(len);
    (void)certificates_put(out, &end, leaf, chain);
    piece = kb_str_make((const char *)out + DIGEST_BYTES, len - DIGEST_BYTES);
    kb_tls_sha256(lib, &piece, 1, out);
    return kb_str_make((const char *)out, len);
}

static X509 *certificate_decode(const struct kb_tls_facts *facts, struct kb_str der)
{
    const unsigned char *p = (const unsigned char *)der.p;
    X509 *certificate = X509_new_ex(facts->lib->ctx, NULL);

    if (certificate != NULL && d2i_X509(&certificate, &p, (long)der.len) == NULL) {
        X509_free(certificate);
        certificate = NULL;
    }
    return certificate;
}

/* NULL: what a ticket brought is no certificate. */
static X509 *leaf_of(struct kb_tls_facts *facts)
{
    struct kb_str rest = facts->bytes;

    if (facts->leaf == NULL && rest.len > DIGEST_BYTES) {
        rest = kb_str_from(rest, DIGEST_BYTES);
        facts->leaf = certificate_decode(facts, certificate_next(&rest));
        ERR_clear_error();
    }
    return facts->leaf;
}

static const STACK_OF(X509) * chain_of(struct kb_tls_facts *facts)
{
    struct kb_str rest = facts->bytes, der;

    if (facts->chain == NULL && rest.len > DIGEST_BYTES &&
        (facts->chain = sk_X509_new_null()) != NULL) {
        rest = kb_str_from(rest, DIGEST_BYTES);
        (void)certificate_next(&rest);
        while ((der = certificate_next(&rest)).len > 0) {
            X509 *certificate = certificate_decode(facts, der);

            if (certificate != NULL && sk_X509_push(facts->chain, certificate) <= 0) {
                X509_free(certificate);
            }
        }
        ERR_clear_error();
    }
    return facts->chain;
}

/* ---- lifecycle ---- */

struct kb_tls_facts_table *kb_tls_facts_table_create(void)
{
    struct kb_tls_facts_table *table = kb_calloc(1, sizeof(*table));

    kb_map_init(&table->by_digest);
    kb_list_init(&table->idle);
    return table;
}

static void facts_free(struct kb_tls_facts *facts)
{
    X509_free(facts->leaf);
    sk_X509_pop_free(facts->chain, X509_free);
    free((char *)(uintptr_t)facts->bytes.p);
    kb_arena_dispose(&facts->arena);
    kb_tls_lib_unref(facts->lib);
    KB_OBJ_CLEAR(facts);
    free(facts);
}

static void idle_drop(struct kb_tls_facts_table *table)
{
    struct kb_tls_facts *facts =
        KB_CAST(KB_CONTAINER_OF(table->idle.next, struct kb_tls_facts, link), kb_tls_facts);

    kb_list_unlink(&facts->link);
    table->idle_count--;
    (void)kb_map_remove(&table->by_digest, key_of(facts));
    facts_free(facts);
}

void kb_tls_facts_table_destroy(struct kb_tls_facts_table *table)
{
    while (table->idle_count > 0) {
        idle_drop(table);
    }
    KB_MAP_FOREACH (e, &table->by_digest) {
        KB_CAST(e->value, kb_tls_facts)->table = NULL;
    }
    kb_map_dispose(&table->by_digest);
    free(table);
}

/* Takes `bytes`, which are on the heap. */
static struct kb_tls_facts *facts_create(struct kb_tls_worker *tls, struct kb_str bytes)
{
    struct kb_tls_facts *facts = kb_calloc(1, sizeof(*facts));

    KB_OBJ_SET(facts, kb_tls_facts);
    facts->refs = 1;
    facts->lib = kb_tls_lib_ref(tls->lib);
    kb_arena_init(&facts->arena, NULL);
    if (bytes.len > 0) {
        facts->bytes = bytes;
        facts->table = tls->facts;
        (void)kb_map_put(&tls->facts->by_digest, key_of(facts), facts);
    }
    return facts;
}

static struct kb_tls_facts *facts_find(struct kb_tls_worker *tls, struct kb_str bytes)
{
    struct kb_tls_facts *facts =
        kb_map_get(&tls->facts->by_digest, kb_str_first(bytes, DIGEST_BYTES));

    return facts == NULL ? NULL : kb_tls_facts_ref(KB_CAST(facts, kb_tls_facts));
}

struct kb_tls_facts *kb_tls_facts_of(struct kb_tls_worker *tls, X509 *leaf,
                                     const STACK_OF(X509) * chain)
{
    struct kb_tls_facts *facts = NULL;
    struct kb_str bytes;

    if (leaf == NULL) {
        return NULL;
    }
    bytes = bytes_make(tls->lib, leaf, chain);
    if (bytes.len > 0 && (facts = facts_find(tls, bytes)) != NULL) {
        free((char *)(uintptr_t)bytes.p);
        return facts;
    }
    facts = facts_create(tls, bytes);
    X509_up_ref(leaf);
    facts->leaf = leaf;
    if (bytes.len == 0 && chain != NULL) {
        facts->chain = X509_chain_up_ref((STACK_OF(X509) *)(uintptr_t)chain);
    }
    return facts;
}

struct kb_tls_facts *kb_tls_facts_from_bytes(struct kb_tls_worker *tls, struct kb_str bytes)
{
    struct kb_tls_facts *facts;
    struct kb_str rest;
    char *copy;

    if (bytes.len <= DIGEST_BYTES || bytes.len > KB_TLS_FACTS_BYTES_MAX) {
        return NULL;
    }
    rest = kb_str_from(bytes, DIGEST_BYTES);
    do {
        if (certificate_next(&rest).len == 0) {
            return NULL;
        }
    } while (rest.len > 0);
    facts = facts_find(tls, bytes);
    if (facts != NULL) {
        return facts;
    }
    copy = kb_malloc(bytes.len);
    memcpy(copy, bytes.p, bytes.len);
    return facts_create(tls, kb_str_make(copy, bytes.len));
}

struct kb_str kb_tls_facts_bytes(const struct kb_tls_facts *facts)
{
    return facts->bytes;
}

struct kb_tls_facts *kb_tls_facts_ref(struct kb_tls_facts *facts)
{
    if (facts != NULL && facts->refs++ == 0) {
        kb_list_unlink(&facts->link);
        facts->table->idle_count--;
    }
    return facts;
}

void kb_tls_facts_unref(struct kb_tls_facts *facts)
{
    if (facts == NULL || --facts->refs > 0) {
        return;
    }
    if (facts->table == NULL) {
        facts_free(facts);
        return;
    }
    kb_list_push_back(&facts->table->idle, &facts->link);
    if (++facts->table->idle_count > IDLE_MAX) {
        idle_drop(facts->table);
    }
}

/* ---- texts ---- */

static struct kb_str digest_text(struct kb_tls_facts *facts, X509 *certificate,
                                 const char *algorithm)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    EVP_MD *md = EVP_MD_fetch(facts->lib->ctx, algorithm, NULL);
    unsigned int len = 0;
    struct kb_str text = KB_STR("");

    if (md != NULL && X509_digest(certificate, md, bytes, &len) == 1) {
        text = kb_str_hex(&facts->arena, bytes, len);
    }
    EVP_MD_free(md);
    return text;
}

static struct kb_str serial_text(struct kb_tls_facts *facts, X509 *certificate)
{
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
    char *text = number == NULL ? NULL : BN_bn2hex(number);
    struct kb_str out = KB_STR("");

    if (text != NULL) {
        char *copy;

        out = kb_str_dup(&facts->arena, kb_str_from_cstr(text));
        copy = (char *)(uintptr_t)out.p;
        for (size_t i = 0; i < out.len; i++) {
            copy[i] = kb_ascii_lower(copy[i]);
        }
    }
    OPENSSL_free(text);
    BN_free(number);
    return out;
}

/* The leaf's digest or serial number (NULL), then those of the others that the peer sent. */
static struct kb_str chain_text(struct kb_tls_facts *facts, const char *algorithm)
{
    const STACK_OF(X509) *rest = chain_of(facts);
    struct kb_str text = algorithm != NULL ? digest_text(facts, facts->leaf, algorithm)
                                           : serial_text(facts, facts->leaf);

    for (int i = chain_first(facts->leaf, rest); i < sk_X509_num(rest); i++) {
        X509 *next = sk_X509_value(rest, i);
        struct kb_str one =
            algorithm != NULL ? digest_text(facts, next, algorithm) : serial_text(facts, next);

        text = kb_str_printf(&facts->arena, "%.*s,%.*s", KB_STR_ARG(text), KB_STR_ARG(one));
    }
    return text;
}

/* Of the one of the chain that issued the leaf. */
static struct kb_str issuer_text(struct kb_tls_facts *facts, enum kb_ssl_text what)
{
    const STACK_OF(X509) *rest = chain_of(facts);

    for (int i = 0; i < sk_X509_num(rest); i++) {
        X509 *issuer = sk_X509_value(rest, i);

        if (X509_check_issued(issuer, facts->leaf) == X509_V_OK) {
            return what == KB_SSL_PEER_ISSUER_SHA256 ? digest_text(facts, issuer, "SHA256")
                                                     : serial_text(facts, issuer);
        }
    }
    return KB_STR("");
}

/* RFC 2253, as Envoy shows names. */
static struct kb_str name_text(struct kb_tls_facts *facts, const X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    struct kb_str out = KB_STR("");
    char *bytes = NULL;

    if (bio != NULL && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
        long len = BIO_get_mem_data(bio, &bytes);

        out = kb_str_dup(&facts->arena, kb_str_make(bytes, len > 0 ? (size_t)len : 0));
    }
    BIO_free(bio);
    return out;
}

/* PEM with the characters that a header value may not have in URL encoding. */
static struct kb_str pem_encoded(struct kb_tls_facts *facts, BIO *bio)
{
    char *bytes = NULL;
    long len = BIO_get_mem_data(bio, &bytes);
    size_t n = 0;
    char *out = kb_arena_alloc(&facts->arena, 3 * (size_t)KB_MAX(len, 0) + 1, 1);

    for (long i = 0; i < len; i++) {
        const char *code = bytes[i] == '\n'  ? "%0A"
                           : bytes[i] == ' ' ? "%20"
                           : bytes[i] == '+' ? "%2B"
                           : bytes[i] == '/' ? "%2F"
                           : bytes[i] == '=' ? "%3D"
                                             : NULL;

        if (code != NULL) {
            memcpy(out + n, code, 3);
            n += 3;
        } else {
            out[n++] = bytes[i];
        }
    }
    return kb_str_make(out, n);
}

static struct kb_str pem_text(struct kb_tls_facts *facts, bool chain)
{
    BIO *bio = BIO_new(BIO_s_mem());
    const STACK_OF(X509) *rest = chain ? chain_of(facts) : NULL;
    bool good = bio != NULL && PEM_write_bio_X509(bio, facts->leaf) == 1;
    struct kb_str out = KB_STR("");

    for (int i = chain_first(facts->leaf, rest); good && i < sk_X509_num(rest); i++) {
        good = PEM_write_bio_X509(bio, sk_X509_value(rest, i)) == 1;
    }
    if (good) {
        out = pem_encoded(facts, bio);
    }
    BIO_free(bio);
    return out;
}

static struct kb_str text_make(struct kb_tls_facts *facts, enum kb_ssl_text what)
{
    X509 *leaf = leaf_of(facts);

    if (leaf == NULL) {
        return KB_STR("");
    }
    switch (what) {
    case KB_SSL_PEER_SHA256:
        return digest_text(facts, leaf, "SHA256");
    case KB_SSL_PEER_SHA1:
        return digest_text(facts, leaf, "SHA1");
    case KB_SSL_PEER_SERIAL:
        return serial_text(facts, leaf);
    case KB_SSL_PEER_ISSUER:
        return name_text(facts, X509_get_issuer_name(leaf));
    case KB_SSL_PEER_SUBJECT:
        return name_text(facts, X509_get_subject_name(leaf));
    case KB_SSL_PEER_PEM_ENCODED:
        return pem_text(facts, false);
    case KB_SSL_PEER_CHAIN_ENCODED:
        return pem_text(facts, true);
    case KB_SSL_PEER_CHAIN_SHA256:
        return chain_text(facts, "SHA256");
    case KB_SSL_PEER_CHAIN_SHA1:
        return chain_text(facts, "SHA1");
    case KB_SSL_PEER_CHAIN_SERIALS:
        return chain_text(facts, NULL);
    case KB_SSL_PEER_ISSUER_SHA256:
    case KB_SSL_PEER_ISSUER_SERIAL:
        return issuer_text(facts, what);
    case KB_SSL_LOCAL_SUBJECT:
    case KB_SSL_SESSION_ID:
    case KB_SSL_VERSION:
    case KB_SSL_CIPHER:
    case KB_SSL_SERVER_NAME:
    case KB_SSL_ALPN:
    case KB_SSL_GROUP:
    case KB_SSL_TEXT_COUNT:
        break;
    }
    return KB_STR("");
}

struct kb_str kb_tls_facts_text(struct kb_tls_facts *facts, enum kb_ssl_text what)
{
    if (facts == NULL || (unsigned)what >= KB_ARRAY_LEN(facts->texts)) {
        return KB_STR("");
    }
    if ((facts->texts_known & (UINT32_C(1) << what)) == 0) {
        ERR_clear_error();
        facts->texts[what] = text_make(facts, what);
        facts->texts_known |= UINT32_C(1) << what;
        ERR_clear_error();
    }
    return facts->texts[what];
}

/* ---- names ---- */

static const int list_kinds[KB_SSL_LIST_COUNT] = {
    [KB_SSL_PEER_URI_SANS] = GEN_URI,
    [KB_SSL_PEER_DNS_SANS] = GEN_DNS,
    [KB_SSL_PEER_IP_SANS] = GEN_IPADD,
    [KB_SSL_PEER_EMAIL_SANS] = GEN_EMAIL,
};

static void list_make(struct kb_tls_facts *facts, enum kb_ssl_list what)
{
    struct san_list *list = &facts->lists[what];
    X509 *leaf = leaf_of(facts);
    GENERAL_NAMES *names =
        leaf == NULL ? NULL : X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    int count = KB_MIN(sk_GENERAL_NAME_num(names), KB_TLS_SANS_MAX);

    for (int i = 0; i < count; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        char address[KB_TLS_SAN_TEXT_MAX];
        struct kb_str text;

        if (name->type != list_kinds[what]) {
            continue;
        }
        if (list->names == NULL) {
            list->names =
                kb_arena_calloc(&facts->arena, (size_t)(count - i) * sizeof(struct kb_str));
        }
        text = kb_tls_san_text(name, address);
        list->names[list->count++] = kb_str_dup(&facts->arena, text);
    }
    sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
}

const struct kb_str *kb_tls_facts_list(struct kb_tls_facts *facts, enum kb_ssl_list what,
                                       size_t *count)
{
    *count = 0;
    if (facts == NULL || (unsigned)what >= KB_SSL_LIST_COUNT || list_kinds[what] == 0) {
        return NULL;
    }
    if (!facts->lists[what].known) {
        list_make(facts, what);
        facts->lists[what].known = true;
        ERR_clear_error();
    }
    *count = facts->lists[what].count;
    return facts->lists[what].names;
}

/* ---- validity ---- */

static int64_t seconds_of(const ASN1_TIME *time)
{
    struct tm parts;

    return ASN1_TIME_to_tm(time, &parts) == 1 ? (int64_t)timegm(&parts) : 0;
}

void kb_tls_facts_validity(struct kb_tls_facts *facts, int64_t *not_before, int64_t *not_after)
{
    X509 *leaf = leaf_of(facts);

    *not_before = leaf == NULL ? 0 : seconds_of(X509_get0_notBefore(leaf));
    *not_after = leaf == NULL ? 0 : seconds_of(X509_get0_notAfter(leaf));
}
