#!/bin/sh
# Prints the folder of a worker image for the local node: DIR/bin holds python
# and celery, DIR/app the tests' Celery app. It is made once per version of
# these files, from packages pinned by hash, in the user's cache folder. The
# scripts of a virtual environment name its path, so it cannot be renamed into
# place: a lock guards it, and the mark `.complete` is written last.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
hash=$( (echo "$version"; cat build.sh requirements.txt sitecustomize.py app/*.py) | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/poolwright
image=$cache/celery-$hash
if [ ! -e "$image/.complete" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/celery.lock"
    flock 9
    if [ ! -e "$image/.complete" ]; then
        echo "installing Celery into the cache folder, once" >&2
        rm -rf "$image"
        "$python" -m venv "$image" >&2
        "$image/bin/python" -m pip install --quiet --disable-pip-version-check \
            --require-hashes --no-deps -r requirements.txt >&2
        cp sitecustomize.py "$("$image/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
        mkdir "$image/app"
        cp app/*.py "$image/app"
        "$image/bin/python" -m compileall -q "$image/app" >&2
        touch "$image/.complete"
    fi
    exec 9>&-
fi
echo "$image"
