use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use poolwright_api::ANNOTATION_GRANT_EPOCH;

use super::*;

#[path = "plan_tests/cluster.rs"]
mod cluster;

use cluster::{Cluster, Want, revision_of, set_of, wall, want};

fn reached(want: &Want) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.settle(want);
    cluster
}

fn edit(cluster: &mut Cluster, change: impl FnOnce(&mut Deployment)) {
    let name = cluster.deployments[0].metadata.name.clone().unwrap();
    change(cluster.deployment(&name));
}

fn set_image(deployment: &mut Deployment) {
    let pod = deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    pod.containers[0].image = Some("elsewhere.example/other:1".to_owned());
}

#[test]
fn a_new_pool_is_created_paused_and_scaled_whatever_interrupts_it() {
    let whole = Cluster::default().settles_from_anywhere(&want(1, 3));
    let spec = whole.deployments[0].spec.clone().unwrap();
    assert_eq!((spec.replicas, spec.paused), (Some(3), Some(true)));
    assert_eq!(whole.pods.len(), 3);
}

#[test]
fn a_rollout_creates_grows_shrinks_and_removes() {
    let old = want(1, 3);
    let mut new = want(2, 3);
    let past = revision_of(&old.rendered);
    new.targets.push((past.clone(), 0));
    new.remove.push(past);
    let whole = reached(&old).settles_from_anywhere(&new);
    assert_eq!(whole.deployments.len(), 1);
    assert_eq!(revision_of(&whole.deployments[0]), revision_of(&new.rendered));
}

#[test]
fn growth_comes_before_scale_in_and_removal_last() {
    let (old, mut new) = (want(1, 3), want(2, 3));
    let past = revision_of(&old.rendered);
    let mut cluster = reached(&old);
    let create = cluster.plan(&new).remove(0);
    cluster.run(&create);
    new.targets.push((past, 2));
    for step in cluster
        .plan(&new)
        .iter()
        .filter(|step| matches!(step, Step::Mark { .. }))
    {
        cluster.run(step);
    }
    let moves: Vec<(u32, u32)> = cluster
        .plan(&new)
        .iter()
        .filter_map(|step| match step {
            Step::Scale { from, to, .. } => Some((*from, *to)),
            _ => None,
        })
        .collect();
    assert_eq!(moves, [(0, 3), (3, 2)]);
}

#[test]
fn marks_are_written_and_taken_off_one_by_one() {
    let mut cluster = reached(&want(1, 3));
    let fewer = want(1, 1);
    let steps = cluster.plan(&fewer);
    let marks = |step: &Step| matches!(step, Step::Mark { cost: "-2000", .. });
    assert!(steps.len() == 2 && steps.iter().all(marks), "{steps:?}");
    cluster.run(&steps[0]);
    assert_eq!(cluster.plan(&fewer), steps[1..]);
    cluster.run(&steps[1]);
    assert!(matches!(
        cluster.plan(&fewer)[..],
        [Step::Scale { from: 3, to: 1, .. }]
    ));
    let mut decision = cluster.decide(&want(1, 3));
    let Step::Mark { pod, .. } = &steps[0] else {
        panic!("{steps:?}")
    };
    decision.parking.marks = vec![(pod.clone(), None)];
    let (input, objects) = (cluster.input(&fewer), cluster.objects());
    let back = plan(
        &fewer.wp,
        &fewer.rendered,
        &input,
        &objects,
        &decision,
        |_| None,
        wall(),
    );
    assert!(matches!(&back[..], [Step::Mark { pod: one, cost: "0", .. }] if one == pod));
}

