//! Budgets, what is promised of them, and the pods that should fit in.

use crate::lint::testing::{pool, queue, said, worker};

const DRAWS: &str = "pool: {name: db}";

fn guarantee(slots: i32) -> String {
    pool(
        "db",
        &format!("slots: 20, guarantees: [{{queue: mail, slots: {slots}}}]"),
    )
}

#[test]
fn a_pool_may_be_closed_whatever_it_guarantees() {
    let with = |slots: i32| {
        let manifests = [
            guarantee(8).replace("slots: 20", &format!("slots: {slots}")),
            queue("mail", DRAWS),
        ];
        said(&manifests)
    };
    assert_eq!(with(0), [""; 0]);
    assert_eq!(
        with(4),
        [
            "error: spec.guarantees: must add up to at most spec.slots (4), add up to 8: lower or remove some of them in \
             the same change, or close the Pool with slots 0"
        ]
    );
}

#[test]
fn a_guarantee_is_for_the_last_queue_of_its_name() {
    let with = |first: &str, second: &str| {
        let manifests = [guarantee(8), queue("mail", first), queue("mail", second)];
        let mut found = said(&manifests);
        found.retain(|words| words.contains("guarantees"));
        found
    };
    assert_eq!(with("", DRAWS), [""; 0]);
    assert_eq!(with(DRAWS, "").len(), 1);
}

#[test]
fn a_guarantee_is_a_number_of_pods() {
    let with = |slots: i32, workers: &[String]| {
        let mut manifests = vec![guarantee(slots), queue("mail", DRAWS)];
        manifests.extend_from_slice(workers);
        said(&manifests).concat()
    };
    let one = [worker("mailer", &["mail"], "")];
    assert_eq!(with(4, &one), "");
    assert_eq!(with(8, &one), "");
    assert_eq!(
        with(3, &one),
        "warning: spec.guarantees[0].slots: a guarantee of 3 slots for TaskQueue \"mail\" holds no pod of WorkerPool \
         \"mailer\", which takes 4: write 4 or 8"
    );
    assert_eq!(
        with(6, &one),
        "warning: spec.guarantees[0].slots: a guarantee of 6 slots for TaskQueue \"mail\" holds 1 pod of WorkerPool \
         \"mailer\", each of which takes 4, and 2 more that are of no use: write 4 or 8"
    );
    assert!(with(18, &one).ends_with("write 16 or 20"), "{}", with(18, &one));
    // Pods of two sizes.
    let large = worker("large", &["mail"], "").replace("concurrency: 4", "concurrency: 6");
    let two = [one[0].clone(), large];
    assert_eq!(with(10, &two), "", "one of each");
    assert!(with(3, &two).contains("\"mailer\", which takes 4"));
    // Nobody is known who would use it.
    assert_eq!(with(3, &[]), "");
}

#[test]
fn a_larger_guarantee_is_named_where_there_is_room_for_it() {
    let full = guarantee(3).replace("slots: 20", "slots: 7");
    let found = said(&[full, queue("mail", DRAWS), worker("mailer", &["mail"], "")]);
    assert!(found.concat().ends_with("takes 4: write 4"), "{found:?}");
}

#[test]
fn a_guarantee_of_a_pool_without_a_limit_is_told() {
    let unlimited = guarantee(3).replace("slots: 20", "slots: -1");
    let found = said(&[unlimited, queue("mail", DRAWS), worker("mailer", &["mail"], "")]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("warning: spec.guarantees: has no effect: with spec.slots -1"));
}

#[test]
fn minimums_that_take_more_than_there_is_are_told() {
    let with = |slots: i32, least: i32| {
        said(&[
            pool("db", &format!("slots: {slots}")),
            queue("mail", "pool: {name: db, slotsPerTask: 2}"),
            queue("web", DRAWS),
            queue("elsewhere", ""),
            worker("mailer", &["mail"], &format!("scaling: {{minReplicas: {least}}}")),
            worker("web", &["web"], "scaling: {minReplicas: 1}"),
            worker("other", &["elsewhere"], "scaling: {minReplicas: 9}"),
        ])
    };
    assert_eq!(with(20, 2), [""; 0]);
    assert_eq!(with(0, 2), [""; 0]);
    assert_eq!(
        with(19, 2),
        [
            "warning: spec.slots: is 19, and minReplicas of its WorkerPools take 20 (mailer 16, web 4): they hold slots \
             when they are idle, too, and some never get theirs; lower minReplicas, or raise spec.slots"
        ]
    );
}

/// What is in the files twice is once in the cluster, as the later one says.
#[test]
fn a_minimum_that_is_written_twice_counts_once() {
    let with = |first: i32, second: i32| {
        let least = |least: i32| worker("mailer", &["mail"], &format!("scaling: {{minReplicas: {least}}}"));
        let manifests = [
            pool("db", "slots: 12"),
            queue("mail", DRAWS),
            least(first),
            least(second),
        ];
        let mut found = said(&manifests);
        found.retain(|words| words.contains("spec.slots"));
        found.concat()
    };
    assert_eq!(with(2, 2), "");
    assert_eq!(with(4, 2), "");
    assert!(with(2, 4).contains("take 16 (mailer 16)"), "{}", with(2, 4));
}

/// Of each name the last counts, in whichever kind.
#[test]
fn a_pod_is_measured_by_the_last_pool_and_the_last_queue_of_their_names() {
    let with = |slots: [i32; 2], per_task: [i32; 2]| {
        let pools = slots.map(|slots| pool("db", &format!("slots: {slots}")));
        let queues =
            per_task.map(|slots| queue("mail", &format!("pool: {{name: db, slotsPerTask: {slots}}}")));
        let workers = [worker("mailer", &["mail"], "")];
        let mut found = said(&[&pools[..], &queues[..], &workers[..]].concat());
        found.retain(|words| words.starts_with("error: "));
        found.concat()
    };
    assert_eq!(with([2, 8], [3, 1]), "");
    assert!(
        with([8, 2], [1, 1]).contains("(a.yaml:10) has 2"),
        "{}",
        with([8, 2], [1, 1])
    );
    assert!(
        with([8, 8], [1, 3]).contains("a pod takes 12 slots"),
        "{}",
        with([8, 8], [1, 3])
    );
}

#[test]
fn a_load_that_leaves_no_room_for_a_pod_is_told() {
    let with = |slots: i32| {
        let source = "loadShedding: {source: {configMapKeyRef: {name: load, key: percent}}}";
        said(&[
            pool("db", &format!("slots: {slots}, {source}")),
            queue("mail", DRAWS),
            worker("mailer", &["mail"], ""),
        ])
    };
    assert_eq!(with(8), [""; 0]);
    assert_eq!(
        with(7),
        [
            "warning: spec.loadShedding: while the load is high there are 3 of 7 slots, and a pod of WorkerPool \"mailer\" \
             (a.yaml:14) takes 4: none of its pods starts then; lower its concurrency, or raise spec.slots to 8"
        ]
    );
}
