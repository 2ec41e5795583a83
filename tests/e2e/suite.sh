#!/bin/sh
# The end-to-end proof: real clients through Claviger, before the embedded provider and before a real store.
#
#   tests/e2e/suite.sh                 everything
#   tests/e2e/suite.sh embedded        claviger demo with the embedded provider; the files on disk are searched
#   tests/e2e/suite.sh rgw             a Ceph RGW behind a proxy that keeps what goes upstream; Claviger is restarted in the
#                                      middle; the capture is searched
#   tests/e2e/suite.sh lying           a provider that lies: no byte reaches a client that was not written there
#   tests/e2e/suite.sh fleet           a key service on PostgreSQL and gateways with different rights before Ceph RGW: uploads through several,
#                                      restarts, outages, refusals, malformed requests
#   tests/e2e/suite.sh accounts        clients with accounts of their own at Ceph RGW, and clients without a signature
#   tests/e2e/suite.sh operations      the chapters of docs/operations.md, each command as it stands there
#   tests/e2e/suite.sh recover         the key service is lost: everything comes back from ciphertext and recovery shares, by `claviger recover`,
#                                      before Ceph RGW every version
#   tests/e2e/suite.sh soak            a minute of mixed load with clients that vanish and clients that are slow (tests/soak)
#   tests/e2e/suite.sh doubles         doubles of the providers that can't be run here (Amazon S3, R2, B2, ...), each with its profile;
#                                      and uploads whose end is told twice
#   tests/e2e/suite.sh direct          no Claviger: the clients against both stores, which shows what the suite itself expects,
#                                      and the control that the leak check finds leaks
#
# CLAVIGER names the binary (default: target/release/claviger, built if it is not there), CLAVIGER_E2E_CLIENTS a
# comma-separated choice of clients, CLAVIGER_E2E_OUT the folder for logs and summaries.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${CLAVIGER_E2E_OUT:-$root/target/e2e}
clients_dir=${CLAVIGER_CLIENTS_DIR:-$root/target/clients}
claviger=${CLAVIGER:-$root/target/release/claviger}
checker=$clients_dir/boto3/bin/python
all=boto3,signatures,configuration,forms,fidelity,awscli,s3cmd,s5cmd,rclone,restic,minio,pyarrow,node,rust-sdk,rust-object-store,boto3-crt,s3fs,polars,duckdb,hadoop,registry,terraform,curl
# Before Ceph RGW also what the embedded provider can't do at all, and what takes long to set up: a PostgreSQL server, a mounted folder, Debian's programs.
only_rgw=versions,awscli-crt,duplicity,barman,s3fs-fuse
clients=${CLAVIGER_E2E_CLIENTS:-$all}
failed=""
pids=""

say() { echo "== $*" >&2; }

