# SPDX-License-Identifier: Apache-2.0
"""Certificates made for one test run with the openssl command: roots, servers, clients."""

import functools
import subprocess
import tempfile
from pathlib import Path

EXTENSIONS = """[v]
basicConstraints=critical,CA:{ca}
{usage}
{names}
"""


class Authority:
    """A root that signs; everything lies in one folder as NAME.pem and NAME.key."""

    def __init__(self, folder, name="ca", common_name="Test Root"):
        self.folder = Path(folder)
        self.name = name
        self.serial = 0x1000
        self.path = self.folder / f"{name}.pem"
        self.key = self.folder / f"{name}.key"
        self._key(self.key, "ec")
        config = self._config(name, "TRUE", "keyUsage=critical,keyCertSign,cRLSign", "")
        _openssl("req", "-x509", "-new", "-key", self.key, "-out", self.path, "-days", "3650",
                 "-subj", f"/O=Tests/CN={common_name}", "-config", config, "-extensions", "v")

    def _config(self, name, ca, usage, names):
        path = self.folder / f"{name}.cnf"
        path.write_text("[req]\ndistinguished_name=dn\n[dn]\n" +
                        EXTENSIONS.format(ca=ca, usage=usage, names=names))
        return path

    @staticmethod
    def _key(path, kind):
        if kind == "rsa":
            _openssl("genrsa", "-out", path, "2048")
        else:
            _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)

    def issue(self, name, sans=(), subject=None, days=365, usage=None, kind="ec"):
        """NAME.pem and NAME.key; sans as openssl writes them ("DNS:a.test"). days < 0: expired."""
        cert, key, csr = (self.folder / f"{name}.{e}" for e in ("pem", "key", "csr"))
        self._key(key, kind)
        self.serial += 1
        config = self._config(
            name, "FALSE", f"extendedKeyUsage={usage}" if usage else
            "extendedKeyUsage=serverAuth,clientAuth",
            f"subjectAltName={','.join(sans)}" if sans else "")
        _openssl("req", "-new", "-key", key, "-out", csr, "-config", config,
                 "-subj", subject or f"/O=Tests/CN={name}")
        if days < 0:
            return self._expired(cert, csr, config)
        _openssl("x509", "-req", "-in", csr, "-CA", self.path, "-CAkey", self.key, "-out", cert,
                 "-set_serial", str(self.serial), "-extfile", config, "-extensions", "v",
                 "-days", str(days))
        return cert, key

    def _expired(self, cert, csr, config):
        """`openssl ca` can date a certificate into the past; `openssl x509` of 3.0 cannot."""
        book = self.folder / "book"
        book.mkdir(exist_ok=True)
        (book / "index").touch()
        (book / "serial").write_text(f"{self.serial:X}\n" if self.serial % 2 == 0 else
                                     f"{self.serial + 1:X}\n")
        with open(config, "a") as out:
            out.write(f"[ca]\ndefault_ca=d\n[d]\ndatabase={book}/index\nserial={book}/serial\n"
                      f"new_certs_dir={book}\ndefault_md=sha256\npolicy=p\n"
                      "[p]\nO=optional\nCN=supplied\n")
        _openssl("ca", "-batch", "-config", config, "-in", csr, "-out", cert, "-notext",
                 "-cert", self.path, "-keyfile", self.key, "-extensions", "v",
                 "-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
        return cert, cert.with_suffix(".key")

    def revoke(self, serial, name="crl"):
        """A revocation list with this serial number."""
        book = self.folder / "crlbook"
        book.mkdir(exist_ok=True)
        (book / "index").write_text(f"R\t331231235959Z\t250101000000Z\t{serial:X}\tunknown\t/CN=x\n")
        (book / "crlnumber").write_text("01\n")
        config = self.folder / f"{name}.cnf"
        config.write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={book}/index\n"
                          f"crlnumber={book}/crlnumber\ndefault_md=sha256\n")
        out = self.folder / f"{name}.pem"
        _openssl("ca", "-gencrl", "-config", config, "-cert", self.path, "-keyfile", self.key,
                 "-crldays", "3650", "-out", out)
        return out


def _openssl(*args):
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, f"openssl {args[0]}: {done.stderr}"


@functools.cache
def usual():
    """The certificates of most tests, made once a run: a folder with ca, server, client, other_ca,
    stranger, expired, no_names, server_only and rsa."""
    folder = Path(tempfile.mkdtemp(prefix="kobune-certs-"))
    ca = Authority(folder)
    other = Authority(folder, "other_ca", "Other Root")
    ca.issue("server", ["DNS:server.test", "URI:spiffe://td/ns/x/sa/srv"])
    ca.issue("rsa", ["DNS:rsa.test"], kind="rsa")
    ca.issue("client", ["URI:spiffe://td/ns/x/sa/cli", "DNS:client.test", "DNS:alt.test",
                        "IP:10.1.2.3", "email:a@b.c"],
             subject="/CN=client.test/O=Client, Inc/OU=a\"b")
    ca.issue("no_names")
    ca.issue("server_only", ["DNS:so.test"], usage="serverAuth")
    ca.issue("expired", ["DNS:old.test"], days=-1)
    other.issue("stranger", ["DNS:stranger.test"])
    ca.revoke(0x1003, "crl")
    return folder
