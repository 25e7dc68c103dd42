# SPDX-License-Identifier: Apache-2.0
"""What black box and differential tests share: a subject, scripted upstreams, a raw client."""

from .client import Connection
from .config import Layout, bootstrap
from .proxy import Proxy, ProxyDied, envoy_path, subject_path
from .upstream import Upstream

__all__ = ["Connection", "Layout", "Proxy", "ProxyDied", "Upstream", "bootstrap", "envoy_path",
           "subject_path"]
