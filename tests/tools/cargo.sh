#!/bin/sh
# cargo.sh NAME VERSION: builds a tool of crates.io once, into the user's cache
# folder, which takes minutes on two processors, and prints where it is.
set -eu
name=$1
version=$2
root=${XDG_CACHE_HOME:-$HOME/.cache}/poolwright/$name-$version
if [ ! -x "$root/bin/$name" ]; then
    mkdir -p "$(dirname "$root")"
    exec 9>"$root.lock"
    flock 9
    if [ ! -x "$root/bin/$name" ]; then
        echo "building $name $version: this takes some minutes, once" >&2
        # Its own target folder: the workspace's flags and features are none of its business.
        CARGO_TARGET_DIR=$root.target nice cargo install --quiet --locked --root "$root" "$name@$version" >&2
        rm -rf "$root.target"
    fi
    exec 9>&-
fi
echo "$root/bin/$name"
