#!/bin/sh
# Runs the tests in groups, and says at the end how long each took, and why it
# failed. A group that fails does not keep the others from running; the exit
# code is 0 only when all passed. GROUPS_ONLY="unit harness" runs some of them.
set -u
cd "$(dirname "$0")/.."
: "${POOLWRIGHT_SCALE:=short}"
export POOLWRIGHT_SCALE RUST_BACKTRACE="${RUST_BACKTRACE:-0}"

report=
failed=
run_began=$(date +%s)
logs=$(mktemp -d) || exit 1
trap 'rm -rf "$logs"' EXIT
trap 'exit 130' INT TERM
wanted=${GROUPS_ONLY:-}
export POOLWRIGHT_RIGHTS="$logs/rights" POOLWRIGHT_LEAKS="$logs/leaks" POOLWRIGHT_ATTEMPTS="$logs/attempts"

# What the tests of workers, brokers and faults are of: asked for by name, one runs by itself.
parts="bad_input refusals pods redis rabbitmq faults parking dynamic outages rollouts lifecycle policies pools shards budgets"
known="setup fmt clippy doc deny image unit harness chart install workers lane airflow apiserver failover demo demo-airflow suite audit"
for name in $wanted; do
    case " $known $parts " in *" $name "*) ;; *)
        echo "there is no group $name; there are: $known; and of workers: $parts" >&2
        exit 2
        ;;
    esac
done

group() { # group NAME COMMAND...
    name=$1
    shift
    case " ${wanted:-$name} " in *" $name "*) ;; *) return ;; esac
    echo "== $name"
    log=$logs/$name
    began=$(date +%s)
    { "$@"; echo $? >"$log.code"; } 2>&1 | tee "$log"
    seconds=$(($(date +%s) - began))
    result=passed
    if [ "$(cat "$log.code")" != 0 ]; then
        result=FAILED
        failed="$failed $name"
    elif [ -e "$log.again" ]; then
        result="passed, but not at once: $(cat "$log.again")"
    fi
    report="$report$(printf '%-12s %3d min %02d s   %s' "$name" $((seconds / 60)) $((seconds % 60)) "$result")
"
}
# What a group that failed said of it: every panic and error, or its last words.
reasons() {
    for name in $failed; do
        printf '\n== %s has failed\n' "$name"
        grep -E -A 6 ' panicked at |^Error: ' "$logs/$name" | cut -c 1-600 | head -n 40 || :
        grep -Eq ' panicked at |^Error: ' "$logs/$name" || tail -n 12 "$logs/$name" | cut -c 1-600
    done
}

