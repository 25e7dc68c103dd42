/* SPDX-License-Identifier: Apache-2.0 */
/* A hash of what a message says, to tell whether an update changes anything (Envoy
 * MessageUtil::hash). */
#pragma once

#include "proto/pb.h"

/* Equal messages have equal hashes, in whatever order the entries of maps came; what is in an Any
 * of a known type is looked into. The same in every process. */
uint64_t kb_pb_hash(const ProtobufCMessage *message);
