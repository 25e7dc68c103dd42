/* SPDX-License-Identifier: Apache-2.0 */
/* JSON web tokens and key sets: the first line is the token, the rest a key set, which is asked
 * whether it signed it. Promises: a verdict for everything, what a good parse gives is of the
 * token's text, and no token of a fuzzer is signed. */
#include "tests/fuzz/fuzz.h"

#include "proxy/ext/common/jwt.h"

static const char keys[] =
    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"alg\":\"ES256\","
    "\"x\":\"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY\","
    "\"y\":\"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU\"},"
    "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"},"
    "{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T\"}]}";

static void verified(struct kb_str set, const struct kb_jwt *jwt)
{
    enum kb_jwt_status status = KB_JWT_OK;
    struct kb_jwks *jwks = kb_jwks_create(set, &status);

    KB_ASSERT((jwks != NULL) == (status == KB_JWT_OK));
    KB_ASSERT(kb_jwt_status_text(status) != NULL);
    if (jwks != NULL && jwt != NULL) {
        status = kb_jwks_verify(jwks, jwt);
        KB_ASSERT(set.p != keys || status != KB_JWT_OK);
    }
    kb_jwks_destroy(jwks);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct kb_str input = kb_str_make((const char *)bytes, size);
    ptrdiff_t line = kb_str_find_char(input, '\n');
    struct kb_str token = line >= 0 ? kb_str_first(input, (size_t)line) : input;
    struct kb_str set = line >= 0 ? kb_str_from(input, (size_t)line + 1) : KB_STR("");
    struct kb_arena arena;
    struct kb_jwt jwt;
    enum kb_jwt_status status;

    kb_arena_init(&arena, NULL);
    status = kb_jwt_parse(token, &arena, &jwt);
    KB_ASSERT(kb_jwt_status_text(status) != NULL);
    if (status == KB_JWT_OK) {
        KB_ASSERT(jwt.signed_text.len < token.len && jwt.signed_text.p == token.p);
        KB_ASSERT(jwt.alg < KB_JWT_ALG_COUNT && jwt.payload != NULL && jwt.header != NULL);
        (void)kb_jwt_check_time(&jwt, 1700000000, 60);
        verified(kb_str_from_cstr(keys), &jwt);
    }
    verified(set, status == KB_JWT_OK ? &jwt : NULL);
    kb_arena_dispose(&arena);
    return 0;
}
