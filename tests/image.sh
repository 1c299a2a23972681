#!/bin/sh
# Holds the image to what is said of it, as far as that goes without a container
# engine. Always: what hadolint says of the Dockerfiles, that the last stage is
# empty but for what is copied, its user's number, and that the list of what the
# binary is made of lacks no crate and no licence. In full, which takes half
# an hour and more on two processors: the binary is built as the Dockerfile does
# it, twice, and must be the same both times; buildah puts the last stage together,
# which must be small enough; and it runs as that user where nothing is but the
# files of the image, and looks names up there.
set -eu
cd "$(dirname "$0")/.."
bytes_max=20000000

hadolint() { # hadolint FILE...
    python=${PYTHON:-python3}
    pins=tests/tools/hadolint.txt
    root=${XDG_CACHE_HOME:-$HOME/.cache}/poolwright/hadolint-$(sha256sum <"$pins" | cut -c1-16)
    if [ ! -e "$root/.complete" ]; then
        mkdir -p "$(dirname "$root")"
        exec 9>"$root.lock"
        flock 9
        if [ ! -e "$root/.complete" ]; then
            rm -rf "$root"
            "$python" -m venv "$root" >&2
            "$root/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$pins" >&2
            touch "$root/.complete"
        fi
        exec 9>&-
    fi
    "$root/bin/hadolint" "$@"
}

fail() {
    echo "Error: $*" >&2
    exit 1
}

hadolint Dockerfile tests/celery/Dockerfile
stage=$(sed -n '/^FROM /h; /^FROM /!H; ${x;p}' Dockerfile)
printf '%s\n' "$stage" | grep -qx 'FROM scratch' || fail "the last stage of the Dockerfile is not empty"
user=$(printf '%s\n' "$stage" | sed -n 's/^USER \([0-9]*:[0-9]*\)$/\1/p')
[ "${user%:*}" -ge 10000 ] 2>/dev/null || fail "the image's user is no number from 10000 on: '$user'"
flags=$(sed -n "s/.*RUSTFLAGS='\([^']*\)'.*/\1/p" Dockerfile)
[ -n "$flags" ] || fail "the Dockerfile has no RUSTFLAGS"
echo "image: hadolint has nothing to say, user=$user flags=$flags"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
deploy/sbom.sh "$work/sbom.json"
cargo tree --locked -p poolwright -e normal --prefix none --format '{p}' | sed 's/ (.*//; s/ v/@/' | sort -u >"$work/crates"
"${PYTHON:-python3}" - "$work" <<'END' || fail "the list of what it is made of is not whole"
import json, sys
with open(sys.argv[1] + "/sbom.json") as file:
    listed = json.load(file)
with open(sys.argv[1] + "/crates") as file:
    crates = set(file.read().split())
all_of_it = [listed["metadata"]["component"], *listed["components"]]
missing = crates - {one["name"] + "@" + one["version"] for one in all_of_it}
bare = [one["name"] for one in all_of_it if not one.get("licenses")]
print(f"image: crates={len(crates)} listed={len(all_of_it)} missing={len(missing)} without_licence={len(bare)}")
sys.exit(bool(missing or bare) or len(crates) < 100)
END
[ "${POOLWRIGHT_SCALE:-short}" = full ] || exit 0

# Before the builds: what is missing after them costs twenty minutes.
tests/deps.sh

[ "$(id -u)" = 0 ] || fail "to run a program in an empty folder, as another user, takes root"
host=$(rustc --print host-tuple)
# In one place both times, as in a container.
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/image-check
build() { # build FILE
    rm -rf "$folder"
    CARGO_TARGET_DIR=$folder RUSTFLAGS=$flags cargo build --profile image --locked --package poolwright --target "$host"
    mv "$folder/$host/image/poolwright" "$1"
}

root=$work/root
context=$work/context
mkdir -p "$root" "$context/etc/ssl/certs"
chmod 755 "$work" "$root"
build "$context/poolwright"
echo "image: binary=$(stat -c %s "$context/poolwright") sha256=$(sha256sum <"$context/poolwright" | cut -d' ' -f1)"
cp "$work/sbom.json" "$context/poolwright.cdx.json"
cp -L /etc/ssl/certs/ca-certificates.crt "$context/etc/ssl/certs/"
starts=$(tests/tools/assemble.sh Dockerfile "$context" "$root")
files=$(cd "$root" && find . -type f | sort | tr '\n' ' ')
bytes=$(cat "$root/poolwright" "$root/poolwright.cdx.json" "$root/etc/ssl/certs/ca-certificates.crt" | wc -c)
echo "image: bytes=$bytes files=$files$starts"
[ "$files" = "./etc/ssl/certs/ca-certificates.crt ./poolwright ./poolwright.cdx.json " ] || fail "the image has other files"
[ "$starts" = "user=$user starts=/poolwright run" ] || fail "the image starts otherwise"
[ "$bytes" -lt "$bytes_max" ] || fail "the image has $bytes bytes, which must be less than $bytes_max"

alone() { chroot --userspec="$user" "$root" /poolwright "$@"; } # alone ARGUMENT...
alone --version
kinds=$(alone crd | grep -c '^kind: CustomResourceDefinition$')
[ "$kinds" = 3 ] || fail "crd printed $kinds definitions, not 3"
echo "image: runs as $user where nothing else is"

# What an image gets of its node: devices, and where to ask for names. And an account.
mkdir "$root/dev"
mknod -m 666 "$root/dev/random" c 1 8
mknod -m 666 "$root/dev/urandom" c 1 9
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
cat >"$root/kubeconfig" <<'END'
apiVersion: v1
kind: Config
current-context: it
contexts: [{name: it, context: {cluster: it, user: it}}]
clusters: [{name: it, cluster: {server: "http://api.poolwright.test:8001"}}]
users: [{name: it, user: {}}]
END
# A network of its own, for the port of a name server.
export root user
# shellcheck disable=SC2016
unshare --net sh -euc '
    ip link set lo up
    python3 tests/tools/names.py &
    names=$!
    sleep 1
    KUBECONFIG=/kubeconfig chroot --userspec="$user" "$root" /poolwright run 2>"$root.log" &
    program=$!
    trap "kill $program $names 2>/dev/null || :" EXIT
    wait $names
' || {
    tail -n 20 "$root.log" >&2
    fail "it did not find its way by names"
}

build "$work/again"
cmp "$context/poolwright" "$work/again" || fail "built twice, it is not the same"
echo "image: built twice, it is the same"
rm -rf "$folder"
