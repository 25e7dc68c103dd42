# SPDX-License-Identifier: Apache-2.0
"""Pods for tests: network namespaces in which what the application sends and gets goes through a
sidecar. The namespaces themselves are those of the hands-on (examples/handson/namespaces.py)."""

import functools
import shutil

from examples.handson import namespaces
from examples.handson.namespaces import Namespace, run  # noqa: F401 (for the tests)

SIDECAR_GROUP = 1337  # what it sends is not captured; a group, since the binary may be anyone's
OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
LEAVES_FROM = "127.0.0.6"

# Each line is one rule of the table nat. Connections to a pod come by PREROUTING, those of its own
# by OUTPUT; the last line of each chain captures what no line before let pass.
RULES = f"""
-N INBOUND
-N OUTBOUND
-A PREROUTING -p tcp -j INBOUND
-A OUTPUT -p tcp -j OUTBOUND
-A INBOUND -p tcp -j REDIRECT --to-ports {INBOUND_PORT}
-A OUTBOUND -o lo -s {LEAVES_FROM}/32 -j RETURN
-A OUTBOUND -o lo ! -d 127.0.0.1/32 -m owner --gid-owner {SIDECAR_GROUP} -p tcp -j REDIRECT --to-ports {INBOUND_PORT}
-A OUTBOUND -m owner --gid-owner {SIDECAR_GROUP} -j RETURN
-A OUTBOUND -o lo -j RETURN
-A OUTBOUND -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}
"""


class Network(namespaces.Network):
    """Pods on one bridge, each with its address."""

    def pod(self, address, captured=True):
        """A namespace with this address; `captured`: its traffic goes to the sidecar's ports."""
        pod = self.member(address)
        for rule in RULES.strip().splitlines() if captured else ():
            pod.run("iptables", "-t", "nat", *rule.split())
        return pod


@functools.cache
def missing():
    """What this machine lacks for pods, as text; None when there is all of it."""
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    try:
        network = Network()
    except OSError as error:
        return f"no network namespaces: {error} (they need root)"
    except AssertionError as error:
        return str(error)
    try:
        network.pod("10.11.0.1")
    except AssertionError as error:
        return str(error)
    finally:
        network.close()
    return None
