/* SPDX-License-Identifier: Apache-2.0 */
/* Redirects of an upstream that are followed here, by internal_redirect_policy (Envoy's
 * Filter::setupRedirect). */
#pragma once

#include "proxy/router/router.h"

/* The head of an answer came, on a route with an internal redirect policy. True when the redirect
 * is followed: the stream starts over and `router` is gone. False: the answer is passed on as any
 * other. */
bool kb_internal_redirect(struct kb_router *router, struct kb_header_map *response);
