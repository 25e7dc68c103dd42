# SPDX-License-Identifier: Apache-2.0

import os

# Before anything imports gRPC: where a child must be forked, to change its group, gRPC's handlers would run in it,
# and end it when threads of other servers are at work. Every child here is replaced by a program at once.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