setup() {
    tests/deps.sh && tests/controlplane/build.sh && tests/celery/build.sh || return
    for tool in helm3 helm4 kubeconform; do tests/tools/build.sh "$tool" || return; done
    tests/airflow/build.sh 3 || return
    [ "$POOLWRIGHT_SCALE" != full ] || tests/airflow/build.sh 2
}
unit() { cargo test --workspace --exclude poolwright-tests --locked && cargo test --workspace --lib --locked -- node:: demo:: charges:: rights:: leaks:: victims:: attempts:: audit:: && cargo test --workspace --test documents --locked; }
# Always the whole workspace, so that every group builds dependencies with the same features, once.
# Every test of the tests' crate shares one control plane and its node.
on_plane() { # on_plane OPTION...
    cargo build --workspace --bins --locked &&
        "${CARGO_TARGET_DIR:-target}/debug/poolwright-plane" -- cargo test --workspace --locked --no-fail-fast "$@"
}
# Tests against servers, some at a time. They wait for what real processes do on a machine that may be busy: what has
# failed runs once more, alone, and the report says so. In full nothing gets a second chance. POOLWRIGHT_SHOW=1 prints what
# tests have measured, also of those that pass.
end_to_end() { # end_to_end THREADS FILES FILTER...
    threads=$1
    files=
    for file in $2; do files="$files --test $file"; done
    shift 2
    # shellcheck disable=SC2086
    on_plane $files -- "$@" --test-threads "$threads" ${POOLWRIGHT_SHOW:+--show-output} && return
    [ "$POOLWRIGHT_SCALE" != full ] || return 1
    broken "$log" && return 1
    sleep 1
    missed=$(sed -n 's/^test \([^ ]*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
    echo "== $name once more:" ${missed:-all of it}
    # shellcheck disable=SC2086
    on_plane $files -- --test-threads 1 ${POOLWRIGHT_SHOW:+--show-output} ${missed:+--exact} $missed && echo ${missed:-all of it} >"$log.again"
}
# What no machine is too slow for: a task lost, run twice or killed, a busy worker taken, a budget exceeded.
broken() { # broken LOG
    grep -Eq 'task .* started [0-9]+ times and ended|workers were killed|was asked to end|was exceeded [0-9]+ times|is still above its budget|^demo(-airflow)?: .*(lost|killed)=[1-9]' "$1"
}
# What a person runs first: it must end well, and say so in its last line.
demo() { demo_twice fleet 'demo: published=200 completed=200 lost=0 killed=0 peak_replicas=[0-9]+ first_scale_up_seconds=[0-9.]+'; }
demo_airflow() {
    tests/airflow/build.sh 3 >/dev/null &&
        demo_twice airflow 'demo-airflow: published=200 completed=200 lost=0 killed=0 run_again=0 peak_replicas=[0-9]+( [a-z0-9_]+=[0-9]+/[0-9]+){6} seconds=[0-9]+'
}
demo_twice() { # demo_twice WHAT LINE
    demo_once "$@" && return
    [ "$POOLWRIGHT_SCALE" != full ] && ! broken "$log" && demo_once "$@" && echo all of it >"$log.again"
}
demo_once() { # demo_once WHAT LINE
    cargo build --workspace --bins --locked || return 1
    output=$("${CARGO_TARGET_DIR:-target}/debug/poolwright-demo" "$1")
    code=$?
    printf '%s\n' "$output"
    [ "$code" = 0 ] && printf '%s\n' "$output" | tail -n 1 | grep -Eqx "$2"
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
    [ -s "$page/index.html" ] && blameless "$page/table.txt" && [ "$suite_took" -le "$suite_seconds_max" ] || return 1
    [ "$POOLWRIGHT_SCALE" != full ] || aims "$page/table.txt"
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
            for (i = split("killed undone overshoot overstay blind", heads); i > 0; i--)
                if (!(heads[i] in from_end) || $(NF - from_end[heads[i]]) != 0 && (heads[i] != "blind" || $1 == "poolwright")) {
                    print $1 " has something in the column " heads[i] ", which must be 0"
                    bad = 1
                }
        }
        END { if (rows != 2) print "the table has " rows + 0 " rows of Poolwright, not 2"; exit bad || rows != 2 }
    ' "$1" >&2
}
# What the default policy is to reach on all workloads: at most twice the bound in the mean and six times on any, none of which
# may lack it, and a quarter less than the cheapest tuned peer that waits no longer. A line that begins with ~ ends the rows.
aims() {
    awk '
        $1 == "workload" { rows = 1; next }
        $1 == "~" { rows = 0 }
        rows || $1 == "geo-mean" {
            most = $1 == "geo-mean" ? 2 : 6
            if ($2 !~ /^[0-9.]+$/ || $2 > most) { print $1 " costs " $2 " times the bound, which may be " most; bad = 1 }
        }
        $1 == "geo-mean" {
            whole = 1
            if (!match($0, /-?[0-9]+ % \[/) || substr($0, RSTART) + 0 < 25) { print "less than 25 % is saved: " $0; bad = 1 }
        }
        END { if (!whole) print "the table has no last row"; exit bad || !whole }
    ' "$1" >&2
}

# What only a whole run can tell: rights that no test has needed, canaries that were said somewhere, and attempts to get
# more than one may that worked.
audit() {
    cargo build --workspace --bins --locked &&
        "${CARGO_TARGET_DIR:-target}/debug/poolwright-audit" "$POOLWRIGHT_RIGHTS" "$POOLWRIGHT_LEAKS" "$POOLWRIGHT_ATTEMPTS"
}

group setup setup
group fmt cargo fmt --all --check
group clippy cargo clippy --workspace --all-targets --locked -- --deny warnings
group doc env RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked
group deny tests/deny.sh
group image tests/image.sh
group unit unit
group harness end_to_end 2 harness
# Mostly without a cluster; a release has a control plane for itself, two of which are what two processors carry.
group chart end_to_end 2 chart
group install end_to_end 2 "install admission"
# Workers, brokers, faults, bad input and what a cluster refuses. They mostly wait: two processors carry five at a time.
group workers end_to_end 5 workers --skip lane::
for part in $parts; do
    case " $wanted " in *" $part "*) group "$part" end_to_end 4 workers "$part::" ;; esac
done
# Other tests beside it would be measured with it.
group lane end_to_end 1 workers lane::
# A whole Airflow beside its workers: nothing else.
group airflow end_to_end 2 airflow
# On a control plane of its own, which refuses and forgets.
group apiserver end_to_end 1 apiserver
# Each of its tests counts seconds, and has a control plane's whole attention.
group failover end_to_end 1 failover
group demo demo
# A whole Airflow beside its workers, as above.
group demo-airflow demo_airflow
group suite suite
group audit audit

reasons
seconds=$(($(date +%s) - run_began))
printf '\n%s%-12s %3d min %02d s\n' "$report" 'all of it' $((seconds / 60)) $((seconds % 60))
[ -z "$failed" ]
