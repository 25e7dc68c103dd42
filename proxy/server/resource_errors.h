/* SPDX-License-Identifier: Apache-2.0 */
/* What was wrong with single resources of one response: the text of its NACK, in Envoy's words with
 * the path of each field at fault. */
#pragma once

#include "base/diag.h"

struct kb_resource_error {
    struct kb_resource_error *next;
    struct kb_str name;
    struct kb_str text;
};

struct kb_resource_errors {
    struct kb_arena *arena;
    struct kb_resource_error *first;
    struct kb_resource_error **last;
    unsigned count;
};

/* None yet; what is kept lives in the arena. */
void kb_resource_errors_init(struct kb_resource_errors *errors, struct kb_arena *arena);
/* Adds one; texts live as long as the arena. */
void kb_resource_errors_add(struct kb_resource_errors *errors, struct kb_str name,
                            struct kb_str text);
/* Adds what a builder reported of the resource, if anything; warnings go on to `diag`. Returns the
 * text, empty when there was no error. */
struct kb_str kb_resource_errors_take(struct kb_resource_errors *errors, struct kb_str name,
                                      const struct kb_diag *reported, struct kb_diag *diag);
/* "NAME: text", with `separator` between them. */
struct kb_str kb_resource_errors_text(const struct kb_resource_errors *errors,
                                      const char *separator);
