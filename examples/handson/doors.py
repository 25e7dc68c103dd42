# SPDX-License-Identifier: Apache-2.0
"""Ways into a demo that is kept running: addresses of this machine that lead into pods, and
commands that run in a pod. Pods have networks of their own, so nothing of them is reachable else."""

import array
import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading


def listen(port):
    """A listening socket of this machine's loopback, on this port or, where it is taken, another."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.setblocking(False)
    return listener


class Relays:
    """Passes connections on from sockets of the machine, made before the demo moved into its own
    namespaces, to addresses in pods. `host` stands in for the Host of every request: it does what a
    name server would do for somebody whose browser calls the gateway by its name."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def add(self, listener, namespace, address, port, host=None):
        asyncio.run_coroutine_threadsafe(self._serve(listener, namespace, address, port, host), self.loop).result()

    async def _serve(self, listener, namespace, address, port, host):
        async def one(reader, writer):
            with namespace:
                into = socket.socket()
            into.setblocking(False)
            try:
                await self.loop.sock_connect(into, (address, port))
                there = await asyncio.open_connection(sock=into)
            except OSError:
                writer.close()
                return
            await asyncio.gather(self._pass(reader, there[1], host), self._pass(there[0], writer, None))
        await asyncio.start_server(one, sock=listener)

    @staticmethod
    async def _pass(reader, writer, host):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if host:
                    data = re.sub(rb"(?i)(\r\nhost: )127\.0\.0\.1:\d+(?=\r\n)", rb"\g<1>" + host.encode(), data)
                writer.write(data)
                await writer.drain()
        writer.close()


class Entrance:
    """Runs commands in pods for `enter`, over a socket in the run directory."""

    def __init__(self, folder, place):
        self.place = place
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(pathlib.Path(folder) / "enter"))
        self.listener.listen(8)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection):
        with connection:
            data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(3 * 4))
            descriptors = array.array("i")
            for _, _, body in ancillary:
                descriptors.frombytes(body[:len(body) // 4 * 4])
            try:
                asked = json.loads(data)
                status = self._run(connection, asked, list(descriptors))
            except (ValueError, KeyError, OSError) as error:
                with contextlib.suppress(OSError):
                    os.write(descriptors[2], f"demo: {error}\n".encode())
                status = 127
            finally:
                for one in descriptors:
                    os.close(one)
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(status).encode())

    def _run(self, connection, asked, descriptors):
        pod = self.place.pods.get(asked["pod"])
        if pod is None:
            raise ValueError(f"there is no pod '{asked['pod']}'; there are {', '.join(self.place.pods)}")
        with pod.net:
            process = subprocess.Popen(asked["command"], stdin=descriptors[0], stdout=descriptors[1],
                                       stderr=descriptors[2], start_new_session=True)
        threading.Thread(target=self._until_gone, args=(connection, process), daemon=True).start()
        return process.wait()

    @staticmethod
    def _until_gone(connection, process):
        """Ctrl-C over there closes the connection: what runs here for it ends."""
        with contextlib.suppress(OSError):
            connection.recv(1)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


def enter(folder, pod, command):
    """Run a command in a pod of the demo in `folder`, with this process's terminal; gives its status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / "enter"))
        asked = json.dumps({"pod": pod, "command": command}).encode()
        connection.sendmsg([asked], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        try:
            answer = connection.recv(100)
        except KeyboardInterrupt:
            return 130
        if not answer:
            print("demo: it ended", file=sys.stderr)
            return 1
        status = json.loads(answer)
        return status if status >= 0 else 128 - status
