#!/bin/sh
# Real S3 clients for the end-to-end tests, each in an environment of its own under target/clients.
#
#   tests/clients/setup.sh            all of them
#   tests/clients/setup.sh boto3 node only these: boto3 awscli s3cmd minio pyarrow s5cmd polars duckdb rclone restic node rust,
#                                     and those that only run before Ceph RGW: barman duplicity s3fs-fuse awscli-crt
#
# Versions are pinned in python/*.txt, node/package-lock.json and rust/Cargo.lock. One environment per Python client:
# their dependencies contradict each other. A second run finds everything in place and takes no time.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${CLAVIGER_CLIENTS_DIR:-$root/target/clients}
mkdir -p "$out"

say() { echo "clients: $*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# The given Debian packages, if a program of that name is missing.
debian() {
    missing=""
    for program in "$@"; do command -v "$program" >/dev/null || missing="$missing $program"; done
    [ -z "$missing" ] && return
    say "installing$missing"
    as_root apt-get update -q >&2
    # shellcheck disable=SC2086 # a list of package names
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -q --no-install-recommends $missing >&2
}

# A Debian package, if a program at this path is missing.
debian_package() {
    ls $2 >/dev/null 2>&1 && return
    say "installing $1"
    as_root apt-get update -q >&2
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -q --no-install-recommends "$1" >&2
}

uv() {
    if [ ! -x "$out/uv/bin/uv" ]; then
        python3 -m venv "$out/uv"
        "$out/uv/bin/pip" install -q uv
    fi
    "$out/uv/bin/uv" "$@"
}

python_client() {
    pins="$here/python/$1.txt"
    if ! cmp -s "$pins" "$out/$1/pins.txt"; then
        say "$1"
        rm -rf "${out:?}/$1"
        uv venv -q "$out/$1"
        uv pip install -q --python "$out/$1/bin/python" -r "$pins"
        cp "$pins" "$out/$1/pins.txt"
    fi
}

node_client() {
    if ! command -v node >/dev/null; then debian nodejs npm; fi
    if ! cmp -s "$here/node/package-lock.json" "$out/node/pins.json"; then
        say "node"
        mkdir -p "$out/node"
        cp "$here/node/package.json" "$here/node/package-lock.json" "$out/node/"
        (cd "$out/node" && npm ci --no-audit --no-fund --loglevel=error >&2)
        cp "$here/node/package-lock.json" "$out/node/pins.json"
    fi
    cp "$here"/node/*.mjs "$out/node/"
}

rust_client() {
    say "rust"
    cargo build --quiet --manifest-path "$here/rust/Cargo.toml" --target-dir "$out/rust"
}

[ $# -gt 0 ] || set -- boto3 awscli s3cmd minio pyarrow s5cmd polars duckdb rclone restic node rust \
    barman duplicity s3fs-fuse awscli-crt
for client in "$@"; do
    case $client in
        boto3 | awscli | s3cmd | minio | pyarrow | s5cmd | polars | duckdb) python_client "$client" ;;
        barman)
            debian_package postgresql "/usr/lib/postgresql/*/bin/initdb"
            python_client "$client" ;;
        rclone | restic) debian "$client" ;;
        duplicity)
            debian_package python3-boto3 /usr/lib/python3/dist-packages/boto3/__init__.py
            debian_package duplicity /usr/bin/duplicity ;;
        s3fs-fuse) debian_package s3fs /usr/bin/s3fs ;;
        awscli-crt) debian_package awscli /usr/bin/aws ;;
        node) node_client ;;
        rust) rust_client ;;
        *) say "unknown client: $client"; exit 2 ;;
    esac
done
