#!/bin/sh
# assemble.sh DOCKERFILE CONTEXT ROOT: builds the last stage of a Dockerfile with
# buildah, which needs no daemon. What the stage copies from another one comes
# from the folder CONTEXT. Writes the files of the image into the folder ROOT, and
# prints its user and how it is started.
set -eu
dockerfile=$1
context=$2
root=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$work/policy.json"
sed -n '/^FROM /h; /^FROM /!H; ${x;p}' "$dockerfile" | sed 's/^COPY --from=[a-z]* /COPY /' >"$work/Dockerfile"
ours() { # ours COMMAND ARGUMENT...
    buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}
ours build --quiet --isolation chroot --signature-policy "$work/policy.json" -f "$work/Dockerfile" -t image "$context" >&2
container=$(ours from --signature-policy "$work/policy.json" --pull-never image)
mkdir -p "$root"
mounted=$(ours mount "$container")
cp -a "$mounted/." "$root/"
ours umount "$container" >/dev/null
ours inspect --type image image | "${PYTHON:-python3}" -c '
import json, sys
config = json.load(sys.stdin)["OCIv1"]["config"]
print("user=" + config["User"], "starts=" + " ".join(config["Entrypoint"] + config["Cmd"]))'
