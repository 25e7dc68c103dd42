# SPDX-License-Identifier: Apache-2.0
"""Headers of the PROXY protocol, written and read by hand."""

import ipaddress
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FAMILIES = {"unspec": 0x00, "tcp4": 0x11, "udp4": 0x12, "tcp6": 0x21, "udp6": 0x22, "unix": 0x31}


def v2(source="192.0.2.1:1000", target="198.51.100.2:2000", command="proxy", family=None,
       tlvs=None, version=2, length=None, extra="", behind=""):
    """One header, and what is sent with it; `tlvs` is {type: text}, `length` and `extra` are for
    broken ones."""
    where = b""
    src, dst = address(source), address(target)
    family = family or ("tcp6" if src[0].version == 6 else "tcp4")
    if str(family).endswith(("4", "6")):
        where = src[0].packed + dst[0].packed + struct.pack("!HH", src[1], dst[1])
    elif family == "unix":
        where = b"\0" * 216
    body = where + b"".join(tlv(int(kind), text) for kind, text in (tlvs or {}).items())
    body += extra.encode("latin-1")
    command = {"local": 0, "proxy": 1}.get(command, command)
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, FAMILIES.get(family, family),
                                   len(body) if length is None else length) + body + \
        behind.encode("latin-1")


def tlv(kind, text):
    data = text.encode("latin-1")
    return struct.pack("!BH", kind, len(data)) + data


def address(text):
    host, _, port = text.rpartition(":")
    return ipaddress.ip_address(host.strip("[]")), int(port)


def read(sock):
    """Takes a header off a connection, in words: version 1 as it is, version 2 by its parts."""
    data = exactly(sock, 12)
    if data != SIGNATURE:
        while not data.endswith(b"\r\n") and len(data) < 108:
            data += exactly(sock, 1)
        return repr(data.decode("latin-1"))
    what, family, length = struct.unpack("!BBH", exactly(sock, 4))
    body = exactly(sock, length)
    size = {0x11: 4, 0x21: 16}.get(family, 0)
    words = [f"v{what >> 4}", {0: "LOCAL", 1: "PROXY"}.get(what & 15, str(what & 15)), f"{family:#x}"]
    if size:
        words += [str(ipaddress.ip_address(body[:size])), str(ipaddress.ip_address(body[size:2 * size]))]
        words += map(str, struct.unpack("!HH", body[2 * size:2 * size + 4]))
        body = body[2 * size + 4:]
    return " ".join(words) + (f" + {body.hex()}" if body else "")


def exactly(sock, n):
    data = b""
    while len(data) < n:
        got = sock.recv(n - len(data))
        if not got:
            raise EOFError
        data += got
    return data
