# SPDX-License-Identifier: Apache-2.0
"""A root and two P-256 certificates as a mesh gives them out, made anew for each run."""

import subprocess

EXTENSIONS = """\
subjectAltName = URI:spiffe://cluster.local/ns/bench/sa/{name}, DNS:app.bench.local
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
"""


def openssl(folder, *arguments):
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")


def make(folder):
    """ca.pem, and for `server` and `client`: .pem, .key, and .both, which has one behind the other."""
    folder.mkdir()
    openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key")
    openssl(folder, "req", "-x509", "-new", "-key", "ca.key", "-days", "30", "-subj", "/O=cluster.local", "-out", "ca.pem")
    for name in ("server", "client"):
        (folder / "extensions").write_text(EXTENSIONS.format(name=name))
        openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", "/", "-out", "request")
        openssl(
            folder, "x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
            "-extfile", "extensions", "-out", f"{name}.pem",
        )
        (folder / f"{name}.both").write_text((folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text())
        (folder / f"{name}.both").chmod(0o600)
