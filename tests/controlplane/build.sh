#!/bin/sh
# Prints the path of the control plane binary, which it first builds when this
# version of the module has not been built yet (6 to 10 minutes on two cores
# with cold caches; afterwards nothing). The binary lies in the user's cache
# folder under a hash of the module's files, and appears there by a rename, so
# that an interrupted or a concurrent build never leaves half a file.
set -eu
cd "$(dirname "$0")"
hash=$(cat build.sh go.mod go.sum main.go | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/poolwright
binary=$cache/controlplane-$hash
if [ ! -x "$binary" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/controlplane.lock"
    flock 9
    if [ ! -x "$binary" ]; then
        kubernetes=$(sed -n 's|^[[:space:]]*k8s.io/kubernetes \(v[0-9.]*\)$|\1|p' go.mod)
        minor=$(echo "$kubernetes" | cut -d. -f2)
        echo "building the control plane of Kubernetes $kubernetes: this takes some minutes, once" >&2
        flags="-s -w"
        for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
            flags="$flags -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=$minor"
            flags="$flags -X $package.gitTreeState=clean"
        done
        temporary=$binary.partial.$$
        CGO_ENABLED=0 nice go build -mod=readonly -trimpath -ldflags "$flags" -o "$temporary" . >&2
        mv "$temporary" "$binary"
    fi
    exec 9>&-
fi
echo "$binary"
