# SPDX-License-Identifier: Apache-2.0
"""The mesh's own authority: a root, kept in the run directory, and short certificates with SPIFFE names.

Made by the openssl command: every machine that can build Kobune has it, and no package is needed. A key is made anew
with each certificate and is never written outside a private folder that is gone when the command ends."""

import asyncio
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

TRUST_DOMAIN = "cluster.local"
_CONFIG = """[req]
distinguished_name = name
prompt = no
[name]
{subject}
[own]
{extensions}
"""
_ROOT = """basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash"""
_LEAF = """basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth,clientAuth
subjectAltName = {critical}URI:{identity}"""


def identity(namespace, service_account):
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{service_account}"


@dataclass(frozen=True)
class Certificate:
    serial: str
    chain: bytes
    key: bytes


async def _openssl(*arguments):
    process = await asyncio.create_subprocess_exec(
        "openssl", *map(str, arguments), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {said.decode(errors='replace').strip()}")


class Authority:
    """`open` finds the root in its folder or makes one; `issue` makes a certificate."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.certificate, self._key = self.folder / "root-cert.pem", self.folder / "root-key.pem"
        self.root = b""

    async def open(self):
        """The root outlives the process: a control plane that is started again must not be a stranger."""
        if not (self.certificate.exists() and self._key.exists()):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            certificate, key = await self._make("O = cluster.local\nCN = Root of the hands-on", _ROOT, 365)
            self._write(self._key, key, 0o600)
            self._write(self.certificate, certificate, 0o644)
        self.root = self.certificate.read_bytes()

    async def issue(self, name):
        """For the SPIFFE name `name`, good for a day."""
        serial = f"{secrets.randbits(63) | 1 << 62:x}"
        chain, key = await self._make("", _LEAF.format(critical="critical,", identity=name), 1,
                                      "-CA", self.certificate, "-CAkey", self._key, "-set_serial", f"0x{serial}")
        return Certificate(serial, chain, key)

    async def _make(self, subject, extensions, days, *more):
        with tempfile.TemporaryDirectory(prefix="kobune-ca-") as place:
            folder = Path(place)
            config, certificate, key = folder / "config", folder / "certificate", folder / "key"
            config.write_text(_CONFIG.format(subject=subject, extensions=extensions))
            await _openssl("req", "-x509", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                           "-nodes", "-sha256", "-days", days, "-config", config, "-extensions", "own",
                           *(["-subj", "/"] if not subject else []), "-keyout", key, "-out", certificate, *more)
            return certificate.read_bytes(), key.read_bytes()

    @staticmethod
    def _write(path, content, mode):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
            out.write(content)
