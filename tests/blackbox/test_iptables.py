# SPDX-License-Identifier: Apache-2.0
"""kobune-iptables: which rules it makes for which flags, that the kernel has them, what becomes of
connections, and what it says when something is wrong. Needs root, ip and iptables."""

import contextlib
import os
import re
import socket
import struct
import subprocess

import pytest

from tests.harness import namespaces
from tests.harness.patience import DEADLINE_S
from tests.harness.proxy import ROOT, sanitizer_env
from tests.harness.rules import dry_run, restore, restored, run_tool, saved, written

pytestmark = pytest.mark.skipif(namespaces.missing() is not None, reason=f"pods: {namespaces.missing()}")

ISTIO = ["-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020"]

# Where connections end, in every mode.
ENDS = """
nat ISTIO_REDIRECT
    -p tcp -j REDIRECT --to-ports 15001
nat ISTIO_IN_REDIRECT
    -p tcp -j REDIRECT --to-ports 15006
nat OUTPUT
    -j ISTIO_OUTPUT
"""

# What is never the proxy's, then the proxy's own connections: by user, then by group.
OWN = """
    -o lo -s 127.0.0.6/32 -j RETURN
    -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
    -o lo -m owner ! --uid-owner 1337 -j RETURN
    -m owner --uid-owner 1337 -j RETURN
    -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
    -o lo -m owner ! --gid-owner 1337 -j RETURN
    -m owner --gid-owner 1337 -j RETURN
"""
OWN_OF_5_AND_6 = OWN.replace("--uid-owner 1337", "--uid-owner 5").replace("--gid-owner 1337", "--gid-owner 6")
OWN_WITH_DNS = """
    -o lo -s 127.0.0.6/32 -j RETURN
    -o lo ! -d 127.0.0.1/32 -p tcp -m multiport ! --dports 53,15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
    -o lo -p tcp ! --dport 53 -m owner ! --uid-owner 1337 -j RETURN
    -m owner --uid-owner 1337 -j RETURN
    -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
    -o lo -p tcp ! --dport 53 -m owner ! --gid-owner 1337 -j RETURN
    -m owner --gid-owner 1337 -j RETURN
"""

# Inbound: nothing but the tunnel's own rule where no ports are given.
NO_INBOUND = """
nat ISTIO_INBOUND
    -p tcp --dport 15008 -j RETURN
"""
ALL_INBOUND = """
nat PREROUTING
    -p tcp -j ISTIO_INBOUND
nat ISTIO_INBOUND
    -p tcp --dport 15008 -j RETURN
    -p tcp -j ISTIO_IN_REDIRECT
"""
TPROXY = """
mangle ISTIO_DIVERT
    -j MARK --set-mark 1337
    -j ACCEPT
mangle ISTIO_TPROXY
    ! -d 127.0.0.1/32 -p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port 15006
mangle PREROUTING
    -p tcp -j ISTIO_INBOUND
    -p tcp -m mark --mark 1337 -j CONNMARK --save-mark
mangle OUTPUT
    -p tcp -o lo -m mark --mark 1337 -j RETURN
    ! -d 127.0.0.1/32 -p tcp -o lo -m owner --uid-owner 1337 -j MARK --set-mark 1338
    ! -d 127.0.0.1/32 -p tcp -o lo -m owner --gid-owner 1337 -j MARK --set-mark 1338
    -p tcp -m connmark --mark 1337 -j CONNMARK --restore-mark
mangle ISTIO_INBOUND
    -p tcp -m mark --mark 1337 -j RETURN
    -p tcp -s 127.0.0.6/32 -i lo -j RETURN
    -p tcp -i lo -m mark ! --mark 1338 -j RETURN
"""


def output(*rules, own=OWN, before=""):
    """The chain of outbound connections: the proxy's own, the loopback, then these."""
    return ("nat ISTIO_OUTPUT\n" + before.lstrip("\n") + own.lstrip("\n") + "    -d 127.0.0.1/32 -j RETURN\n" +
            "".join(f"    {rule}\n" for rule in rules))


DNS_ZONES = """
raw OUTPUT
    -j ISTIO_OUTPUT_DNS
raw PREROUTING
    -j ISTIO_INBOUND
raw ISTIO_OUTPUT_DNS
    -p udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1
    -p udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2
    -p udp --dport 53 -m owner --gid-owner 1337 -j CT --zone 1
    -p udp --sport 15053 -m owner --gid-owner 1337 -j CT --zone 2
"""

