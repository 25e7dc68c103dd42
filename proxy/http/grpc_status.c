/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC statuses that stand for HTTP ones; alone in its file, so that log formatters link without
 * the connection manager. */
#include "proxy/http/local_reply.h"

unsigned kb_grpc_status_from_http(unsigned status)
{
    switch (status) {
    case 400:
        return 13;
    case 401:
        return 16;
    case 403:
        return 7;
    case 404:
        return 12;
    case 429:
    case 502:
    case 503:
    case 504:
        return 14;
    default:
        return 2;
    }
}
