#!/bin/sh
# sbom.sh FILE: writes what the operator's binary is made of, as CycloneDX 1.5.
# It names every crate of the workspace's build that the binary may hold, with
# its licence. The C library, which the image's binary holds too, is no crate: it
# is that of Debian 12.
set -eu
file=$(realpath -m "$1")
cd "$(dirname "$0")/.."
cyclonedx=$(tests/tools/cargo.sh cargo-cyclonedx 0.5.9)
# It writes beside each manifest of the workspace, and nowhere else.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r Cargo.toml Cargo.lock operator tests "$work/"
# The same text whenever it is written.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0} "$cyclonedx" cyclonedx -q --manifest-path "$work/operator/Cargo.toml" \
    --format json --spec-version 1.5 --no-build-deps --describe binaries
# Paths of this machine say nothing to anybody, and blanks are a quarter of it.
sed "s|path+file://$work/|path+file:///|g; s/^ *//" "$work/operator/poolwright_bin.cdx.json" >"$work/sbom"
tr -d '\n' <"$work/sbom" >"$file"
