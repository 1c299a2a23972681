#!/bin/sh
# Installs what the tests need and this machine lacks. Services that packages
# bring are not started: the tests run their own servers on ports of their own.
set -eu

missing=
need() { # need PACKAGE COMMAND...
    package=$1
    shift
    for command in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null 2>&1 || [ -x "$command" ] || {
            missing="$missing $package"
            return
        }
    done
}
need redis-server redis-server
need rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server
need erlang-base epmd
need postgresql /usr/lib/postgresql/*/bin/initdb
need gcc cc
need make make
need git git
need util-linux setpriv flock unshare
need iproute2 ip
need python3 python3
need curl curl
need prometheus promtool
[ "${POOLWRIGHT_SCALE:-short}" != full ] || need buildah buildah
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"

for tool in cargo go; do
    command -v "$tool" >/dev/null 2>&1 || {
        echo "$tool is missing: install the toolchains of Rust and Go first" >&2
        exit 1
    }
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "install these packages first:$missing" >&2
    exit 1
fi

echo "installing:$missing" >&2
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # The file by which a Debian system says that packages may not start services.
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
log=$(mktemp)
# shellcheck disable=SC2086
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
rm -f "$log"