#[test]
fn what_somebody_writes_is_taken_back_in_one_write() {
    type Edit = fn(&mut Deployment);
    let want = want(1, 2);
    let ours = reached(&want);
    let edits: [(&str, Edit); 6] = [
        ("image", set_image),
        ("unpaused", |one| one.spec.as_mut().unwrap().paused = Some(false)),
        ("deadline", |one| {
            one.spec.as_mut().unwrap().progress_deadline_seconds = Some(10);
        }),
        ("added to the template", |one| {
            let template = &mut one.spec.as_mut().unwrap().template;
            template
                .metadata
                .as_mut()
                .unwrap()
                .annotations
                .get_or_insert_default()
                .insert("a".into(), "b".into());
        }),
        ("label", |one| {
            one.metadata
                .labels
                .as_mut()
                .unwrap()
                .remove("app.kubernetes.io/name");
        }),
        ("image, unpaused", |one| {
            set_image(one);
            one.spec.as_mut().unwrap().paused = Some(false);
        }),
    ];
    for (what, change) in edits {
        let mut cluster = ours.clone();
        edit(&mut cluster, change);
        let steps = cluster.plan(&want);
        assert!(matches!(steps[..], [Step::Settle(_)]), "{what}: {steps:?}");
        cluster.run(&steps[0]);
        assert_eq!(cluster.outcome(), ours.outcome(), "{what}");
        assert!(cluster.plan(&want).is_empty(), "{what}");
    }
    // What is not ours stays.
    let mut cluster = ours.clone();
    edit(&mut cluster, |one| {
        one.metadata
            .labels
            .as_mut()
            .unwrap()
            .insert("team".into(), "shop".into());
    });
    assert!(cluster.plan(&want).is_empty());
}

#[test]
fn pods_of_another_template_are_taken_back_by_the_deployment_itself() {
    let want = want(1, 2);
    let mut cluster = reached(&want);
    let ours = cluster.outcome();
    // Image and pause were edited together, and the controller has begun to replace pods.
    let mut foreign = cluster.deployments[0].clone();
    set_image(&mut foreign);
    cluster.sets.push(set_of(&foreign, 99, 1));
    edit(&mut cluster, |one| {
        set_image(one);
        one.spec.as_mut().unwrap().paused = Some(false);
    });
    let steps = cluster.plan(&want);
    assert!(
        matches!(&steps[..], [Step::Settle(one)] if one.paused && one.template.is_some()),
        "{steps:?}"
    );
    cluster.run(&steps[0]);
    let steps = cluster.plan(&want);
    assert!(
        matches!(&steps[..], [Step::Settle(one)] if !one.paused && one.template.is_none()),
        "{steps:?}"
    );
    cluster.run(&steps[0]);
    assert!(cluster.plan(&want).is_empty(), "it waits for the controller");
    let set = cluster.sets.last_mut().unwrap();
    set.spec.as_mut().unwrap().replicas = Some(0);
    cluster.settle(&want);
    assert_eq!(cluster.outcome(), ours);
}

#[test]
fn a_deployment_is_not_paused_before_its_own_replica_set_exists() {
    let want = want(1, 2);
    let mut cluster = reached(&want);
    // A predecessor's set has the same labels: with it alone, a paused Deployment would never get one.
    let mut predecessor = cluster.deployments[0].clone();
    predecessor.metadata.uid = Some("gone".to_owned());
    cluster.sets = vec![set_of(&predecessor, 1, 2)];
    edit(&mut cluster, |one| one.spec.as_mut().unwrap().paused = None);
    assert!(cluster.plan(&want).is_empty());
    edit(&mut cluster, |one| one.spec.as_mut().unwrap().paused = Some(true));
    let steps = cluster.plan(&want);
    assert!(
        matches!(&steps[..], [Step::Settle(one)] if !one.paused),
        "{steps:?}"
    );
}

/// What somebody does to a Deployment.
type Edit = fn(&mut Deployment);

/// A release writes to no Deployment without an owner, so that a raise must not either.
#[test]
fn a_raise_relies_on_all_but_status_and_labels() {
    let edits: [(Edit, bool); 7] = [
        (|one| one.metadata.resource_version = Some("99".to_owned()), true),
        (|one| one.metadata.labels = None, true),
        (|one| one.metadata.owner_references = None, false),
        (
            |one| {
                let owner = &mut one.metadata.owner_references.as_mut().unwrap()[0];
                owner.uid = "another".to_owned();
            },
            false,
        ),
        (|one| one.metadata.uid = Some("another".to_owned()), false),
        (|one| one.metadata.generation = Some(99), false),
        (
            |one| {
                let annotations = one.metadata.annotations.get_or_insert_default();
                annotations.insert(ANNOTATION_GRANT_EPOCH.to_owned(), "1".to_owned());
            },
            false,
        ),
    ];
    for (at, (change, holds)) in edits.into_iter().enumerate() {
        let mut cluster = reached(&want(1, 2));
        let token = |cluster: &Cluster| Token::of(&cluster.objects().deployments[0]);
        let seen = token(&cluster);
        edit(&mut cluster, change);
        assert_eq!(seen.holds(&token(&cluster)), holds, "edit {at}");
    }
}

