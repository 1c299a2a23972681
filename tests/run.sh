#!/bin/sh
# Runs the tests in groups, and says at the end how long each took. A group
# that fails does not keep the others from running; the exit code is 0 only
# when all passed. GROUPS_ONLY="unit harness" runs some of them.
set -u
cd "$(dirname "$0")/.."
: "${POOLWRIGHT_SCALE:=short}"
export POOLWRIGHT_SCALE RUST_BACKTRACE="${RUST_BACKTRACE:-0}"

report=
failed=
wanted=${GROUPS_ONLY:-}

known="setup fmt clippy deny unit harness install refusals redis rabbitmq faults parking dynamic outages rollouts lifecycle policies pools budgets demo"
for name in $wanted; do
    case " $known " in *" $name "*) ;; *)
        echo "there is no group $name; there are: $known" >&2
        exit 2
        ;;
    esac
done

group() { # group NAME COMMAND...
    name=$1
    shift
    case " ${wanted:-$name} " in *" $name "*) ;; *) return ;; esac
    echo "== $name"
    began=$(date +%s)
    if "$@"; then result=passed; else result=FAILED failed=1; fi
    seconds=$(($(date +%s) - began))
    report="$report$(printf '%-12s %3d min %02d s   %s' "$name" $((seconds / 60)) $((seconds % 60)) "$result")
"
}

setup() { tests/deps.sh && tests/controlplane/build.sh && tests/celery/build.sh; }
unit() { cargo test --workspace --exclude poolwright-tests --locked && cargo test --workspace --lib --locked -- node:: demo:: charges:: && cargo test --workspace --test documents --locked; }
# Always the whole workspace, so that every group builds dependencies with the same features, once.
# Every test of the tests' crate shares one control plane and its node.
on_plane() {
    cargo build --workspace --bins --locked && "${CARGO_TARGET_DIR:-target}/debug/poolwright-plane" -- "$@"
}
harness() { on_plane cargo test --workspace --test harness --locked; }
install() { on_plane cargo test --workspace --test install --locked; }
# Bad input, what a cluster refuses, and the pods themselves.
refusals() {
    on_plane cargo test --workspace --test bad_input --test refusals --test pods --locked -- --test-threads 3
}
# Workers, brokers and faults, end to end; three at a time, which is what two processors carry.
end_to_end() { on_plane cargo test --workspace --test "$1" --locked -- --test-threads 3; }
# What a person runs first: it must end well, and say so in its last line.
demo() {
    cargo build --workspace --bins --locked || return 1
    output=$("${CARGO_TARGET_DIR:-target}/debug/poolwright-demo")
    code=$?
    printf '%s\n' "$output"
    line='demo: published=200 completed=200 lost=0 killed=0 peak_replicas=[0-9]+ first_scale_up_seconds=[0-9.]+'
    [ "$code" = 0 ] && printf '%s\n' "$output" | tail -n 1 | grep -Eqx "$line"
}

group setup setup
group fmt cargo fmt --all --check
group clippy cargo clippy --workspace --all-targets --locked -- --deny warnings
group deny tests/deny.sh
group unit unit
group harness harness
group install install
group refusals refusals
for suite in redis rabbitmq faults parking dynamic outages rollouts lifecycle policies pools budgets; do group "$suite" end_to_end "$suite"; done
group demo demo

printf '\n%s' "$report"
[ -z "$failed" ]
