/* SPDX-License-Identifier: Apache-2.0 */
/* What HTTP requests to few clusters have (HttpProtocolOptions). */
#pragma once

struct kb_upstream_http_chain;

/* Immutable; of its cluster. */
struct kb_cluster_policies {
    struct kb_upstream_http_chain *filters; /* of attempts, in place of the router's; NULL: none */
};
