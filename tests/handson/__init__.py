# SPDX-License-Identifier: Apache-2.0
"""The parts of the hands-on, each on its own."""
