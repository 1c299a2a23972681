#!/bin/sh
# build.sh 2|3: prints the folder of a worker image for the local node: DIR/bin
# holds that major version of Apache Airflow, DIR/app/dags the tests' DAGs. It is
# made once per version of these files, from packages pinned by hash, in the
# user's cache folder. The scripts of a virtual environment name its path, so it
# cannot be renamed into place: a lock guards it, and the mark `.complete` is
# written last.
set -eu
cd "$(dirname "$0")"
major=${1:-}
case $major in 2 | 3) ;; *)
    echo "usage: build.sh 2|3" >&2
    exit 2
    ;;
esac
lock=requirements-$major.txt
sitecustomize=../celery/sitecustomize.py
python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
hash=$( (echo "$version"; cat build.sh requirements-uv.txt "$lock" "$sitecustomize" dags/*.py) | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/poolwright
environment=$cache/airflow$major-$hash
if [ ! -e "$environment/.complete" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/airflow$major.lock"
    flock 9
    if [ ! -e "$environment/.complete" ]; then
        echo "installing Airflow $major into the cache folder, once" >&2
        rm -rf "$environment"
        "$python" -m venv "$environment" >&2
        # One after another, as pip fetches them, so many packages take minutes.
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
            --require-hashes --no-deps -r requirements-uv.txt >&2
        "$environment/bin/uv" pip install --quiet --no-cache --compile-bytecode \
            --python "$environment/bin/python" --require-hashes --no-deps -r "$lock" >&2
        cp "$sitecustomize" "$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
        mkdir -p "$environment/app/dags"
        cp dags/*.py "$environment/app/dags"
        touch "$environment/.complete"
    fi
    exec 9>&-
fi
echo "$environment"
