#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two proxies with mutual TLS between them: identities are SPIFFE IDs, and a wrong one gets nowhere.

Every step says what it does, does it, shows what came back and checks it.
"""

import pathlib
import socket
import ssl
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from examples.steps import Steps, main  # noqa: E402 (found from anywhere)

IDENTITY = "spiffe://example.org/ns/shop/sa/"


class MutualTls(Steps):
    name = "mtls_spiffe"
    ports = {"listener": 10000, "client-admin": 9901, "server-admin": 9902, "mesh": 10443, "app": 8001}

    def run(self, keep):
        self.start_all()
        self.both_say_who_they_are()
        self.wrong_caller()
        self.wrong_server()
        self.no_certificate()
        self.look()
        if keep:
            self.keep(f"client's side http://127.0.0.1:{self.ports['listener']}, in {self.folder}", self.processes["client"])
        else:
            self.say("The end")
            for side in ("client", "server"):
                self.end_proxy(side, f"{side}-admin")

    def start_all(self):
        self.say("An authority and three identities", "certificates.sh makes them: client, server, and other.")
        self.command("sh certificates.sh certificates")
        done = subprocess.run(["sh", str(HERE / "certificates.sh"), str(self.folder / "certificates")],
                              capture_output=True, text=True, check=False)
        self.show(done.stdout + done.stderr)
        self.expect(done.returncode == 0, f"certificates, got exit code {done.returncode}")
        self.say(f"An app, a {self.program} beside it, and a {self.program} beside the caller", "server.yaml and client.yaml.")
        self.start_app("app")
        for side in ("server", "client"):
            config = self.folder / f"{side}.yaml"
            config.write_text(self.with_ports((HERE / f"{side}.yaml").read_text()))
            self.start_proxy(side, config, f"{side}-admin", shown=f"{side}.yaml", cwd=self.folder)

    def both_say_who_they_are(self):
        self.say("A request", "Plain HTTP on both ends, mutual TLS between. The app is told who called: By is the server, URI the caller.")
        status, _, body = self.request("listener", "/")
        self.show(f"{status}\n{body}")
        told = f"x-forwarded-client-cert: By={IDENTITY}server;"
        self.expect(status == 200 and told in body and f"URI={IDENTITY}client" in body, f"a 200 and both identities, got {status} {body}")

    def refused(self, path, side, counter):
        """The caller gets a 503; why, the access log of its side says, and a counter of `side`."""
        before = self.stats(f"{side}-admin", counter)
        status, _, body = self.request("listener", path)
        self.show(f"{status}\n{body}")
        self.expect(status == 503 and "upstream connect error" in body, f"a 503, got {status} {body}")
        after = self.stats(f"{side}-admin", counter)
        self.show("\n".join(f"{name}: {value}" for name, value in after.items()))
        self.expect(sum(after.values()) > sum(before.values()), f"{counter} of the {side}'s side to count it")
        client = self.processes["client"]
        self.wait("its line of the access log", lambda: f"{path} -> 503" in client.log.read_text(), client)
        line = next(line for line in client.log.read_text().splitlines() if line.startswith(path))
        self.show(line)
        return line

    def wrong_caller(self):
        self.say("A caller with another identity", "The certificate is of the same authority, but says \"other\": the server ends the handshake.")
        line = self.refused("/as-other", "server", "listener.*ssl.fail_verify_san")
        self.expect("ALERT" in line, f"the server's alert, got {line}")

    def wrong_server(self):
        self.say("Another server than the one expected", "The caller looks as closely: nothing is sent to a server that is not who it should be.")
        line = self.refused("/expects-other", "client", "cluster.expects-other.ssl.fail_verify_san")
        self.expect("CERTIFICATE_VERIFY_FAILED" in line, f"the reason, got {line}")

    def no_certificate(self):
        self.say("No certificate at all", "By plain HTTP, and by TLS without one: the app never hears of either.")
        with socket.create_connection(("127.0.0.1", self.ports["mesh"]), timeout=10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = self.received(plain)
        self.show(f"plain HTTP: {len(answer)} bytes that are no HTTP, and the end")
        self.expect(b"HTTP/" not in answer, f"no answer, got {answer}")
        context = ssl.create_default_context(cafile=str(self.folder / "certificates" / "ca.pem"))
        context.check_hostname = False
        try:
            with socket.create_connection(("127.0.0.1", self.ports["mesh"]), timeout=10) as raw, context.wrap_socket(raw) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                outcome = f"answered {tls.recv(100)}"
        except OSError as error:
            outcome = f"refused: {getattr(error, 'reason', None) or error}"
        self.show(f"TLS without a certificate: {outcome}")
        self.expect(outcome.startswith("refused"), f"no answer, got {outcome}")

    @staticmethod
    def received(connection):
        whole = b""
        try:
            while chunk := connection.recv(4096):
                whole += chunk
        except OSError:
            pass
        return whole

    def look(self):
        self.say("What the admin knows", "GET /certs: each certificate with its names and its end.")
        _, _, body = self.request("server-admin", "/certs")
        self.show("\n".join(line.strip() for line in body.splitlines() if "uri" in line or "expiration_time" in line))
        self.expect(f"{IDENTITY}server" in body, f"the server's identity, got {body}")
        made = self.stats("server-admin", "listener.*ssl.handshake")
        self.show("\n".join(f"{name}: {value}" for name, value in made.items()))
        self.expect(sum(made.values()) >= 1, f"a handshake, got {made}")


if __name__ == "__main__":
    sys.exit(main(MutualTls, __doc__))
