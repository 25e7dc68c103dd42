/* SPDX-License-Identifier: Apache-2.0 */
/* Library contexts of workers. OpenSSL's global one is never touched: it would read the machine's
 * openssl.cnf and cost every process its memory. */
#include "tls/tls_lib.h"

#include <stdlib.h>

#include "base/mem.h"
#include "tls/tls_bio.h"
#include "tls/tls_facts.h"
#include "tls/tls_provider.h"

struct kb_tls_lib *kb_tls_lib_ref(struct kb_tls_lib *lib)
{
    __atomic_fetch_add(&lib->refs, 1, __ATOMIC_RELAXED);
    return lib;
}

void kb_tls_lib_unref(struct kb_tls_lib *lib)
{
    if (lib != NULL && __atomic_fetch_sub(&lib->refs, 1, __ATOMIC_ACQ_REL) == 1) {
        BIO_meth_free(lib->bio_method);
        EVP_MD_free(lib->sha256);
        EVP_CIPHER_free(lib->ticket_cipher);
        OSSL_PROVIDER_unload(lib->own_provider);
        OSSL_PROVIDER_unload(lib->provider);
        OSSL_LIB_CTX_free(lib->ctx);
        free(lib);
    }
}

void kb_tls_sha256(const struct kb_tls_lib *lib, const struct kb_str *pieces, size_t count,
                   unsigned char out[32])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned int len = 0;
    bool good = md != NULL && EVP_DigestInit_ex2(md, lib->sha256, NULL) == 1;

    for (size_t i = 0; good && i < count; i++) {
        good = EVP_DigestUpdate(md, pieces[i].p, pieces[i].len) == 1;
    }
    KB_ASSERT(good && EVP_DigestFinal_ex(md, out, &len) == 1 && len == 32);
    EVP_MD_CTX_free(md);
}

static void worker_dispose(struct kb_worker *worker)
{
    struct kb_tls_worker *tls = worker->slots[KB_SLOT_TLS];

    kb_tls_facts_table_destroy(tls->facts);
    kb_tls_lib_unref(tls->lib);
    free(tls->input);
    free(tls->scratch);
    free(tls);
    worker->slots[KB_SLOT_TLS] = NULL;
}

static struct kb_tls_lib *lib_create(void)
{
    struct kb_tls_lib *lib = kb_calloc(1, sizeof(*lib));

    lib->refs = 1;
    lib->ctx = OSSL_LIB_CTX_new();
    KB_ASSERT(lib->ctx != NULL);
    KB_ASSERT(OSSL_PROVIDER_add_builtin(lib->ctx, "kobune", kb_tls_provider_init) == 1);
    lib->own_provider = OSSL_PROVIDER_load(lib->ctx, "kobune");
    lib->provider = OSSL_PROVIDER_load(lib->ctx, "default");
    KB_ASSERT(lib->own_provider != NULL && lib->provider != NULL);
    /* Where both have an algorithm, ours. */
    KB_ASSERT(EVP_set_default_properties(lib->ctx, "?provider=kobune") == 1);
    lib->bio_method = kb_tls_bio_method_create();
    lib->sha256 = EVP_MD_fetch(lib->ctx, "SHA256", NULL);
    lib->ticket_cipher = EVP_CIPHER_fetch(lib->ctx, "AES-256-CBC", NULL);
    KB_ASSERT(lib->bio_method != NULL && lib->sha256 != NULL && lib->ticket_cipher != NULL);
    return lib;
}

struct kb_tls_worker *kb_tls_worker_get(struct kb_worker *worker)
{
    struct kb_tls_worker *tls = worker->slots[KB_SLOT_TLS];

    if (KB_UNLIKELY(tls == NULL)) {
        tls = kb_calloc(1, sizeof(*tls));
        tls->lib = lib_create();
        tls->input = kb_malloc(KB_TLS_INPUT_BYTES);
        tls->scratch = kb_malloc(KB_TLS_RECORD_BYTES);
        tls->facts = kb_tls_facts_table_create();
        worker->slots[KB_SLOT_TLS] = tls;
        worker->slot_dispose[KB_SLOT_TLS] = worker_dispose;
    }
    return tls;
}
