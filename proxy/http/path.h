/* SPDX-License-Identifier: Apache-2.0 */
/* Request target and host before routing: path normalisation (RFC 3986 section 6.2), slashes, ports
 * in the host; as Envoy's path_utility and the connection manager's options. */
#pragma once

#include "proxy/http/hcm.h"

enum kb_path_result { KB_PATH_OK, KB_PATH_REJECT, KB_PATH_REDIRECT };

/* Applies the options to headers->path; REDIRECT sets *location (in headers->arena). */
enum kb_path_result kb_path_normalise(const struct kb_hcm_config *config,
                                      struct kb_header_map *headers, struct kb_str *location);

/* Strips port and trailing dot from headers->authority as configured. */
void kb_host_normalise(const struct kb_hcm_config *config, struct kb_header_map *headers,
                       uint16_t listener_port);

/* RFC 3986 normal form of a path without query, in `out` (room for three times path.len);
 * KB_EINVALID when it has none. */
int kb_path_canonical(struct kb_str path, char *out, size_t *out_len) KB_MUST_USE;