#[test]
fn a_field_that_does_not_stay_is_fought_once() {
    let want = want(1, 2);
    let mut cluster = reached(&want);
    edit(&mut cluster, |one| {
        set_image(one);
        one.metadata.generation = Some(7);
    });
    let (input, decision) = (cluster.input(&want), cluster.decide(&want));
    let labels = cluster.objects().deployments[0].labels.clone();
    let with_pause = |settled: Option<i64>, labels: &BTreeMap<String, String>, paused: bool| {
        plan(
            &want.wp,
            &want.rendered,
            &input,
            &cluster.objects(),
            &decision,
            |_| settled.map(|generation| Stamp::new(Some(generation), labels, paused)),
            wall(),
        )
    };
    let with = |settled: Option<i64>, labels: &BTreeMap<String, String>| with_pause(settled, labels, true);
    assert!(with(Some(7), &labels).is_empty());
    assert_eq!(with(Some(6), &labels).len(), 1);
    assert_eq!(with(None, &labels).len(), 1);
    // Labels change without a new generation.
    assert_eq!(with(Some(7), &BTreeMap::new()).len(), 1);
    // It was to go on, and is to be paused now.
    assert_eq!(with_pause(Some(7), &labels, false).len(), 1);
}

#[test]
fn nothing_is_scaled_in_a_conflict_and_nothing_at_all_while_it_goes() {
    let mut cluster = reached(&want(1, 3));
    let mut contested = want(1, 1);
    contested.conflict = true;
    assert!(cluster.plan(&contested).is_empty());
    edit(&mut cluster, set_image);
    assert!(matches!(cluster.plan(&contested)[..], [Step::Settle(_)]));
    let mut going = want(1, 1);
    going.wp.metadata.deletion_timestamp = Some(Time(wall()));
    assert!(cluster.plan(&going).is_empty());
    assert!(Cluster::default().plan(&going).is_empty());
}

/// A Deployment that was deleted without its `ReplicaSet` comes back with the workers that this has.
#[test]
fn a_deployment_adopts_what_was_left_of_it() {
    let want = want(1, 3);
    let mut cluster = reached(&want);
    cluster.deployments.clear();
    let created = |cluster: &Cluster| match &cluster.plan(&want)[0] {
        Step::Create(deployment) => deployment.spec.as_ref().unwrap().replicas,
        other => panic!("{other:?}"),
    };
    assert_eq!(created(&cluster), Some(0), "its ReplicaSet goes with it");
    for set in &mut cluster.sets {
        set.metadata.owner_references = None;
        set.spec.as_mut().unwrap().replicas = Some(3);
    }
    assert_eq!(created(&cluster), Some(3));
    // Its pods are made of its own template, and another would end them.
    for set in &mut cluster.sets {
        let template = set.spec.as_mut().unwrap().template.as_mut().unwrap();
        let metadata = template.metadata.as_mut().unwrap();
        metadata
            .annotations
            .get_or_insert_default()
            .insert("of".into(), "old".into());
    }
    let Step::Create(adopts) = &cluster.plan(&want)[0] else {
        panic!("no Deployment")
    };
    let metadata = adopts.spec.as_ref().unwrap().template.metadata.as_ref().unwrap();
    assert_eq!(metadata.annotations.as_ref().unwrap()["of"], "old");
    for set in &mut cluster.sets {
        set.metadata
            .labels
            .get_or_insert_default()
            .insert(LABEL_REVISION.to_owned(), "other".to_owned());
    }
    assert_eq!(created(&cluster), Some(0), "another revision's");
}

/// The pods would be made of what somebody wrote, at another price.
#[test]
fn an_edited_template_is_mended_before_the_number_rises() {
    let mut cluster = reached(&want(1, 1));
    set_image(&mut cluster.deployments[0]);
    let more = want(1, 3);
    let steps = cluster.plan(&more);
    assert!(
        matches!(&steps[..], [Step::Settle(one)] if one.template.is_some()),
        "{steps:?}"
    );
    cluster.run(&steps[0]);
    assert!(matches!(
        cluster.plan(&more)[..],
        [Step::Scale { from: 1, to: 3, .. }]
    ));
}

