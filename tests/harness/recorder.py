# SPDX-License-Identifier: Apache-2.0
"""An upstream that keeps what a strict parser, not ours, makes of the bytes that it gets: every
request must be well formed, with one framing, and followed by nothing but the next."""

import socket
import threading

import h11

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Recorder:
    def __init__(self):
        self.lock = threading.Lock()
        self.requests = {}  # target: [(headers, body)]
        self.faults = []    # (what, the bytes of the connection)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.threads = []
        self.sockets = []
        self._begin(self._accept)

    def _begin(self, run, *args):
        thread = threading.Thread(target=run, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(sock)
            self._begin(self._serve, sock)

    def _serve(self, sock):
        raw, message = b"", []  # what is being received
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=256 * 1024)
        try:
            while True:
                piece = sock.recv(65536)
                raw += piece
                parser.receive_data(piece)
                if not self._events(parser, message, sock) or not piece:
                    return
        except h11.RemoteProtocolError as error:
            if piece:  # one that was broken off is none
                with self.lock:
                    self.faults.append((str(error), raw))
        except OSError:
            pass
        finally:
            sock.close()

    def _events(self, parser, message, sock):
        """Takes what is whole; false when no more can come."""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                return True
            if isinstance(event, h11.Request):
                message[:] = [event, b""]
            elif isinstance(event, h11.Data):
                message[1] += event.data
            elif isinstance(event, h11.EndOfMessage):
                request, body = message
                with self.lock:
                    self.requests.setdefault(request.target.decode("latin-1"), []).append(
                        (list(request.headers), body))
                answer = b"" if request.method == b"HEAD" else b"ok"
                sock.sendall(ANSWER + answer)
                parser.send(h11.Response(status_code=200, headers=[("content-length", "2")]))
                parser.send(h11.Data(data=answer))
                parser.send(h11.EndOfMessage())
                if parser.our_state is not h11.DONE:
                    return False
                parser.start_next_cycle()
            else:
                return False

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.sockets:
            sock.close()