# name: (flags, variables of the environment, what is expected)
CASES = {
    "nothing given": ([], {}, ENDS + NO_INBOUND + output()),
    "as Istio injects it": (ISTIO, {}, ENDS + """
nat PREROUTING
    -p tcp -j ISTIO_INBOUND
nat ISTIO_INBOUND
    -p tcp --dport 15008 -j RETURN
    -p tcp --dport 15090 -j RETURN
    -p tcp --dport 15021 -j RETURN
    -p tcp --dport 15020 -j RETURN
    -p tcp -j ISTIO_IN_REDIRECT
""" + output("-j ISTIO_REDIRECT")),
    "other ports of the proxy": (["-p", "1", "-z=2", "-e3", "-b", "*"], {}, (ENDS + ALL_INBOUND + output()).replace(
        "15001", "1").replace("15006", "2").replace("15008", "3")),
    "inbound ports": (["-b", "80,8000:8010,,http"], {}, ENDS + """
nat PREROUTING
    -p tcp -j ISTIO_INBOUND
nat ISTIO_INBOUND
    -p tcp --dport 15008 -j RETURN
    -p tcp --dport 80 -j ISTIO_IN_REDIRECT
    -p tcp --dport 8000:8010 -j ISTIO_IN_REDIRECT
    -p tcp --dport http -j ISTIO_IN_REDIRECT
""" + output()),
    "excluded inbound ports matter with all": (["-b", "80", "-d", "90"], {}, ENDS + """
nat PREROUTING
    -p tcp -j ISTIO_INBOUND
nat ISTIO_INBOUND
    -p tcp --dport 15008 -j RETURN
    -p tcp --dport 80 -j ISTIO_IN_REDIRECT
""" + output()),
    "user and group": (["-u", "5", "-g", "6", "-i", "*"], {}, ENDS + NO_INBOUND + output("-j ISTIO_REDIRECT", own=OWN_OF_5_AND_6)),
    "the group is as the user": (["--proxy-uid=5", "-i", "*"], {}, ENDS + NO_INBOUND + output(
        "-j ISTIO_REDIRECT", own=OWN.replace("1337", "5"))),
    "several users": (["-u", "5,7", "-g", "6"], {}, ENDS + NO_INBOUND + output(own="""
    -o lo -s 127.0.0.6/32 -j RETURN
    -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 5 -j ISTIO_IN_REDIRECT
    -o lo -m owner ! --uid-owner 5 -j RETURN
    -m owner --uid-owner 5 -j RETURN
    -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 7 -j ISTIO_IN_REDIRECT
    -o lo -m owner ! --uid-owner 7 -j RETURN
    -m owner --uid-owner 7 -j RETURN
    -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 6 -j ISTIO_IN_REDIRECT
    -o lo -m owner ! --gid-owner 6 -j RETURN
    -m owner --gid-owner 6 -j RETURN
""")),
    "ranges": (["-i", "10.0.0.0/8,172.16.1.2/12", "-x", "10.1.0.0/16,fd00::/8"], {}, ENDS + NO_INBOUND + output(
        "-d 10.1.0.0/16 -j RETURN", "-d 10.0.0.0/8 -j ISTIO_REDIRECT", "-d 172.16.1.2/12 -j ISTIO_REDIRECT")),
    "the loopback among the ranges": (["-i", "127.1.2.3/32"], {}, ENDS + NO_INBOUND + output(
        "-d 127.1.2.3/32 -j ISTIO_REDIRECT", own="\n".join(line for line in OWN.splitlines() if "-o lo -m" not in line) + "\n")),
    "outbound ports": (["-q", "31000,32000", "-o", "25", "-i", "*", "-x", "10.1.0.0/16"], {}, ENDS + NO_INBOUND + output(
        "-d 10.1.0.0/16 -j RETURN", "-p tcp --dport 31000 -j ISTIO_REDIRECT", "-p tcp --dport 32000 -j ISTIO_REDIRECT",
        "-j ISTIO_REDIRECT", before="""
    -p tcp --dport 25 -j RETURN
    -p udp --dport 25 -j RETURN
""")),
    "excluded interfaces": (["-c", "net1,tun+"], {}, ENDS.replace("nat OUTPUT\n", """nat OUTPUT
    -o net1 -j RETURN
    -o tun+ -j RETURN
""") + """
nat PREROUTING
    -i net1 -j RETURN
    -i tun+ -j RETURN
""" + NO_INBOUND + output()),
    "interfaces of virtual machines": (["-k", "vm1,vm2", "-i", "10.0.0.0/8"], {}, ENDS + """
nat PREROUTING
    -i vm2 -d 10.0.0.0/8 -j ISTIO_REDIRECT
    -i vm1 -d 10.0.0.0/8 -j ISTIO_REDIRECT
    -i vm2 -j RETURN
    -i vm1 -j RETURN
""" + NO_INBOUND + output("-d 10.0.0.0/8 -j ISTIO_REDIRECT")),
    "invalid packets": (["--drop-invalid"], {}, ENDS + NO_INBOUND + output() + """
mangle PREROUTING
    -m conntrack --ctstate INVALID -j ISTIO_DROP
mangle ISTIO_DROP
    -j DROP
"""),
    "groups of owners": ([], {"ISTIO_OUTBOUND_OWNER_GROUPS": "daemon,202"}, ENDS + NO_INBOUND + output(
        own=OWN + "    -m owner ! --gid-owner daemon -m owner ! --gid-owner 202 -j RETURN\n")),
    "excluded groups of owners": ([], {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "888,daemon"}, ENDS + NO_INBOUND + output(
        own=OWN + "    -m owner --gid-owner 888 -j RETURN\n    -m owner --gid-owner daemon -j RETURN\n")),
    "another loopback": ([], {"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.0.0.0/8"}, (ENDS + NO_INBOUND + output()).replace(
        "127.0.0.1/32", "127.0.0.0/8")),
    "TPROXY": (["-m", "TPROXY", "-b", "*", "-d", "15021", "-i", "*"], {}, ENDS + NO_INBOUND + output("-j ISTIO_REDIRECT") + TPROXY + """
    -p tcp --dport 15021 -j RETURN
    -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
    -p tcp -j ISTIO_TPROXY
"""),
    "TPROXY of some ports, other mark": (["-mTPROXY", "-b", "80,90", "-t", "99", "-r", "77"], {}, ENDS + NO_INBOUND + output() +
                                        TPROXY.replace("mark 1337", "mark 99") + """
    -p tcp --dport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
    -p tcp --dport 80 -j ISTIO_TPROXY
    -p tcp --dport 90 -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
    -p tcp --dport 90 -j ISTIO_TPROXY
"""),
    "all name look-ups": (["--redirect-dns", "--capture-all-dns", "-i", "*"], {}, ENDS + NO_INBOUND + output(
        "-j ISTIO_REDIRECT", own=OWN_WITH_DNS + "    -j ISTIO_OUTPUT_DNS\n") + """
nat ISTIO_OUTPUT_DNS
    -p tcp --dport 53 -j REDIRECT --to-ports 15053
    -p udp --dport 53 -j REDIRECT --to-ports 15053
""" + DNS_ZONES + """    -p udp --dport 53 -j CT --zone 2
raw ISTIO_INBOUND
    -p udp --sport 53 -j CT --zone 1
"""),
    "name look-ups to known servers": (["-i", "*"], {"ISTIO_META_DNS_CAPTURE": "true"}, ENDS + NO_INBOUND + output(
        "-j ISTIO_REDIRECT", own=OWN_WITH_DNS + "    -j ISTIO_OUTPUT_DNS\n") + """
nat ISTIO_OUTPUT_DNS
    -p tcp --dport 53 -d 10.96.0.10/32 -j REDIRECT --to-ports 15053
    -p tcp --dport 53 -d 10.96.0.11/32 -j REDIRECT --to-ports 15053
    -p udp --dport 53 -d 10.96.0.10/32 -j REDIRECT --to-ports 15053
    -p udp --dport 53 -d 10.96.0.11/32 -j REDIRECT --to-ports 15053
""" + DNS_ZONES + """    -p udp --dport 53 -d 10.96.0.10/32 -j CT --zone 2
    -p udp --dport 53 -d 10.96.0.11/32 -j CT --zone 2
raw ISTIO_INBOUND
    -p udp --sport 53 -s 10.96.0.10/32 -j CT --zone 1
    -p udp --sport 53 -s 10.96.0.11/32 -j CT --zone 1
"""),
    "all by the environment": ([], {
        "INBOUND_CAPTURE_PORT": "16006", "INBOUND_TUNNEL_PORT": "16008", "PROXY_UID": "5", "PROXY_GID": "6",
        "ISTIO_INBOUND_PORTS": "*", "ISTIO_LOCAL_EXCLUDE_PORTS": "22", "ISTIO_SERVICE_CIDR": "*",
        "ISTIO_SERVICE_EXCLUDE_CIDR": "10.1.0.0/16", "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE": "25"}, (ENDS + """
nat PREROUTING
    -p tcp -j ISTIO_INBOUND
nat ISTIO_INBOUND
    -p tcp --dport 15008 -j RETURN
    -p tcp --dport 22 -j RETURN
    -p tcp -j ISTIO_IN_REDIRECT
""" + output("-d 10.1.0.0/16 -j RETURN", "-j ISTIO_REDIRECT", own=OWN_OF_5_AND_6, before="""
    -p tcp --dport 25 -j RETURN
    -p udp --dport 25 -j RETURN
""")).replace("15006", "16006").replace("15008", "16008")),
    "a flag is stronger than the environment": (["-b", ""], {"ISTIO_INBOUND_PORTS": "*"}, ENDS + NO_INBOUND + output()),
}


