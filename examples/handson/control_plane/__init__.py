# SPDX-License-Identifier: Apache-2.0
"""A control plane for the pods of one machine; see its README."""
