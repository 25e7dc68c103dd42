/* SPDX-License-Identifier: Apache-2.0 */
/* The constraints that the official descriptors put on fields (validate.rules), in Envoy's words.
 */
#pragma once

#include "base/diag.h"
#include "proto/pb.h"

/* Checks the message and the messages in it (what an Any holds is checked when it is unpacked, as
 * in Envoy). Reports every violation at its path below the present one, deprecated fields in use
 * as warnings, and fields from the wire that the message does not have as errors, or warnings when
 * diag->unknown_fields_warn is set. 0 when there was no violation, otherwise KB_ECONFIG. */
int kb_pb_validate(const ProtobufCMessage *message, struct kb_diag *diag) KB_MUST_USE;