@pytest.fixture(scope="module")
def network():
    made = namespaces.Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def reader(network):
    """A pod in which only dry runs are made."""
    return network.pod("10.11.1.1", captured=False)


@pytest.fixture(scope="module")
def resolv(tmp_path_factory):
    path = tmp_path_factory.mktemp("etc") / "resolv.conf"
    path.write_text("# nameserver 1.1.1.1\nsearch cluster.local\nnameserver 10.96.0.10\nnameserver 10.96.0.11\noptions ndots:5\n")
    return path


@pytest.fixture
def pods():
    """pods(*addresses): empty ones with these addresses on a network of their own."""
    made = []

    def make(*addresses):
        made.append(namespaces.Network())
        return [made[-1].pod(address, captured=False) for address in addresses]
    yield make
    for one in made:
        one.close()


def six_of(text):
    """The expectation of IPv6 for one of IPv4 that names no other addresses."""
    return text.replace("127.0.0.6/32", "::6/128").replace("127.0.0.1/32", "::1/128")


@pytest.mark.parametrize("case", CASES)
def test_rules(reader, resolv, case):
    flags, variables, expected = CASES[case]
    assert restored(dry_run(reader, *flags, resolv=resolv, **variables)["iptables-restore"]) == written(expected)


@pytest.mark.parametrize("case", ["nothing given", "as Istio injects it", "TPROXY", "all name look-ups", "excluded interfaces"])
def test_rules_for_ipv6(pods, case):
    """A pod with an IPv6 address has them for both; with both addresses, if it is said to be dual stack."""
    flags, variables, expected = CASES[case]
    for address, more in (("fd00:11::1", []), ("10.11.0.1", ["--dual-stack"])):
        pod = pods(address)[0]
        if more:
            pod.run("ip", "address", "add", "fd00:11::2/64", "dev", "eth0", "nodad")
            assert set(dry_run(pod, *flags, **variables)) == {"iptables-restore", "ip"}
        found = dry_run(pod, *flags, *more, **variables)
        assert restored(found["iptables-restore"]) == written(expected)
        assert restored(found["ip6tables-restore"]) == written(six_of(expected))
        assert "ip -6 address add ::6/128 dev lo" in found["ip"]


