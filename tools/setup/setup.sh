# shellcheck shell=bash
# What ./dev needs before it can build: Debian packages, the pinned Python packages, llhttp.
# Sourced by ./dev; every step is skipped when its stamp says that nothing changed.

H2SPEC_MODULE=github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
LLHTTP_MIN=9.3
LLHTTP_DIR=$ROOT/build/deps/llhttp
VENV=$ROOT/.venv

say()
{
    printf '== %s\n' "$*"
}

die()
{
    printf 'dev: %s\n' "$1" >&2
    shift
    for line in "$@"; do
        printf '     %s\n' "$line" >&2
    done
    exit 1
}

# run_logged LABEL COMMAND...: runs it with its output in build/log/LABEL.log, shows that time
# passes, and shows the end of the log if it failed.
run_logged()
{
    local label=$1 log started pid waited=0
    shift
    mkdir -p "$ROOT/build/log"
    log=$ROOT/build/log/${label// /-}.log
    started=$SECONDS
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        waited=$((waited + 1))
        if [ -t 1 ] && [ $((waited % 5)) -eq 0 ]; then
            printf '\r   %s: %d s, %.60s\033[K' "$label" $((SECONDS - started)) "$(tail -n 1 "$log")"
        elif [ ! -t 1 ] && [ $((waited % 75)) -eq 0 ]; then
            printf '   %s: %d s\n' "$label" $((SECONDS - started))
        fi
    done
    [ -t 1 ] && printf '\r\033[K'
    if ! wait "$pid"; then
        printf '   %s failed after %d s; the end of %s:\n' "$label" $((SECONDS - started)) "${log#"$ROOT"/}"
        tail -n 30 "$log" | sed 's/^/   | /'
        return 1
    fi
    printf '   %s: done in %d s\n' "$label" $((SECONDS - started))
}

# packages_of GROUP...: the Debian packages of these groups.
packages_of()
{
    local group
    for group in "$@"; do
        awk -v g="$group" '$1 == g { print $2 }' "$ROOT/tools/setup/packages.txt"
    done
}

# packages_missing GROUP...: those of them that are not installed.
packages_missing()
{
    local have package
    have=" $(dpkg-query -W -f='${Package}:${db:Status-Status} ' 2>/dev/null) "
    for package in $(packages_of "$@"); do
        case $have in
        *" $package:installed "*) ;;
        *) printf '%s\n' "$package" ;;
        esac
    done
}

# Debian starts nginx and haproxy as services when they are installed; the bench starts its own.
# A policy file that says no for the time of the installation keeps port 80 as it was.
apt_install()
{
    local policy=/usr/sbin/policy-rc.d made='' rc=0 root=()
    [ "$(id -u)" -eq 0 ] || root=(sudo)
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
        "${root[@]}" chmod 755 "$policy"
        made=yes
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
            --no-install-recommends "$@" || rc=$?
    if [ -n "$made" ]; then
        "${root[@]}" rm -f "$policy"
    fi
    return $rc
}

