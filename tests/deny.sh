#!/bin/sh
# Holds the dependencies to .deny.toml. cargo-deny is built once, into the
# user's cache folder: five minutes on two processors.
set -eu
cd "$(dirname "$0")/.."
version=0.20.2
root=${XDG_CACHE_HOME:-$HOME/.cache}/poolwright/cargo-deny-$version
if [ ! -x "$root/bin/cargo-deny" ]; then
    mkdir -p "$(dirname "$root")"
    exec 9>"$root.lock"
    flock 9
    if [ ! -x "$root/bin/cargo-deny" ]; then
        echo "building cargo-deny $version: this takes some minutes, once" >&2
        # Its own target folder: the workspace's flags and features are none of its business.
        CARGO_TARGET_DIR=$root.target nice cargo install --quiet --locked --root "$root" "cargo-deny@$version" >&2
        rm -rf "$root.target"
    fi
    exec 9>&-
fi
exec "$root/bin/cargo-deny" --locked --config .deny.toml check --hide-inclusion-graph bans licenses sources
