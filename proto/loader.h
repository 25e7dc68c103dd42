/* SPDX-License-Identifier: Apache-2.0 */
/* The bootstrap: from --config-path and --config-yaml to one checked message. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"

#include "base/diag.h"
#include "proto/pb_json.h"

struct kb_config_source {
    struct kb_str
        path; /* --config-path; empty when not given. .json .yaml .yml .pb; anything else is JSON */
    struct kb_str yaml;         /* --config-yaml, merged over the file; empty when not given */
    enum kb_pb_unknown unknown; /* KB_PB_UNKNOWN_WARN with --allow-unknown-static-fields */
    struct kb_config_index
        *index; /* private: the sources read again to find places; NULL at first */
};

/* Frees what finding places has kept. The struct itself is the caller's. */
void kb_config_source_dispose(struct kb_config_source *source);

/* Loads, merges and checks. The message lives in the arena. NULL when anything is wrong; diag then
 * has all errors. Also sets diag's locate function, so that later checks report file, line and
 * column of their path; `source` must live as long as that is used (kb_diag_set_locate(diag, NULL,
 * NULL), then kb_config_source_dispose, end it). Afterwards much heap may be free but still
 * resident: malloc_trim(0) once everything is built. */
Envoy__Config__Bootstrap__V3__Bootstrap *
kb_config_load(struct kb_config_source *source, struct kb_arena *arena, struct kb_diag *diag);

/* kb_diag_locate_fn over a kb_config_source: reads the source again to find a path. */
bool kb_config_locate(void *source, struct kb_str path, struct kb_str *file, uint32_t *line,
                      uint32_t *column);
