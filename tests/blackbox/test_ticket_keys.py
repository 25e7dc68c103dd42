# SPDX-License-Identifier: Apache-2.0
"""Sessions across processes: tickets of one proxy are good at every other that has its keys, as at the
pods behind one address. Each test passes with the real Envoy too."""

import ssl

import pytest

from tests.blackbox.test_tls import Client, client_context, digest_of, xfcc_of

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def process(rig, tmp_path):
    """process("new", "old"): a proxy that gives tickets of the first key and takes those of all; without
    names it makes keys of its own. They come from files, as from a volume that the pods share."""
    def start(*names):
        keys = []
        for name in names:
            path = tmp_path / name
            path.write_bytes(name.encode().ljust(80, b"."))
            keys.append({"filename": str(path)})
        tls = {"ca": "ca", "require": True, **({"session_ticket_keys": {"keys": keys}} if keys else {})}
        return rig({"listeners": {"main": {"tls": tls, "hcm": {
            "forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}}}})
    return start


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def visits(request):
    """A client: each visit resumes the session of the last, and says whether that was accepted."""
    context = client_context(version=request.param)
    kept = []

    def visit(one):
        client = Client(one.port(), context, session=kept[-1] if kept else None)
        assert client.get()[0].startswith(b"HTTP/1.1 200")
        kept.append(client.sock.session)
        reused = client.sock.session_reused
        client.close()
        assert xfcc_of(one) == [f"x-forwarded-client-cert: By=spiffe://td/ns/x/sa/srv;Hash={digest_of('client')};"
                                "URI=spiffe://td/ns/x/sa/cli"], "who it is comes with the ticket"
        return reused
    return visit


def counted(one):
    """(handshakes, resumed ones) of a process."""
    stats = one.proxy.stats(r"^listener\.main\.ssl\.(handshake|session_reused)$")
    return stats["listener.main.ssl.handshake"], stats["listener.main.ssl.session_reused"]


def test_another_process_with_the_same_key_resumes(process, visits):
    one, other = process("key"), process("key")
    assert [visits(one), visits(other), visits(one), visits(other)] == [False, True, True, True]
    assert (counted(one), counted(other)) == ((2, 1), (2, 2))


def test_another_process_with_other_keys_begins_anew(process, visits):
    one, other = process("key"), process("other")
    assert [visits(one), visits(other), visits(one)] == [False, False, False]
    assert (counted(one), counted(other)) == ((2, 0), (1, 0))


def test_without_keys_each_process_has_its_own(process, visits):
    one, other = process(), process()
    assert [visits(one), visits(one), visits(other), visits(other)] == [False, True, False, True]
    assert (counted(one), counted(other)) == ((2, 1), (2, 1))


def test_keys_rotate_process_by_process(process, visits):
    """The new key goes to everybody as one that is taken, then becomes the one that is given, then the old
    one goes: nobody is asked for a whole handshake on the way."""
    old, both, changed, new = process("old"), process("old", "new"), process("new", "old"), process("new")
    assert [visits(old), visits(both), visits(changed), visits(new)] == [False, True, True, True]
    assert not visits(old), "what the new key made is nothing to one that never heard of it"
    assert [counted(one) for one in (old, both, changed, new)] == [(2, 0), (1, 1), (1, 1), (1, 1)]