setup_packages()
{
    local missing=() by_hand
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "packages: no apt here, so these are taken to be installed: $(packages_of "$@" | xargs)"
        return 0
    fi
    mapfile -t missing < <(packages_missing "$@")
    [ ${#missing[@]} -eq 0 ] && return 0
    by_hand="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    say "packages: missing Debian packages: ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "not root, and there is no sudo: cannot install ${missing[*]}" \
            "run this as root, then ./dev again:" "$by_hand"
        say "packages: not root, so apt-get runs through sudo, which may ask for your password"
        sudo -v || die "sudo refused: cannot install ${missing[*]}" \
            "run this as root, then ./dev again:" "$by_hand"
    fi
    run_logged "apt-get install" apt_install "${missing[@]}" ||
        die "could not install these Debian packages: ${missing[*]}" \
            "without network, bring them by other means; with it, run as root:" "$by_hand"
}

# The first Python >= 3.11, Debian's own before any other.
find_python()
{
    local candidate
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

setup_venv()
{
    local python stamp want
    python=$(find_python) || die "no Python >= 3.11 found" "on Debian 12: apt-get install python3"
    stamp=$VENV/.kobune-stamp
    want="$("$python" -V 2>&1) $python $(sha256sum <"$ROOT/requirements.txt")"
    if [ -x "$VENV/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
        return 0
    fi
    if [ -L "$VENV" ]; then # another checkout's: to make it anew would pull it away under whoever uses it
        [ -x "$VENV/bin/python" ] || die ".venv is a link to $(readlink "$VENV"), where there is no bin/python" \
            "set that one up where it belongs, or remove the link, then run ./dev again"
        say "python: .venv is a link to $(readlink "$VENV"): taken as it is, though not of this requirements.txt"
        return 0
    fi
    say "python: $("$python" -V 2>&1) and the pinned packages of requirements.txt, into .venv"
    rm -f "$stamp"
    "$python" -m venv --clear "$VENV" >/dev/null 2>&1 ||
        die "'$python -m venv' failed" "on Debian: apt-get install python3-venv"
    run_logged "pip install" "$VENV/bin/python" -m pip install --disable-pip-version-check \
        --no-input --no-deps --require-hashes --only-binary :all: -r "$ROOT/requirements.txt" ||
        die "could not install the Python packages of requirements.txt into .venv:" \
            "$(sed -n 's/^\([A-Za-z0-9_.-]*==[^ ]*\).*/\1/p' "$ROOT/requirements.txt" | xargs)" \
            "they are downloaded from the Python package index; without network, point PIP_FIND_LINKS" \
            "at a folder that holds these wheels, then run ./dev again"
    printf '%s\n' "$want" >"$stamp"
}

# A system libllhttp >= 9.3 is preferred; Debian 12 has 8.1, which lacks fixes against smuggling.
setup_llhttp()
{
    local stamp=$LLHTTP_DIR/.stamp want tmp sdist
    if pkg-config --atleast-version=$LLHTTP_MIN libllhttp 2>/dev/null; then
        return 0
    fi
    want=$(sha256sum <"$ROOT/tools/setup/llhttp.txt")
    [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return 0
    say "llhttp: no system libllhttp >= $LLHTTP_MIN; taking its C sources from the pinned httptools sdist"
    tmp=$(mktemp -d)
    run_logged "pip download" "$VENV/bin/python" -m pip download --disable-pip-version-check \
        --no-input --no-deps --require-hashes --no-binary :all: -d "$tmp" \
        -r "$ROOT/tools/setup/llhttp.txt" || {
        rm -rf "$tmp"
        die "could not get the sources of llhttp (the sdist of httptools 0.9.0)" \
            "it is downloaded from the Python package index; without network, point PIP_FIND_LINKS at a" \
            "folder that holds httptools-0.9.0.tar.gz, or install a libllhttp >= $LLHTTP_MIN that" \
            "pkg-config finds, then run ./dev again"
    }
    sdist=$(echo "$tmp"/httptools-*.tar.gz)
    rm -rf "$LLHTTP_DIR"
    mkdir -p "$LLHTTP_DIR"
    tar -xzf "$sdist" -C "$LLHTTP_DIR" --no-same-owner --strip-components=3 --wildcards '*/vendor/llhttp/include' \
        '*/vendor/llhttp/src' '*/vendor/llhttp/LICENSE*'
    rm -rf "$tmp"
    [ -f "$LLHTTP_DIR/include/llhttp.h" ] && [ -f "$LLHTTP_DIR/src/llhttp.c" ] ||
        die "the httptools sdist does not hold vendor/llhttp as expected"
    printf '%s\n' "$want" >"$stamp"
}

# h2spec, the conformance suite of HTTP/2, where Go can build it. Without it the test that runs it says that it is skipped.
setup_h2spec()
{
    local tools=$ROOT/build/tools
    if [ -n "${H2SPEC:-}" ] || command -v h2spec >/dev/null || [ -x "$tools/bin/h2spec" ]; then
        return 0
    fi
    if ! command -v go >/dev/null; then
        say "h2spec: no Go here to build it with; the conformance test of HTTP/2 will be skipped"
        return 0
    fi
    say "h2spec: building $H2SPEC_MODULE with Go"
    run_logged "go install h2spec" env GOBIN="$tools/bin" GOPATH="$tools/go" GOFLAGS=-modcacherw \
        go install "$H2SPEC_MODULE" ||
        say "h2spec: Go could not build it (the log is above); the conformance test of HTTP/2 will be skipped"
    rm -rf "$tools/go"
}

# Debian's Prometheus for the demo, unpacked and not installed: an installed one would be a service of
# this machine. Without it the demo says so and asks the proxies alone.
setup_prometheus()
{
    local got=$ROOT/build/tools/prometheus
    if command -v prometheus >/dev/null || [ -x "$got/usr/bin/prometheus" ]; then
        return 0
    fi
    if ! command -v apt-get >/dev/null; then
        say "prometheus: no apt here to get it with; step 10 of the demo asks the proxies alone"
        return 0
    fi
    say "prometheus: unpacking Debian's package into build/tools/prometheus (it is not installed)"
    rm -rf "$got.new"
    mkdir -p "$got.new"
    if run_logged "apt-get download prometheus" sh -c 'cd "$1" && { apt-get download -q prometheus ||
        { [ "$(id -u)" -eq 0 ] && apt-get update -q && apt-get download -q prometheus; }; }' sh "$got.new" &&
        run_logged "unpack prometheus" sh -c 'dpkg-deb -x "$1"/prometheus_*.deb "$1" && rm "$1"/*.deb' sh "$got.new"; then
        mv "$got.new" "$got"
    else
        rm -rf "$got.new"
        say "prometheus: could not be had (without network: install the package prometheus by other means)." \
            "Step 10 of the demo asks the proxies alone."
    fi
}

# setup GROUP...: everything that a command with these package groups needs.
setup()
{
    setup_packages "$@"
    setup_venv
    setup_llhttp
}
