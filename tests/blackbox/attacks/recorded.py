# SPDX-License-Identifier: Apache-2.0
"""A subject in front of a recorder, and single requests to it over HTTP/1 and HTTP/2."""

import contextlib

from tests.blackbox.conftest import Rig
from tests.harness.client import Connection
from tests.harness.h2_client import H2
from tests.harness.recorder import Recorder


def cluster(port, **more):
    return {"load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
        "socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]}, **more}


@contextlib.contextmanager
def recorded(binary, listeners, **options):
    """A rig whose cluster is a recorder (`one.recorder`); it is ended cleanly when all went well."""
    recorder = Recorder()
    one = None
    try:
        one = Rig(binary, {"clusters": {"up": cluster(recorder.port)}, "listeners": listeners}, **options)
        one.recorder = recorder
        yield one
        one.proxy.stop()
    finally:
        if one is not None:
            one.abandon()
        recorder.stop()


def ask(one, protocol, path, headers=(), name="main", method="GET", host="h.test"):
    """The final status of one request on a connection of its own; None: there was no answer."""
    conn = Connection(one.port(name))
    try:
        if protocol == "h1":
            lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *(f"{k}: {v}" for k, v in headers), "", ""]
            conn.send("\r\n".join(lines).encode("latin-1"), [method])
            return int(conn.received[9:12]) if conn.wait_responses(1) else None
        client = H2(conn)
        fields = client.request_fields(path, method, host=host, headers=headers)
        pieces = 1 + sum(len(k) + len(v) for k, v in fields) // 16000
        client.send(client.headers(1, [(k.encode("latin-1"), v.encode("latin-1")) for k, v in fields], pieces=pieces))
        client.wait_done(1)
        status = client.streams[1].status if 1 in client.streams else None
        return int(status) if status else None
    finally:
        conn.close()