# Ends only what was started here.
cleanup() {
    status=$?
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    [ ! -e "$out/postgres/server.json" ] || "$root/tests/stores/postgres.py" stop --dir "$out/postgres" 2>/dev/null || true
    [ ! -d "$out/rgw" ] || "$root/tests/stores/rgw.py" stop --dir "$out/rgw" 2>/dev/null || true
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

await_file() {
    n=0
    while [ ! -s "$1" ]; do
        n=$((n + 1))
        if [ $n -gt 600 ]; then say "$1 did not appear"; return 1; fi
        if ! kill -0 "$2" 2>/dev/null; then say "the process behind $1 ended"; return 1; fi
        sleep 0.1
    done
}

# start_demo DIR [further options]: sets $demo_pid.
start_demo() {
    dir=$1
    shift
    rm -f "$dir.ready"
    "$claviger" demo --dir "$dir" --listen "${demo_listen:-127.0.0.1:0}" --ready-file "$dir.ready" "$@" >>"$dir.log" 2>&1 &
    demo_pid=$!
    pids="$pids $demo_pid"
    await_file "$dir.ready" $demo_pid || { tail -30 "$dir.log" >&2; return 1; }
}

stop_demo() {
    kill -INT "$1"
    wait "$1" || { say "claviger demo ended with $?"; failed="$failed stop"; }
}

# run TARGET CLIENTS SUMMARY: the environment names the endpoint.
run() {
    python3 "$here/run.py" --target "$1" --clients "$2" --summary "$out/$3.json"
}

# What clients sign with must not reach a store either.
client_secrets() { (. "$1/credentials.env" && printf '%s\n%s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY") >"$2"; }

embedded() {
    say "claviger demo with the embedded provider"
    rm -rf "$out/demo" "$out/demo.log"
    start_demo "$out/demo"
    (. "$out/demo/credentials.env" && run claviger "$clients" embedded) || failed="$failed embedded"
    # The suites delete what they made, so something has to stay to be searched on disk.
    (. "$out/demo/credentials.env" && "$checker" "$here/leave_behind.py" put)
    client_secrets "$out/demo" "$out/demo.secrets"
    "$checker" "$here/leak_check.py" --also "$out/demo.secrets" "$out/demo/provider" || failed="$failed embedded-leaks"
    say "restart; what was stored is there"
    stop_demo $demo_pid
    start_demo "$out/demo"
    (. "$out/demo/credentials.env" && "$checker" "$here/leave_behind.py" check) || failed="$failed embedded-restart"
    stop_demo $demo_pid
}

start_rgw() {
    "$root/tests/stores/rgw.py" start --dir "$out/rgw" --install
}

# start_capture TO DIR: sets $capture to the proxy's address.
start_capture() {
    rm -rf "$2" "$2.ready"
    python3 "$here/capture_proxy.py" --to "$1" --into "$2" --ready-file "$2.ready" &
    capture_pid=$!
    pids="$pids $capture_pid"
    await_file "$2.ready" $capture_pid
    capture=$(cat "$2.ready")
}

rgw() {
    say "claviger demo before Ceph RGW, upstream bytes captured"
    rm -rf "$out/rgwdemo" "$out/rgwdemo.log"
    start_rgw
    upstream=$(. "$out/rgw/rgw.env" && echo "${AWS_ENDPOINT_URL#http://}")
    start_capture "$upstream" "$out/capture"
    (umask 077 && . "$out/rgw/rgw.env" && printf 'access_key_id = "%s"\nsecret_access_key = "%s"\n' \
        "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$out/upstream.toml")
    set -- --upstream "http://$capture" --upstream-region us-east-1 --upstream-credentials "$out/upstream.toml" --plain-tags
    start_demo "$out/rgwdemo" "$@"
    (. "$out/rgwdemo/credentials.env" && "$checker" "$here/leave_behind.py" put) || failed="$failed rgw-put"
    first=${clients%%,*}
    rest=${clients#*,}
    [ "$clients" != "$all" ] || rest=$rest,$only_rgw
    (. "$out/rgwdemo/credentials.env" && run claviger-rgw "$first" rgw-1) || failed="$failed rgw-1"
    say "restart of gateway and key service in the middle"
    stop_demo $demo_pid
    start_demo "$out/rgwdemo" "$@"
    (. "$out/rgwdemo/credentials.env" && "$checker" "$here/leave_behind.py" check) || failed="$failed rgw-restart"
    if [ "$rest" != "$clients" ]; then
        (. "$out/rgwdemo/credentials.env" && run claviger-rgw "$rest" rgw-2) || failed="$failed rgw-2"
    fi
    stop_demo $demo_pid
    client_secrets "$out/rgwdemo" "$out/rgwdemo.secrets"
    "$checker" "$here/leak_check.py" --also "$out/rgwdemo.secrets" "$out/capture" || failed="$failed rgw-leaks"
    kill $capture_pid
    "$root/tests/stores/rgw.py" stop --dir "$out/rgw"
}

direct() {
    say "no Claviger: the clients against the embedded provider, and against Ceph RGW"
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p claviger-provider --example provider
    rm -rf "$out/provider" "$out/provider.ready"
    "${CARGO_TARGET_DIR:-$root/target}/debug/examples/provider" --dir "$out/provider" --listen 127.0.0.1:0 \
        --ready-file "$out/provider.ready" &
    provider_pid=$!
    pids="$pids $provider_pid"
    await_file "$out/provider.ready" $provider_pid
    export AWS_ACCESS_KEY_ID=provider AWS_SECRET_ACCESS_KEY=provider-secret AWS_REGION=us-east-1
    AWS_ENDPOINT_URL=$(cat "$out/provider.ready") run provider "$clients" direct-provider || failed="$failed direct-provider"
    say "control: without Claviger the leak check has to find leaks"
    start_capture "$(sed 's|http://||' "$out/provider.ready")" "$out/control"
    AWS_ENDPOINT_URL="http://$capture" "$checker" "$here/leave_behind.py" put
    kill $capture_pid
    "$checker" "$here/leak_check.py" --expect-leaks "$out/control" >/dev/null || failed="$failed control"
    kill $provider_pid
    start_rgw
    # shellcheck disable=SC1091 # written by rgw.py
    (. "$out/rgw/rgw.env" && run rgw "$clients" direct-rgw) || failed="$failed direct-rgw"
    "$root/tests/stores/rgw.py" stop --dir "$out/rgw"
}

lying() {
    say "a provider that lies"
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p claviger-testkit --example liar
    liar=${CARGO_TARGET_DIR:-$root/target}/debug/examples/liar
    "$checker" "$here/lying.py" --control --rounds 50 --liar "$liar" >/dev/null || failed="$failed lying-control"
    rm -rf "$out/lying"
    "$checker" "$here/lying.py" --claviger "$claviger" --liar "$liar" --seed "${CLAVIGER_E2E_SEED:-1}" \
        --received "$out/lying/received" || failed="$failed lying"
    "$checker" "$here/leak_check.py" "$out/lying" || failed="$failed lying-leaks"
}

doubles() {
    say "doubles of providers that can't be run here"
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p claviger-testkit --example store_double
    "$checker" "$here/doubles.py" --claviger "$claviger" \
        --double "${CARGO_TARGET_DIR:-$root/target}/debug/examples/store_double" || failed="$failed doubles"
    "$checker" "$here/uploads.py" --claviger "$claviger" \
        --double "${CARGO_TARGET_DIR:-$root/target}/debug/examples/store_double" || failed="$failed uploads"
}

fleet() {
    say "a key service on PostgreSQL and five gateways as processes of their own, before Ceph RGW"
    start_rgw
    "$root/tests/stores/postgres.py" start --dir "$out/postgres" --install
    # shellcheck disable=SC1091 # written by rgw.py
    (. "$out/rgw/rgw.env" && "$checker" "$here/fleet.py" --claviger "$claviger" --endpoint "$AWS_ENDPOINT_URL" \
        --access-key-id "$AWS_ACCESS_KEY_ID" --secret-access-key "$AWS_SECRET_ACCESS_KEY" --postgres "$out/postgres") || failed="$failed fleet"
    "$root/tests/stores/postgres.py" stop --dir "$out/postgres"
    "$root/tests/stores/rgw.py" stop --dir "$out/rgw"
}

recover() {
    say "the key service is lost; recovery shares are left"
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p claviger-provider --example provider
    "$checker" "$here/recover.py" --claviger "$claviger" \
        --provider "${CARGO_TARGET_DIR:-$root/target}/debug/examples/provider" || failed="$failed recover"
    say "every version, from a store that has versions"
    start_rgw
    # shellcheck disable=SC1091 # written by rgw.py
    (. "$out/rgw/rgw.env" && "$checker" "$here/recover_versions.py" --claviger "$claviger" --endpoint "$AWS_ENDPOINT_URL" \
        --access-key-id "$AWS_ACCESS_KEY_ID" --secret-access-key "$AWS_SECRET_ACCESS_KEY") || failed="$failed recover-versions"
    "$root/tests/stores/rgw.py" stop --dir "$out/rgw"
}

accounts() {
    say "clients with accounts of their own, and without any, before Ceph RGW"
    start_rgw
    "$checker" "$here/accounts.py" --claviger "$claviger" --rgw "$out/rgw" || failed="$failed accounts"
    "$root/tests/stores/rgw.py" stop --dir "$out/rgw"
}

operations() {
    say "the chapters of docs/operations.md"
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p claviger-provider --example provider
    "$root/tests/stores/postgres.py" start --dir "$out/postgres" --install
    "$checker" "$here/operations.py" --claviger "$claviger" --postgres "$out/postgres" \
        --provider "${CARGO_TARGET_DIR:-$root/target}/debug/examples/provider" || failed="$failed operations"
    "$root/tests/stores/postgres.py" stop --dir "$out/postgres"
}

soak() {
    say "a minute of mixed load"
    python3 "$root/tests/soak/judge.py" --self-test
    "$checker" "$root/tests/soak/soak.py" --claviger "$claviger" --minutes 0.75 --huge-mib 128 --clients 4 \
        --seed "${CLAVIGER_E2E_SEED:-1}" --out "$out/soak" || failed="$failed soak"
}

mkdir -p "$out"
[ "${CLAVIGER_E2E_SETUP:-yes}" = no ] || "$root/tests/clients/setup.sh"
"$checker" "$here/leak_check.py" --self-test
parts=${*:-direct embedded lying doubles recover rgw fleet accounts operations soak}
case $parts in
    *embedded* | *rgw* | *lying* | *doubles* | *recover* | *fleet* | *accounts* | *operations* | *soak*)
        [ -x "$claviger" ] || cargo build --release --manifest-path "$root/Cargo.toml" -p claviger ;;
esac
for part in $parts; do
    case $part in
        direct) direct ;;
        embedded) embedded ;;
        lying) lying ;;
        doubles) doubles ;;
        recover) recover ;;
        rgw) rgw ;;
        fleet) fleet ;;
        soak) soak ;;
        accounts) accounts ;;
        operations) operations ;;
        *) say "unknown part: $part"; exit 2 ;;
    esac
done
if [ -n "$failed" ]; then
    say "failed:$failed"
    exit 1
fi
say "all of it passed: $parts"
