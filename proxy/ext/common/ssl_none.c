/* SPDX-License-Identifier: Apache-2.0 */
/* What a connection without TLS says of certificates, for as long as no transport socket gives any:
 * weak, so that the implementation in tls/ takes its place. */
#include "proxy/api/ssl_connection_info.h"

__attribute__((weak)) struct kb_str kb_ssl_text(const struct kb_ssl_connection_info *ssl,
                                                enum kb_ssl_text what)
{
    (void)ssl;
    (void)what;
    return KB_STR("");
}

__attribute__((weak)) const struct kb_str *kb_ssl_list(const struct kb_ssl_connection_info *ssl,
                                                       enum kb_ssl_list what, size_t *count)
{
    (void)ssl;
    (void)what;
    *count = 0;
    return NULL;
}
