#!/bin/sh
# Holds the dependencies to .deny.toml.
set -eu
cd "$(dirname "$0")/.."
deny=$(tests/tools/cargo.sh cargo-deny 0.20.2)
exec "$deny" --locked --config .deny.toml check --hide-inclusion-graph bans licenses sources
