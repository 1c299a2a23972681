#!/bin/sh
# Prints the path of a tool's binary, which it first builds when this version of
# it has not been built yet: build.sh helm3, helm4 or kubeconform. A module each,
# since two majors of Helm do not agree on their dependencies; go.sum pins all.
#
# The binary lies in the user's cache folder under a hash of the module's files,
# and appears there by a rename, so that an interrupted or a concurrent build
# never leaves half a file.
set -eu
cd "$(dirname "$0")"
tool=$1
hash=$(cat build.sh "$tool/go.mod" "$tool/go.sum" | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/poolwright
binary=$cache/$tool-$hash
if [ ! -x "$binary" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/$tool.lock"
    flock 9
    if [ ! -x "$binary" ]; then
        cd "$tool"
        package=$(sed -n 's/^tool //p' go.mod)
        version=$(sed -n "s|^[[:space:]]*${package%/cmd/*} \(v[^ ]*\).*|\1|p" go.mod)
        echo "building $package $version: this takes some minutes, once" >&2
        flags="-s -w"
        # Which Kubernetes Helm renders for where no cluster is asked; left alone it would be 1.20.
        minor=$(sed -n 's|^[[:space:]]*k8s.io/client-go v0\.\([0-9]*\)\..*|\1|p' go.mod)
        for variable in pkg/chartutil pkg/lint/rules; do
            [ "$tool" = helm3 ] || break
            flags="$flags -X helm.sh/helm/v3/$variable.k8sVersionMajor=1 -X helm.sh/helm/v3/$variable.k8sVersionMinor=$minor"
        done
        temporary=$binary.partial.$$
        CGO_ENABLED=0 nice go build -mod=readonly -trimpath -ldflags "$flags" -o "$temporary" "$package" >&2
        mv "$temporary" "$binary"
        cd ..
    fi
    exec 9>&-
fi
echo "$binary"
