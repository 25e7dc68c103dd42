/* SPDX-License-Identifier: Apache-2.0 */
/* The bootstrap of this process: loading, what the message alone cannot say is wrong, and telling
 * the user. */
#pragma once

#include "proto/loader.h"
#include "proxy/server/options.h"

struct kb_bootstrap {
    struct kb_arena arena; /* of the message; lives until exit, because /config_dump shows it */
    struct kb_config_source source;
    Envoy__Config__Bootstrap__V3__Bootstrap *message; /* NULL when it could not be read */
    Envoy__Config__Core__V3__Node
        *node; /* the message's, with --service-* and who we are; never NULL */
};

/* Reads and checks; KB_ECONFIG after at least one error in diag, whose paths then are found in the
 * files. */
int kb_bootstrap_load(struct kb_bootstrap *bootstrap, const struct kb_options *options,
                      struct kb_diag *diag) KB_MUST_USE;
void kb_bootstrap_dispose(struct kb_bootstrap *bootstrap);

/* Reports settings with which Kobune would not do what was asked: a control plane, renamed headers.
 * What is merely without effect goes to /kobune/unsupported instead. */
void kb_bootstrap_check(const struct kb_bootstrap *bootstrap, const struct kb_options *options,
                        struct kb_diag *diag);

/* Sets the format of application_log_config. Reports at the present path of diag when it cannot be.
 */
void kb_bootstrap_apply_log_config(const struct kb_bootstrap *bootstrap,
                                   const struct kb_options *options, struct kb_diag *diag);

/* Logs the warnings of diag: unknown and deprecated fields. Returns how many unknown fields there
 * were. */
uint64_t kb_bootstrap_log_warnings(const struct kb_options *options, struct kb_diag *diag);

/* Says on `err`, and in the log, everything that is wrong; nothing was started. */
void kb_bootstrap_report_errors(const struct kb_options *options, struct kb_diag *diag, FILE *err);
