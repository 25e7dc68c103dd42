# SPDX-License-Identifier: Apache-2.0
"""Examples, each in a folder with a README."""