def test_ranges_of_both_families(pods):
    found = dry_run(pods("fd00:11::1")[0], "-i", "10.0.0.0/8,fd00:0::/8", "-x", "2001:DB8::/32,10.1.0.0/16")
    four = restored(found["iptables-restore"])["nat", "ISTIO_OUTPUT"]
    six = restored(found["ip6tables-restore"])["nat", "ISTIO_OUTPUT"]
    assert four[-2:] == ["-d 10.1.0.0/16 -j RETURN", "-d 10.0.0.0/8 -j ISTIO_REDIRECT"]
    assert six[-2:] == ["-d 2001:db8::/32 -j RETURN", "-d fd00::/8 -j ISTIO_REDIRECT"]


# What is wrong: (flags, variables, what the message has to name)
WRONG = [
    (["-p", "0"], {}, ['-p: "0"', "1 to 65535"]),
    (["-z", "65536"], {}, ['-z: "65536"']),
    (["-e", ""], {}, ['-e: ""']),
    (["-b", "80,eighty"], {}, ['-b: "eighty"', "or * alone"]),
    (["-b", "80,*"], {}, ['-b: "*"']),
    (["-d", "80 -j ACCEPT"], {}, ['-d: "80 -j ACCEPT"']),
    (["-d", "9:8"], {}, ['-d: "9:8"']),
    (["-q", "1,\n*nat"], {}, ["-q: "]),
    (["-o", "-1"], {}, ['-o: "-1"']),
    (["-u", "nobody-knows"], {}, ['-u: "nobody-knows" is no user']),
    (["-g", "1337,x y"], {}, ['-g: "x y" is no group']),
    (["-i", "10.0.0.0"], {}, ['-i: "10.0.0.0" has no prefix length']),
    (["-i", "10.0.0.0/33"], {}, ['-i: "10.0.0.0/33"', "0 to 32"]),
    (["-i", "*,10.0.0.0/8"], {}, ['-i: "*"']),
    (["-x", "*"], {}, ['-x: "*" would leave everything alone']),
    (["-x", "fd00::g/8"], {}, ['-x: "fd00::g/8"']),
    (["-k", "a-name-that-is-too-long"], {}, ['-k: "a-name-that-is-too-long"']),
    (["-c", "eth0;reboot"], {}, ['-c: "eth0;reboot"']),
    (["-m", "tproxy"], {}, ['-m: "tproxy" is no mode: REDIRECT or TPROXY']),
    (["-t", "1338"], {}, ['-t: "1338" is the mark of what the proxy sends']),
    (["-r", "254"], {}, ['-r: "254"', "253 to 255"]),
    (["--iptables-probe-port", "x"], {}, ['--iptables-probe-port: "x"']),
    (["--probe-timeout", "5"], {}, ['--probe-timeout: "5"', "5s"]),
    (["--force-iptables-binary=new"], {}, ['--force-iptables-binary: "new"']),
    (["--native-nftables"], {}, ["--native-nftables", "does not make"]),
    (["--dry-run=perhaps"], {}, ['--dry-run is "perhaps"']),
    (["--cni-mode"], {}, ["--cni-mode", "needs --network-namespace"]),
    (["--no-such-flag"], {}, ["no flag is named --no-such-flag", "--help"]),
    (["-nw"], {}, ["no flag is named -w"]),
    (["-p"], {}, ["-p needs a value"]),
    (["run"], {}, ['"run" belongs to no flag']),
    (["--log_output_level=loud"], {}, ['"loud"']),
    ([], {"ISTIO_LOCAL_EXCLUDE_PORTS": "x"}, ['ISTIO_LOCAL_EXCLUDE_PORTS: "x"']),
    ([], {"ISTIO_OUTBOUND_OWNER_GROUPS": "not-a-group"}, ['ISTIO_OUTBOUND_OWNER_GROUPS: "not-a-group"']),
    ([], {"ISTIO_OUTBOUND_OWNER_GROUPS": ",".join(map(str, range(65)))}, ["65 groups", "at most 64"]),
    ([], {"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "10.0.0.0/8"}, ['"10.0.0.0/8" is no part of 127.0.0.0/8']),
    (["-p", "x", "-b", "y", "-i", "z"], {}, ['-p: "x"', '-b: "y"', '-i: "z"']),
]


@pytest.mark.parametrize("flags,variables,words", WRONG, ids=[" ".join(f + [f"{k}={v:.20}" for k, v in e.items()]) for f, e, _ in WRONG])
def test_bad_values_are_named(reader, flags, variables, words):
    done = run_tool(reader, *flags, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    for word in words:
        assert word in done.stderr
    assert saved(reader) == ""


def test_help_names_every_flag(reader):
    done = run_tool(reader, "--help")
    assert done.returncode == 0 and done.stderr == ""
    for flag in ("-p, --envoy-port VALUE", "-n, --dry-run", "--capture-all-dns", "(15006); environment: INBOUND_CAPTURE_PORT", "126"):
        assert flag in done.stdout


def test_what_has_no_effect_is_said(reader):
    done = run_tool(reader, "--dry-run", "-b", "80", "-d", "90", "--capture-all-dns", "--log_caller=x", REDIRECT_DNS="perhaps")
    assert done.returncode == 0
    for words in ("-d has no effect without -b '*'", "--capture-all-dns has no effect without --redirect-dns",
                  'REDIRECT_DNS of the environment is "perhaps"', "--log_caller is a flag of Istio's logger"):
        assert words in done.stderr


def test_called_as_an_injected_init_container(reader):
    """The first word and the flags of Istio's logger, as injection writes them."""
    done = run_tool(reader, "istio-iptables", *ISTIO, "--log_output_level=default:warn", "--log_as_json", "-n")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("# iptables-restore --noflush\n*nat\n-N ISTIO_INBOUND\n")


# In the kernel


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("case", ["as Istio injects it", "TPROXY", "all name look-ups", "interfaces of virtual machines", "invalid packets"])
def test_the_kernel_has_what_the_dry_run_says(pods, case, kind):
    """Once made by the program, once its printed rules by hand; then once more, and then away."""
    flags, variables, _ = CASES[case]
    subject, by_hand = pods("fd00:11::1", "fd00:11::2")
    with_kind = [*flags, "--force-iptables-binary", kind]
    found = dry_run(by_hand, *flags, **variables)
    restore(by_hand, found["iptables-restore"])
    restore(by_hand, found["ip6tables-restore"], six=True)
    wanted = [saved(by_hand), saved(by_hand, six=True)]

    done = run_tool(subject, *with_kind, **variables)
    if "cannot make a rule" in done.stderr:
        pytest.skip(f"iptables-{kind} does not work here")
    assert done.returncode == 0 and "the rules are made" in done.stderr
    save = [f"iptables-{kind}-save", f"ip6tables-{kind}-save"]
    made = [subject.run(tool) for tool in save]
    if kind == "nft":
        assert [saved(subject), saved(subject, six=True)] == wanted

    again = run_tool(subject, *with_kind, **variables)
    assert again.returncode == 0 and "the wanted rules are here already" in again.stderr
    lines = [[line.split(" [")[0] for line in text.splitlines() if not line.startswith("#")] for text in made]
    after = [[line.split(" [")[0] for line in subject.run(tool).splitlines() if not line.startswith("#")] for tool in save]
    assert after == lines

    gone = run_tool(subject, *with_kind, "--cleanup", **variables)
    assert gone.returncode == 0 and "IPv4: the rules are gone" in gone.stderr and "IPv6: the rules are gone" in gone.stderr
    for tool in save:
        assert not [line for line in subject.run(tool).splitlines() if line.startswith(("-A", ":ISTIO"))]
    assert "1337" not in subject.run("ip", "rule") and "::6" not in subject.run("ip", "-6", "address", "show", "dev", "lo")


def test_cleanup_needs_no_flags(pods):
    """What jumps to Istio's chains, and these, go whatever was asked for; what is somebody else's stays."""
    pod = pods("10.11.0.1")[0]
    pod.run("iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "7", "-j", "ACCEPT")
    before = saved(pod)
    assert run_tool(pod, *ISTIO, "--redirect-dns", "--capture-all-dns").returncode == 0
    assert "ISTIO_OUTPUT_DNS" in saved(pod) and before != saved(pod)
    assert run_tool(pod, "--cleanup-only").returncode == 0
    assert saved(pod) == before
    assert "IPv4: no rules to remove" in run_tool(pod, "--cleanup-only").stderr


def test_other_rules_of_an_earlier_run(pods):
    pod = pods("10.11.0.1")[0]
    assert run_tool(pod, *ISTIO).returncode == 0
    before = saved(pod)
    others = [*ISTIO, "-o", "25"]
    refused = run_tool(pod, *others)
    assert refused.returncode == 1 and saved(pod) == before
    assert "chain ISTIO_OUTPUT of table nat has 9 rules, not 11" in refused.stderr and "--reconcile replaces them" in refused.stderr
    assert run_tool(pod, *others, "--reconcile").returncode == 0
    fresh = pods("10.11.0.1")[0]
    assert run_tool(fresh, *others).returncode == 0
    assert saved(pod) == saved(fresh)
    forced = run_tool(pod, *others, "--force-apply")
    assert forced.returncode == 1 and "exists" in forced.stderr


def test_nothing_stays_of_what_failed(pods, tmp_path):
    """The tables of IPv4 are made when ip6tables-restore fails: they are taken back."""
    fails = tmp_path / "ip6tables-nft-restore"
    fails.write_text("#!/bin/sh\necho 'no such target' >&2\nexit 2\n")
    fails.chmod(0o755)
    pod = pods("fd00:11::1")[0]
    done = run_tool(pod, *ISTIO, PATH=f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    assert done.returncode == 1 and "ip6tables-nft-restore ended with 2: no such target" in done.stderr
    assert saved(pod) == "" and saved(pod, six=True) == ""


def test_what_is_missing_is_said(pods):
    pod = pods("10.11.0.1")[0]
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /usr/sbin && exec "$0" "$@"']
    done = run_tool(pod, *ISTIO, before=hidden)
    assert done.returncode == 3 and "iptables-nft, iptables-nft-save or iptables-nft-restore is not installed" in done.stderr
    powerless = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = run_tool(pod, *ISTIO, before=powerless)
    assert done.returncode == 4 and "CAP_NET_ADMIN" in done.stderr
    done = run_tool(pod, *ISTIO, "--network-namespace", "/no/such/namespace")
    assert done.returncode == 1 and '--network-namespace "/no/such/namespace": No such file' in done.stderr
    assert saved(pod) == ""


def test_a_pod_without_an_address(pods):
    empty = namespaces.Namespace()
    try:
        done = run_tool(empty, *ISTIO)
        assert done.returncode == 1 and "run it when the pod has its address" in done.stderr
    finally:
        empty.close()


def test_another_namespace(pods):
    here, there = pods("10.11.0.1", "10.11.0.2")
    assert run_tool(here, *ISTIO, "--network-namespace", f"/proc/{os.getpid()}/fd/{there.fd}").returncode == 0
    assert saved(here) == "" and "ISTIO_OUTPUT" in saved(there)


def test_validation(pods):
    pod = pods("10.11.0.1")[0]
    bad = run_tool(pod, "--skip-rule-apply", "--run-validation", "--probe-timeout", "300ms")
    assert bad.returncode == 126 and "no connection to port 15002 of 127.0.0.6 was redirected" in bad.stderr
    assert saved(pod) == ""
    good = run_tool(pod, *ISTIO, "--run-validation", "--probe-timeout", "20s")
    assert good.returncode == 0 and "connections are redirected" in good.stderr
    six = pods("fd00:11::1")[0]
    assert run_tool(six, *ISTIO, "--run-validation", "--probe-timeout", "20s").returncode == 0


# What becomes of connections

ORIGINAL_DESTINATION = 80
IPV6_TRANSPARENT = 75


@contextlib.contextmanager
def as_the_sidecar():
    """Sockets made meanwhile are the sidecar's."""
    os.setegid(namespaces.SIDECAR_GROUP)
    os.seteuid(1337)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        os.setegid(os.getgid())


def listen(pod, port, address="0.0.0.0", transparent=False):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pod:
        listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if transparent:
        listener.setsockopt(*((socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if ":" in address else (socket.SOL_IP, socket.IP_TRANSPARENT)), 1)
    listener.bind((address, port))
    listener.listen(8)
    listener.settimeout(DEADLINE_S)
    return listener


def dial(pod, address, port, identity=contextlib.nullcontext):
    with pod, identity():
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(DEADLINE_S)
    client.connect((address, port))
    return client


def original(accepted):
    """Where a connection was going to."""
    if accepted.family == socket.AF_INET6:
        raw = accepted.getsockopt(socket.IPPROTO_IPV6, ORIGINAL_DESTINATION, 28)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]
    raw = accepted.getsockopt(socket.SOL_IP, ORIGINAL_DESTINATION, 16)
    return socket.inet_ntoa(raw[4:8]), struct.unpack("!H", raw[2:4])[0]


def arrives(client_pod, address, port, listener, identity=contextlib.nullcontext):
    """The accepted socket of a connection of this client."""
    with dial(client_pod, address, port, identity):
        accepted, _ = listener.accept()
        return accepted


@pytest.mark.parametrize("here,there,service", [("10.11.0.1", "10.11.0.2", "10.96.0.9"), ("fd00:11::1", "fd00:11::2", "fd00:96::9")])
def test_connections_are_redirected(pods, here, there, service):
    pod, other = pods(here, there)
    every = "::" if ":" in here else "0.0.0.0"
    with contextlib.ExitStack() as stack:
        inbound, outbound, app, excluded = (stack.enter_context(listen(pod, port, every)) for port in (15006, 15001, 8080, 15021))
        assert arrives(other, here, 8080, app).getsockname()[1] == 8080, "nothing is captured yet"
        assert run_tool(pod, *ISTIO).returncode == 0
        assert original(arrives(other, here, 8080, inbound)) == (here, 8080)
        assert original(arrives(other, here, 9999, inbound)) == (here, 9999), "nobody need listen there"
        assert original(arrives(pod, service, 80, outbound)) == (service, 80)
        assert arrives(other, here, 15021, excluded).getsockname()[1] == 15021
        assert arrives(pod, here, 8080, app).getsockname()[1] == 8080, "an app asks its own pod by address"
        theirs = stack.enter_context(listen(other, 80, every))
        assert arrives(pod, there, 80, theirs, as_the_sidecar).getsockname()[1] == 80, "what the sidecar sends to others"
        assert original(arrives(pod, here, 8080, inbound, as_the_sidecar)) == (here, 8080), "and to its own pod, by a service"
        assert run_tool(pod, "--cleanup").returncode == 0
        assert arrives(other, here, 8080, app).getsockname()[1] == 8080


@pytest.mark.parametrize("here,there", [("10.11.0.1", "10.11.0.2"), ("fd00:11::1", "fd00:11::2")])
def test_tproxy_keeps_both_addresses(pods, here, there):
    pod, other = pods(here, there)
    with contextlib.ExitStack() as stack:
        assert run_tool(pod, *ISTIO, "-m", "TPROXY").returncode == 0
        every = "::" if ":" in here else "0.0.0.0"
        inbound = stack.enter_context(listen(pod, 15006, every, transparent=True))
        client = stack.enter_context(dial(other, here, 8080))
        accepted, peer = inbound.accept()
        assert accepted.getsockname()[:2] == (here, 8080) and peer[:2] == client.getsockname()[:2]
        accepted.sendall(b"hello")
        assert client.recv(5) == b"hello", "what follows finds its way too"
        assert "ESTABLISHED" in saved(pod) and run_tool(pod, *ISTIO, "-m", "TPROXY").returncode == 0
        assert pod.run("ip", "rule").count("fwmark") == 1, "a second run adds nothing"
        accepted.close()


def test_name_look_ups_go_to_the_agent(pods):
    pod = pods("10.11.0.1")[0]
    assert run_tool(pod, *ISTIO, "--redirect-dns", "--capture-all-dns").returncode == 0
    with pod:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with as_the_sidecar():
            agent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with agent, client:
        agent.bind(("127.0.0.1", 15053))
        agent.settimeout(DEADLINE_S)
        client.settimeout(DEADLINE_S)
        client.sendto(b"who?", ("10.96.0.10", 53))
        question, asker = agent.recvfrom(100)
        agent.sendto(b"me", asker)
        assert (question, client.recvfrom(100)) == (b"who?", (b"me", ("10.96.0.10", 53)))


def console_examples(path):
    """[(command, what it prints)] of a page's blocks of console."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", path.read_text(), re.S | re.M):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


def test_the_page_tells_the_truth(pods):
    """The examples of docs/kobune-iptables.md, one after the other in one pod."""
    pod = pods("10.11.0.1")[0]
    path = f"{namespaces.iptables_path().parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    examples = console_examples(ROOT / "docs" / "kobune-iptables.md")
    assert len(examples) > 6
    for command, printed in examples:
        with pod:
            done = subprocess.run(["sh", "-c", f"{command}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                                  env={**sanitizer_env(), "PATH": path})
        assert done.stdout == printed, command


def test_the_page_names_every_flag():
    page = (ROOT / "docs" / "kobune-iptables.md").read_text()
    named = subprocess.run([str(namespaces.iptables_path()), "--help"], capture_output=True, text=True, check=True).stdout
    for letter, name in re.findall(r"^  (-\w, |    )--([\w-]+)", named, re.M):
        assert f"`-{letter[1]}`" in page if letter.strip() else f"--{name}" in page, name
