# SPDX-License-Identifier: Apache-2.0
"""Certificates made for one test run with the openssl command: roots, servers, clients.

Names, serial numbers and dates are the same in every run; keys, and what follows from them, are not:
`places()` knows those values, so that configurations can name them and answers are compared by name.
"""

import atexit
import base64
import functools
import hashlib
import shutil
import subprocess
import tempfile
import threading
import urllib.parse
from pathlib import Path

EXTENSIONS = """[req]
distinguished_name=dn
[dn]
[v]
basicConstraints=critical,CA:{ca}
{usage}
{names}
[ca]
default_ca=d
[d]
database={book}/index
serial={book}/serial
crlnumber={book}/crlnumber
new_certs_dir={book}
default_md=sha256
policy=p
[p]
CN=optional
O=optional
OU=optional
"""
VALID = ("20240101000000Z", "20491231235959Z")
EXPIRED = ("20200101000000Z", "20210101000000Z")
EARLY = ("20480101000000Z", "20491231235959Z")


class Authority:
    """A root that signs; everything lies in one folder as NAME.pem and NAME.key."""

    def __init__(self, folder, name="ca", common_name="Test Root", above=None):
        self.folder = Path(folder)
        self.name = name
        self.serial = 0x1000
        self.path = self.folder / f"{name}.pem"
        self.key = self.folder / f"{name}.key"
        self._key(self.key, "ec")
        config = self._config(name, "TRUE", "keyUsage=critical,keyCertSign,cRLSign", "")
        request = self._request(name, config, f"/O=Tests/CN={common_name}")
        if above:
            above.sign(config, request, self.path)
        else:
            self._sign(config, request, self.path, 0x1000, VALID, "-selfsign")

    def _config(self, name, ca, usage, names):
        book = self.folder / f"{name}.book"
        book.mkdir(exist_ok=True)
        (book / "index").touch()
        path = self.folder / f"{name}.cnf"
        path.write_text(EXTENSIONS.format(ca=ca, usage=usage, names=names, book=book))
        return path

    @staticmethod
    def _key(path, kind):
        if kind == "rsa":
            _openssl("genrsa", "-out", path, "2048")
        elif kind == "p384":
            _openssl("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", path)
        else:
            _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)

    def _request(self, name, config, subject):
        request = self.folder / f"{name}.csr"
        _openssl("req", "-new", "-key", self.folder / f"{name}.key", "-out", request,
                 "-config", config, "-subj", subject)
        return request

    def sign(self, config, request, path, dates=VALID):
        self.serial += 1
        self._sign(config, request, path, self.serial, dates, "-cert", self.path)

    def _sign(self, config, request, path, serial, dates, *how):
        """By `openssl ca`: `openssl x509` of 3.0 cannot set dates."""
        (self.folder / f"{config.stem}.book" / "serial").write_text(f"{serial:X}\n")
        _openssl("ca", "-batch", "-config", config, "-in", request, "-out", path, "-notext",
                 "-keyfile", self.key, "-extensions", "v", "-preserveDN", *how,
                 "-startdate", dates[0], "-enddate", dates[1])

    def issue(self, name, sans=(), subject=None, dates=VALID, usage=None, kind="ec"):
        """NAME.pem and NAME.key; sans as openssl writes them ("DNS:a.test")."""
        cert, key = (self.folder / f"{name}.{e}" for e in ("pem", "key"))
        self._key(key, kind)
        config = self._config(
            name, "FALSE", f"extendedKeyUsage={usage or 'serverAuth,clientAuth'}",
            f"subjectAltName={','.join(sans)}" if sans else "")
        self.sign(config, self._request(name, config, subject or f"/O=Tests/CN={name}"), cert, dates)
        return cert, key

    def revoke(self, serial, name="crl"):
        """A revocation list with this serial number."""
        config = self._config(name, "FALSE", "", "")
        book = self.folder / f"{name}.book"
        (book / "index").write_text(f"R\t331231235959Z\t250101000000Z\t{serial:X}\tunknown\t/CN=x\n")
        (book / "crlnumber").write_text("01\n")
        out = self.folder / f"{name}.pem"
        _openssl("ca", "-gencrl", "-config", config, "-cert", self.path, "-keyfile", self.key,
                 "-crldays", "3650", "-out", out)
        return out


