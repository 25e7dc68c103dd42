/* SPDX-License-Identifier: Apache-2.0 */
/* The provider: what it offers, by operation. */
#include "tls/tls_provider.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>

#define PROPERTY "provider=kobune"

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_store)
{
    static const OSSL_ALGORITHM kdfs[] = {
        {OSSL_KDF_NAME_TLS1_3_KDF, PROPERTY, kb_tls_kdf_functions, NULL},
        {NULL, NULL, NULL, NULL},
    };
    static const OSSL_ALGORITHM macs[] = {
        {OSSL_MAC_NAME_HMAC, PROPERTY, kb_tls_mac_functions, NULL},
        {NULL, NULL, NULL, NULL},
    };

    (void)provctx;
    *no_store = 0;
    switch (operation) {
    case OSSL_OP_KDF:
        return kdfs;
    case OSSL_OP_MAC:
        return macs;
    default:
        return NULL;
    }
}

int kb_tls_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                         const OSSL_DISPATCH **out, void **provctx)
{
    static const OSSL_DISPATCH functions[] = {
        {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query},
        {0, NULL},
    };

    for (; in->function_id != 0; in++) {
        if (in->function_id == OSSL_FUNC_CORE_GET_LIBCTX) {
            /* provider-base(7): the library context, for providers that are built in */
            *provctx = OSSL_FUNC_core_get_libctx(in)(handle);
            *out = functions;
            return *provctx != NULL;
        }
    }
    return 0;
}
