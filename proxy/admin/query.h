/* SPDX-License-Identifier: Apache-2.0 */
/* Query parameters: decoded names and values. */
#pragma once

#include "base/arena.h"
#include "base/str.h"

#define KB_ADMIN_PARAMETERS_MAX 256 /* more are dropped */

struct kb_admin_parameter {
    struct kb_str key;
    struct kb_str value;
};

struct kb_admin_query {
    struct kb_admin_parameter *items; /* in the arena; the first of each key */
    size_t count;                     /* different keys */
};

/* "a=1&b=2" with percent-encoding; a name without '=' has an empty value. Of a repeated name the
 * first counts. */
void kb_admin_query_parse(struct kb_admin_query *query, struct kb_str text, struct kb_arena *arena);

/* Whether the name is there, with a value or without. */
bool kb_admin_query_has(const struct kb_admin_query *query, struct kb_str key);
/* The value, or an empty slice with p NULL. */
struct kb_str kb_admin_query_get(const struct kb_admin_query *query, struct kb_str key);