def _openssl(*args):
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True)
    assert done.returncode == 0, f"openssl {args[0]}: {done.stderr.decode(errors='replace')}"
    return done.stdout


def once(make):
    """Its value is made by the first caller, while others wait."""
    lock, made = threading.RLock(), []

    @functools.wraps(make)
    def get():
        with lock:
            if not made:
                made.append(make())
            return made[0]
    return get


@once
def usual():
    """The certificates of most tests, made once a run: a folder with ca, server, client, other_ca,
    stranger, expired, early, no_names, server_only, client_only, rsa, p384, and deep, whose file has
    the intermediate authority below it."""
    folder = Path(tempfile.mkdtemp(prefix="kobune-certs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ca = Authority(folder)
    other = Authority(folder, "other_ca", "Other Root")
    ca.issue("server", ["DNS:server.test", "URI:spiffe://td/ns/x/sa/srv"])
    ca.issue("rsa", ["DNS:rsa.test"], kind="rsa")
    ca.issue("client", ["URI:spiffe://td/ns/x/sa/cli", "DNS:client.test", "DNS:alt.test",
                        "IP:10.1.2.3", "email:a@b.c"],
             subject="/CN=client.test/O=Client, Inc/OU=a\"b")
    ca.issue("no_names")
    ca.issue("server_only", ["DNS:so.test"], usage="serverAuth")
    ca.issue("client_only", ["DNS:co.test"], usage="clientAuth")
    ca.issue("expired", ["DNS:old.test"], dates=EXPIRED)
    ca.issue("early", ["DNS:early.test"], dates=EARLY)
    ca.issue("p384", ["DNS:p384.test"], kind="p384")
    ca.issue("wild", ["DNS:*.wild.test"])
    between = Authority(folder, "between", "Between", above=ca)
    deep = between.issue("deep", ["DNS:deep.test", "URI:spiffe://td/ns/x/sa/deep"])[0]
    deep.write_text(deep.read_text() + between.path.read_text())
    other.issue("stranger", ["DNS:stranger.test"])
    ca.revoke(0x1003, "crl")
    return folder


@once
def places():
    """{word: value} for what configurations name and answers are compared by: `certs` is the folder;
    `sha256 NAME`, `sha1 NAME`, `spki NAME` (base64), `text NAME` and `pem NAME` (PEM, and URL-encoded)
    and `key NAME` of each."""
    folder = usual()
    found = {"certs": str(folder)}
    for path in sorted(folder.glob("*.pem")):
        blocks = path.read_text().split("-----BEGIN CERTIFICATE-----")[1:]
        if not blocks:
            continue
        der = base64.b64decode(blocks[0].split("-----END")[0])
        found[f"sha256 {path.stem}"] = hashlib.sha256(der).hexdigest()
        found[f"sha1 {path.stem}"] = hashlib.sha1(der).hexdigest()
        key = _openssl("x509", "-in", path, "-noout", "-pubkey").decode()
        spki = base64.b64decode(key.split("-----")[2])
        found[f"spki {path.stem}"] = base64.b64encode(hashlib.sha256(spki).digest()).decode()
        first = path.read_text().split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
        found[f"text {path.stem}"] = first
        found[f"key {path.stem}"] = (folder / f"{path.stem}.key").read_text()
        found[f"pem {path.stem}"] = urllib.parse.quote(first, safe="-._~")
    return found


def name_of(der):
    """The name of a certificate that was made here."""
    digest = hashlib.sha256(der).hexdigest()
    for word, value in places().items():
        if value == digest:
            return word.removeprefix("sha256 ")
    return digest
