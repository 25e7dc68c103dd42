# SPDX-License-Identifier: Apache-2.0
"""The hands-on on one machine."""
