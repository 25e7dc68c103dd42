# SPDX-License-Identifier: Apache-2.0
"""Ports that stay ours.

A port is reserved by a bound socket with SO_REUSEPORT that never listens: nobody else is given
the number, connecting to it is refused, and the subject, which binds with SO_REUSEPORT too, can
listen on it.  So there is no moment in which a free port can be lost.
"""

import socket


class Port:
    """A reserved TCP port of 127.0.0.1; always five digits, so that lengths do not vary. With SO_REUSEADDR
    it is for a subject that binds without SO_REUSEPORT."""

    def __init__(self, option=socket.SO_REUSEPORT):
        while True:
            self.sock = socket.socket()
            self.sock.setsockopt(socket.SOL_SOCKET, option, 1)
            self.sock.bind(("127.0.0.1", 0))
            self.number = self.sock.getsockname()[1]
            if self.number > 9999:
                return
            self.sock.close()

    def release(self):
        self.sock.close()


class Blackhole:
    """A port where connecting never ends: its accept queue is full, so SYNs are dropped."""

    def __init__(self):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(0)
        self.number = self.sock.getsockname()[1]
        self.fillers = []
        for _ in range(8):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", self.number))
            self.fillers.append(s)

    def release(self):
        for s in self.fillers:
            s.close()
        self.sock.close()
