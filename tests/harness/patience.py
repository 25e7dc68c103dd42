# SPDX-License-Identifier: Apache-2.0
"""How long a test waits for a state at most. The state comes sooner, so that being generous costs
nothing; what is short fails on a slow or busy machine."""

DEADLINE_S = 60.0