/// Who comes back works sooner than who is made, and needs no grant.
#[test]
fn a_parked_pod_comes_back_before_the_number_rises() {
    let cluster = reached(&want(1, 2));
    let more = want(1, 3);
    let mut decision = cluster.decide(&more);
    let (input, objects) = (cluster.input(&more), cluster.objects());
    let name = |at: usize| objects.pods[at].name.clone();
    decision.parking.marks = vec![(name(0), None), (name(1), Some(Mark::Empty))];
    let steps = plan(
        &more.wp,
        &more.rendered,
        &input,
        &objects,
        &decision,
        |_| None,
        wall(),
    );
    let costs = |step: &Step| match step {
        Step::Mark { cost, .. } => *cost,
        Step::Scale { .. } => "more",
        _ => "other",
    };
    assert_eq!(
        steps.iter().map(costs).collect::<Vec<_>>(),
        ["0", "more", "-2000"]
    );
}

#[test]
fn a_namesakes_deployment_is_left_alone() {
    let cluster = reached(&want(1, 3));
    let mut successor = want(1, 1);
    successor.wp.metadata.uid = Some("u-2".to_owned());
    let steps = cluster.plan(&successor);
    assert!(matches!(steps[..], [Step::Create(_)]), "{steps:?}");
}

/// The watch shows some marks of a plan before others, and a decision made between them counts pods for what they were.
#[test]
fn nothing_is_moved_by_pods_whose_marks_are_not_seen_yet() {
    let step = |pod: &str, cost: &'static str| Step::Mark {
        pod: pod.to_owned(),
        uid: pod.to_owned(),
        resource_version: String::new(),
        key: DELETION_COST,
        cost,
    };
    let scale = || {
        let cluster = reached(&want(1, 3));
        let steps = cluster.plan(&want(1, 4));
        let scale = steps.into_iter().find(|step| matches!(step, Step::Scale { .. }));
        scale.expect("it grows")
    };
    let annotate = || Step::Annotate {
        seen: Arc::clone(&reached(&want(1, 3)).objects().deployments[0]),
        key: ANNOTATION_PROVEN_AT,
        value: "now".to_owned(),
    };
    let pod = |name: &str, mark: Option<Mark>| PodInput {
        name: name.into(),
        mark,
        ..PodInput::default()
    };
    let mut written = Written::default();
    let mut done = |steps: Vec<Step>, pods: &[PodInput], second: u64| {
        let (mut steps, now) = (steps, Moment(second * 1000));
        written.leave_out(&mut steps, pods, Duration::from_secs(5), now);
        for step in &steps {
            written.note(step, now);
        }
        steps.len()
    };
    let (parked, free) = (Some(Mark::Empty), None);
    let (a, b) = (step("a", "-2000"), step("b", "-2000"));
    let pods = [pod("a", free), pod("b", free)];
    assert_eq!(done(vec![a, b.clone()], &pods, 0), 2);
    let half = [pod("a", parked), pod("b", free)];
    assert_eq!(done(vec![b.clone(), scale()], &half, 1), 0, "b is not seen");
    assert_eq!(done(vec![annotate(), scale()], &half, 1), 1, "counts no pods");
    let (gone, both) = ([pod("a", parked)], [pod("a", parked), pod("b", parked)]);
    assert_eq!(done(vec![scale()], &gone, 1), 1, "b is gone");
    assert_eq!(done(vec![scale()], &both, 1), 1);
    let back = [step("a", COST_RETURNED), step("b", COST_RETURNED)];
    assert_eq!(done(back.to_vec(), &both, 2), 2);
    let half = [pod("a", free), pod("b", parked)];
    assert_eq!(done(vec![scale()], &half, 3), 0, "it would come on top of b");
    assert_eq!(done(vec![scale()], &[pod("a", free), pod("b", free)], 3), 1);
    assert_eq!(
        done(vec![step("b", "-1000")], &[pod("a", free), pod("b", free)], 4),
        1
    );
    assert_eq!(done(vec![b.clone()], &half, 8), 0);
    assert_eq!(done(vec![b], &half, 9), 1, "it had no effect");
}
