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

known="setup fmt clippy doc deny unit harness install refusals redis rabbitmq faults parking dynamic outages rollouts lifecycle policies pools lane budgets demo suite"
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
# Both policies and every peer: on six workloads, and in full on all of them, which only an optimised build is done with
# in its ten minutes.
suite_seconds_max=600
suite() {
    page=$(mktemp -d) || return 1
    suite_began=$(date +%s)
    if [ "$POOLWRIGHT_SCALE" = full ]; then
        cargo build --release --locked -p poolwright || return 1
        suite_began=$(date +%s)
        simulated release --seeds 5 || return 1
    else
        cargo build --workspace --bins --locked || return 1
        simulated debug --seeds 2 --workload steady --workload long --workload cron --workload square \
            --workload pool-shrink --workload outage || return 1
    fi
    suite_took=$(($(date +%s) - suite_began))
    cat "$page/table.txt"
    echo "the suite took $suite_took s, and may take $suite_seconds_max; its page is $page/index.html"
    [ -s "$page/index.html" ] && blameless "$page/table.txt" && [ "$suite_took" -le "$suite_seconds_max" ]
}
simulated() { # simulated PROFILE OPTION...
    program=${CARGO_TARGET_DIR:-target}/$1/poolwright
    shift
    # Three times what it may take tells how slow it was, and is no hang.
    timeout $((3 * suite_seconds_max)) "$program" simulate --suite "$@" --report "$page" >"$page/table.txt"
}
# What the default policy may not have, and but for pods that go after a whole window of zeros, Backlog. Columns are
# counted from the end, for a ratio is several words.
blameless() {
    awk '
        $1 == "contender" { for (i = 1; i <= NF; i++) from_end[$i] = NF - i; next }
        $1 == "poolwright" || $1 == "poolwright-backlog" {
            rows++
            for (i = split("killed overshoot blind", heads); i > 0; i--)
                if (!(heads[i] in from_end) || $(NF - from_end[heads[i]]) != 0 && (heads[i] != "blind" || $1 == "poolwright")) {
                    print $1 " has something in the column " heads[i] ", which must be 0"
                    bad = 1
                }
        }
        END { if (rows != 2) print "the table has " rows + 0 " rows of Poolwright, not 2"; exit bad || rows != 2 }
    ' "$1" >&2
}

group setup setup
group fmt cargo fmt --all --check
group clippy cargo clippy --workspace --all-targets --locked -- --deny warnings
group doc env RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked
group deny tests/deny.sh
group unit unit
group harness harness
group install install
group refusals refusals
for suite in redis rabbitmq faults parking dynamic outages rollouts lifecycle policies pools lane budgets; do group "$suite" end_to_end "$suite"; done
group demo demo
group suite suite

printf '\n%s' "$report"
[ -z "$failed" ]
