//! Who is parked, who comes back, who goes and when, and what workers are told.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use poolwright_api::Reason;
use poolwright_core::snapshot::{Hold, Mark, Rank, Trouble};
use world::{World, idle, key, left, pool, revision, running, seconds, set_mark};

/// Each step of the proof is needed, in its order, of one process.
#[test]
fn what_a_parked_worker_says_or_does_starts_the_proof_anew() {
    type Change = fn(&mut World);
    let works: Change = |world| {
        let worker = world.worker("a");
        worker.processed += 1;
        worker.active = 1;
    };
    let consumes: Change = |world| {
        world.answered("a", |answer| {
            answer.queues.insert("q".to_owned());
        });
    };
    let restarts: Change = |world| {
        let now = world.now;
        world.pool().pods[0].running_since = Some(now);
        world.worker("a").first_seen = now;
        world.worker("a").answer = None;
    };
    let nothing: Change = |_| ();
    for (change, goes) in [
        (nothing, true),
        (works, false),
        (consumes, false),
        (restarts, false),
    ] {
        let mut world = World::new([pool("p")]);
        world.add("a", 0);
        let mut decision = world.settle(62);
        for _ in 0..20 {
            if left(&decision) == 0 {
                break;
            }
            world.step();
            decision = world.decide();
        }
        assert_eq!(left(&decision), 0, "{}", decision.text());
        world.now = world.now.after(Duration::from_millis(200));
        world.renew();
        change(&mut world);
        assert_eq!(left(&world.decide()) == 0, goes);
    }
}

/// A parked pod beside one that stays, seen 200 ms later, with or without a heartbeat and an answer of it.
fn look(world: &mut World, beat: bool, answer: bool) -> u32 {
    let before = world.worker("a").last_seen;
    world.now = world.now.after(Duration::from_millis(200));
    world.renew();
    if !beat {
        world.worker("a").last_seen = before;
    }
    if answer {
        world.answered("a", |_| ());
    }
    left(&world.decide())
}

#[test]
fn a_proof_takes_two_answers_and_two_heartbeats_and_fresh_data() {
    let stand = || {
        let mut world = World::new([pool("p")]);
        (world.pool().min, world.pool().max) = (1, 1);
        world.marks_at_once = false;
        world.add("a", 0);
        world.add("b", 0);
        let long_ago = world.now.before(seconds(5));
        set_mark(&mut world.pool().pods[0], Some(Mark::Empty), long_ago);
        world.told.insert("celery@a".to_owned());
        world
    };
    // Answers alone are none, nor is one of the heartbeats.
    let mut world = stand();
    assert_eq!(look(&mut world, true, true), 2);
    assert_eq!(look(&mut world, false, true), 2);
    assert_eq!(look(&mut world, true, true), 2);
    assert_eq!(look(&mut world, true, true), 1);
    // Nor is it one while a source is missing.
    let old = world.now.before(seconds(10));
    world.queue("q").ready.last.as_mut().expect("a reading").at = old;
    assert_eq!(left(&world.decide()), 2);
    // Heartbeats after the first answer need a second one.
    let mut world = stand();
    look(&mut world, true, true);
    for _ in 0..4 {
        assert_eq!(look(&mut world, true, false), 2);
    }
    assert_eq!(look(&mut world, false, true), 1);
}

/// The ReplicaSet controller's view may be behind ours: a mark is waited for before the number falls.
#[test]
fn pods_go_when_their_marks_have_been_seen_for_a_while() {
    let mut world = World::new([pool("p")]);
    world.marks_at_once = false;
    for name in ["a", "b"] {
        world.add(name, 0);
    }
    let decision = world.settle(65);
    assert_eq!((decision.to, left(&decision)), (0, 2));
    let empty = |name: &str| (name.to_owned(), Some(Mark::Empty));
    assert_eq!(decision.parking.marks, [empty("a"), empty("b")]);
    world.mark(world.now);
    assert_eq!(
        left(&world.settle(1)),
        2,
        "the proof is whole, and the marks are young"
    );
    assert_eq!(left(&world.settle(2)), 0);
    // One takes a task all the same: whichever Kubernetes would take, none may go.
    world.worker("a").active = 1;
    world.worker("a").processed += 1;
    let decision = world.settle(3);
    assert_eq!((decision.to, left(&decision)), (0, 2), "{}", decision.text());
    // It keeps the other back no longer than it takes to tell them apart, once for all.
    let decision = world.settle(12);
    assert_eq!(decision.parking.marks, [("a".to_owned(), Some(Mark::Held))]);
    world.mark(world.now);
    assert_eq!(
        left(&world.settle(1)),
        2,
        "the controller may still see the first mark"
    );
    assert_eq!(left(&world.settle(2)), 1);
    assert!(world.decide().parking.marks.is_empty());
}

#[test]
fn of_pods_that_have_not_started_the_last_goes_and_is_told_from_others_first() {
    let mut world = World::new([pool("p")]);
    world.marks_at_once = false;
    world.pool().scale_down_delay = seconds(2);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    for (pod, rank) in world.pool().pods[1..]
        .iter_mut()
        .zip([Rank::Pending, Rank::Unassigned])
    {
        (pod.running_since, pod.ready, pod.rank) = (None, false, rank);
    }
    world.set("q", 15, 0);
    let decision = world.settle(5);
    assert_eq!((decision.to, left(&decision)), (2, 3), "{}", decision.text());
    let mark = ("c".to_owned(), Some(Mark::Empty));
    assert_eq!(decision.parking.marks, [mark], "it may start before it is taken");
    // The mark need not age: it was written before the pod started, so nobody sees it start without it.
    world.mark(world.now);
    let decision = world.decide();
    assert_eq!((decision.to, left(&decision)), (2, 2), "{}", decision.text());
}

/// Somebody else, such as a second operator, wrote a higher number just now: the pod that is about to be made for it carries
/// no mark, and could go for the parked one.
#[test]
fn no_number_falls_while_pods_are_about_to_appear() {
    let mut world = idle(|_| ());
    world.pool().revisions[0].replicas += 1;
    let seen = u32::try_from(world.pool().pods.len()).unwrap_or(0);
    assert_eq!(left(&world.decide()), seen + 1, "one is not seen yet");
    // Where the cluster refuses it, nothing appears.
    world.pool().revisions[0].refused = Some(Trouble {
        reason: Reason::QuotaExceeded,
        message: "exceeded quota".to_owned(),
    });
    assert!(left(&world.decide()) < seen, "they are proven empty");
}

/// What Kubernetes took in the place of a parked pod is counted, what others delete or ask for is not.
#[test]
fn a_pod_that_goes_in_the_place_of_a_parked_one_is_counted() {
    let proven = || {
        let mut world = idle(|world| world.worker("a").active = 4);
        assert_eq!(left(&world.decide()), 1, "two may go");
        world
    };
    let stand = || {
        let mut world = World::new([pool("p")]);
        for name in ["a", "b", "c"] {
            world.add(name, 4);
        }
        assert_eq!(left(&world.decide()), 3);
        world
    };
    let misplaced = |world: &mut World, gone: &[&str], replicas: u32| {
        for pod in &mut world.pool().pods {
            pod.draining = gone.contains(&pod.name.as_str());
        }
        world.pool().revisions[0].replicas = replicas;
        let counted = world.decide().facts.misplaced;
        assert_eq!(world.decide().facts.misplaced, 0, "it is counted once");
        counted
    };
    for (gone, counted) in [(["b", "c"], 0), (["a", "c"], 1), (["a", "b"], 1)] {
        assert_eq!(misplaced(&mut proven(), &gone, 1), counted, "{gone:?}");
    }
    assert_eq!(misplaced(&mut stand(), &["a"], 3), 0, "somebody deleted it");
    assert_eq!(
        misplaced(&mut stand(), &["a", "c"], 1),
        0,
        "somebody wrote the number"
    );
    let mut world = stand();
    world.pool().revisions.clear();
    assert_eq!(world.decide().facts.misplaced, 0);
}

/// Which pods are parked does not change with every heartbeat, and those that come back are those with room.
#[test]
fn demand_that_returns_brings_parked_pods_back_before_any_is_made() {
    let mut world = idle(|world| world.worker("a").active = 4);
    let decision = world.decide();
    assert_eq!((decision.to, decision.facts.parked), (1, 2));
    world.pool().pods.retain(|pod| pod.name != "b");
    world.pool().revisions[0].replicas = 2;
    world.set("q", 25, 0);
    let decision = world.decide();
    assert_eq!((decision.from, decision.to, left(&decision)), (1, 3, 3));
    assert_eq!(decision.parking.marks, [("c".to_owned(), None)]);
    assert_eq!(world.told, ["celery@b".to_owned(), "celery@c".to_owned()].into());
    world.step();
    world.decide();
    assert!(!world.told.contains("celery@c"), "told to consume again");
    // While Kubernetes may be about to end it, it is not brought back.
    let mut world = idle(|_| ());
    world.pool().revisions[0].replicas = 2;
    world.set("q", 25, 0);
    let decision = world.decide();
    assert!(decision.parking.marks.is_empty());
    assert_eq!((decision.to, left(&decision)), (3, 5));
    world.pool().revisions[0].replicas = 3;
    world.pool().revisions[0].behind = true;
    assert!(world.decide().parking.marks.is_empty());
    world.pool().revisions[0].behind = false;
    assert_eq!(world.decide().parking.marks.len(), 3);
}

/// A pod that was parked by a process before this one goes no earlier than this one would have decided so.
#[test]
fn the_last_pod_goes_only_on_what_this_process_has_seen() {
    let mut world = World::new([pool("p")]);
    world.add("a", 0);
    let now = world.now;
    set_mark(&mut world.pool().pods[0], Some(Mark::Empty), now);
    let decision = world.settle(55);
    assert_eq!(
        (decision.from, decision.to, left(&decision)),
        (0, 0, 1),
        "{}",
        decision.text()
    );
    assert!(world.told.contains("celery@a"), "it is told to stop all the same");
    assert_eq!(left(&world.settle(10)), 0);
}

/// Whoever was proven empty holds nothing on its way out either: it is no reason to keep the last one for a whole window.
/// Whoever was not may hold something until it is gone.
#[test]
fn a_pod_that_goes_empty_keeps_no_other() {
    for (parked, to) in [(true, 0), (false, 1)] {
        let mut world = World::new([pool("p")]);
        world.add("a", 0);
        world.add("b", 0);
        let now = world.now;
        if parked {
            set_mark(&mut world.pool().pods[0], Some(Mark::Empty), now);
        }
        assert_eq!(left(&world.settle(30)), if parked { 1 } else { 2 });
        world.pool().pods[0].draining = true;
        world.pool().revisions[0].replicas = 1;
        world.settle(5);
        world.pool().pods.remove(0);
        let decision = world.settle(30);
        assert_eq!(decision.to, to, "{}", decision.text());
    }
}

/// All were parked in the moment before the tasks that they fetch last were seen.
#[test]
fn tasks_that_are_not_due_bring_one_parked_pod_back() {
    let mut world = idle(|_| ());
    assert_eq!(world.decision("p").to, 0);
    for name in ["a", "b", "c"] {
        world.answered(name, |answer| {
            answer.scheduled.insert("q".to_owned(), 2);
        });
    }
    let unacked = &mut world.queue("q").unacked.last;
    unacked.as_mut().expect("a reading").value.not_due = 6;
    let decision = world.decide();
    assert_eq!((decision.from, decision.to), (0, 1), "{}", decision.text());
    assert!(decision.text().contains("not due"), "{}", decision.text());
    assert_eq!(decision.parking.marks.len(), 1);
}

/// A hung worker keeps none of its siblings, and is no victim.
#[test]
fn a_parked_worker_that_falls_silent_is_given_back() {
    let mut world = idle(|_| ());
    let quiet = world.now;
    let mut decision = world.decide();
    for _ in 0..32 * 5 {
        world.step();
        world.worker("b").last_seen = quiet;
        decision = world.decide();
    }
    assert_eq!(decision.parking.victims, ["a", "c"], "{}", decision.text());
    assert_eq!((decision.to, left(&decision)), (1, 1));
}

#[test]
fn a_parked_pod_stays_parked() {
    let mut world = idle(|world| {
        let now = world.now;
        world.queue("q").ready.last.as_mut().unwrap().value.count = 15;
        world.worker("b").last_progress = now;
    });
    let now = world.now;
    for (pod, mark) in world.pool().pods.iter_mut().zip([None, Some(Mark::Held), None]) {
        set_mark(pod, mark, now);
    }
    let decision = world.decide();
    assert_eq!(decision.parking.victims, ["b"], "{}", decision.text());
    assert!(decision.parking.marks.is_empty());
}

/// Kubernetes takes pods that are not ready first, whatever their marks: with a busy one among them, none can go.
#[test]
fn a_busy_pod_that_is_not_ready_protects_the_ready_ones() {
    let unready = |world: &mut World| {
        let pod = &mut world.pool().pods[2];
        (pod.ready, pod.rank) = (false, Rank::Unready);
    };
    let world = idle(|world| {
        world.worker("c").active = 1;
        unready(world);
    });
    let decision = world.decision("p");
    assert_eq!((decision.to, left(decision)), (1, 3), "{}", decision.text());
    // Ready again, it is taken to be so only after a while: the controller may see it as before.
    let mut world = world;
    let ready = world.now;
    for step in 1..=15 {
        world.step();
        world.worker("c").active = 1;
        let pod = &mut world.pool().pods[2];
        (pod.ready, pod.rank, pod.ready_since) = (true, Rank::Ready, Some(ready));
        let decision = world.decide();
        let wanted = if step < 10 { 3 } else { 1 };
        assert_eq!(left(&decision), wanted, "{step}: {}", decision.text());
    }
    let world = idle(|world| {
        world.worker("a").active = 1;
        unready(world);
    });
    let decision = world.decision("p");
    assert_eq!((decision.to, left(decision)), (1, 1), "{}", decision.text());
}

/// Nobody of ours waits for an order that nobody gives any more.
#[test]
fn in_a_conflict_parked_pods_take_work_again() {
    let mut world = idle(|_| ());
    world.pool().conflict = Some("an HPA scales it".to_owned());
    let decision = world.decide();
    assert_eq!(decision.parking.marks.len(), 3);
    assert!(decision.parking.replicas.is_empty() && decision.reason == Reason::Conflict);
    world.decide();
    assert!(world.told.is_empty(), "{:?}", world.told);
}

/// One message a broker and look, to all whom it concerns; again and later each time, until an answer shows it done.
#[test]
fn workers_are_told_until_they_say_that_they_have_done_it() {
    let mut world = World::new([pool("p"), pool("s")]);
    for name in ["a", "b"] {
        world.add(name, 0);
    }
    world.set("q", 1, 0);
    for name in ["a", "b"] {
        world.answered(name, |answer| {
            answer.queues.insert("r".to_owned());
        });
    }
    let now = world.now;
    for pod in &mut world.pool().pods {
        set_mark(pod, Some(Mark::Empty), now);
    }
    // Ten seconds of looks in which they do not listen.
    let mut told = Vec::new();
    for look in 0..50u64 {
        world.marks_at_once = false;
        world.decide();
        assert!(world.last.calls.len() <= 1, "one broker");
        for call in world.last.calls.values() {
            assert!(!call.consume && call.nodes == ["celery@a", "celery@b"]);
            told.push((look, call.queue.clone()));
        }
        world.told.clear();
        world.now = world.now.after(Duration::from_millis(200));
        world.renew();
    }
    let of = |queue: &str| -> Vec<u64> {
        let own = told.iter().filter(|(_, name)| name == queue);
        own.map(|(look, _)| *look).collect()
    };
    assert_eq!(of("q"), [0, 15, 45], "at once, after 3 s, after 6 s more");
    assert_eq!(
        of("r"),
        [1, 16, 46],
        "every queue that they name, one after the other"
    );
    // Done: nothing more is said.
    for name in ["a", "b"] {
        world.answered(name, |answer| answer.queues.clear());
    }
    world.decide();
    assert!(world.last.calls.is_empty());
    // Neither are those that are being deleted told anything, nor foreign ones.
    world.pool().terminating = true;
    for name in ["a", "b"] {
        world.answered(name, |_| ());
    }
    world.decide();
    assert!(world.last.calls.is_empty());
    assert!(world.last.decisions.contains_key(&key("s")));
}

/// Celery's command names one queue, so a worker of many is told of one after the other: of 64 within 64 looks.
#[test]
fn workers_on_64_queues_have_been_told_of_all_after_64_looks() {
    let mut world = World::new([pool("p")]);
    for name in ["a", "b"] {
        world.add(name, 0);
        world.answered(name, |answer| {
            answer.queues = (0..64).map(|queue| format!("q{queue}")).collect();
        });
    }
    let now = world.now;
    for pod in &mut world.pool().pods {
        set_mark(pod, Some(Mark::Empty), now);
    }
    let mut told = BTreeSet::new();
    for _ in 0..64 {
        world.marks_at_once = false;
        world.decide();
        for call in world.last.calls.values() {
            assert!(
                !call.consume && call.nodes == ["celery@a", "celery@b"],
                "{call:?}"
            );
            assert!(told.insert(call.queue.clone()), "{} again", call.queue);
        }
        world.told.clear();
        world.now = world.now.after(Duration::from_millis(40));
        world.renew();
    }
    assert_eq!(told.len(), 64);
}

/// Whoever looks more rarely than messages can be sent has all of them sent by one look, and none twice.
#[test]
fn one_look_is_enough_to_tell_workers_of_all_their_queues() {
    let mut world = World::new([pool("p")]);
    world.add("a", 0);
    world.answered("a", |answer| {
        answer.queues = ["q", "r", "s"].map(ToOwned::to_owned).into();
    });
    let now = world.now;
    set_mark(&mut world.pool().pods[0], Some(Mark::Empty), now);
    world.marks_at_once = false;
    world.decide();
    let first = world.last.calls.clone();
    let more: Vec<_> = (0..4).map(|_| world.memory.call_again(world.now)).collect();
    let told = [first].into_iter().chain(more).flat_map(BTreeMap::into_values);
    let told: Vec<String> = told.map(|call| call.queue).collect();
    assert_eq!(told, ["q", "r", "s"]);
    // By the next look two of them are done, and nothing more is said of those.
    world.now = world.now.after(seconds(4));
    world.renew();
    world.answered("a", |answer| answer.queues = ["s".to_owned()].into());
    world.decide();
    let queue = |call: &poolwright_core::consumers::Call| call.queue.clone();
    let next: Vec<String> = world.last.calls.values().map(queue).collect();
    assert_eq!(next, ["s"]);
    assert!(world.memory.call_again(world.now).is_empty());
}

#[test]
fn whoever_has_been_empty_longest_is_parked_first() {
    let mut world = World::new([pool("p")]);
    for name in ["a", "b", "c"] {
        world.add(name, 0);
    }
    world.now = world.now.after(seconds(100));
    world.renew();
    let now = world.now;
    for (name, ago) in [("a", 20), ("b", 90), ("c", 50)] {
        world.worker(name).last_progress = now.before(seconds(ago));
    }
    for (left, victims) in [(2, vec!["b"]), (1, vec!["b", "c"])] {
        world.pool().hold = Some(Hold {
            replicas: left,
            by: None,
        });
        assert_eq!(world.decide().parking.victims, victims);
    }
}

/// A pod of an older revision is given back what it was started with, not what the spec says now.
#[test]
fn a_pod_that_comes_back_consumes_what_its_revision_did() {
    let mut world = World::new([pool("p")]);
    world.add("a", 0);
    world.pool().queues = vec!["new".into()];
    world.pool().revision = "r2".into();
    world.pool().revisions[0].queues = Some(vec!["q".into()]);
    world.pool().revisions.push(revision("r2", 0, true));
    world.answered("a", |answer| answer.queues.clear());
    world.decide();
    assert!(
        world.last.calls.is_empty(),
        "what it leaves out is its own affair"
    );
    world.pool().pods[0].returned = true;
    world.pool().hold = Some(Hold {
        replicas: 1,
        by: None,
    });
    world.step();
    world.now = world.now.after(seconds(10));
    world.renew();
    world.decide();
    let call = world.last.calls.values().next().expect("a call");
    assert_eq!((call.consume, call.queue.as_str()), (true, "q"));
    assert_eq!(call.nodes, ["celery@a"]);
}

/// A mark that is written beside a lower number may be seen first, and then the newly marked pod would go for the one that
/// was proven empty.
#[test]
fn no_pod_is_marked_in_the_moment_in_which_another_goes() {
    let mut world = World::new([pool("p")]);
    (world.pool().min, world.pool().max) = (1, 2);
    world.marks_at_once = false;
    for name in ["a", "b", "c"] {
        world.add(name, if name == "a" { 0 } else { 10 });
    }
    world.set("q", 0, 20);
    let long_ago = world.now.before(seconds(5));
    set_mark(&mut world.pool().pods[0], Some(Mark::Held), long_ago);
    world.told.insert("celery@a".to_owned());
    assert_eq!(left(&world.settle(62)), 2, "the proof is complete");
    world.pool().max = 1;
    world.decide();
    world.step();
    let decision = world.decide();
    assert_eq!((decision.to, left(&decision)), (1, 2), "{}", decision.text());
    assert!(decision.parking.marks.is_empty(), "{:?}", decision.parking);
    // The ReplicaSet has not acted yet.
    world.pool().revisions[0].replicas = 2;
    world.step();
    assert!(world.decide().parking.marks.is_empty());
    // It has.
    world.pool().pods.remove(0);
    world.step();
    assert_eq!(world.decide().parking.marks.len(), 1);
}

/// Tasks wait for it: what it said before it stopped is no reason to wait until it is asked again.
#[test]
fn a_pod_that_comes_back_is_told_at_once_whatever_it_said_before() {
    let mut world = World::new([pool("p")]);
    world.marks_at_once = false;
    world.add("a", 0);
    world.set("q", 1, 0);
    world.answered("a", |_| ());
    for mark in [Some(Mark::Empty), None] {
        world.now = world.now.after(Duration::from_millis(200));
        world.renew();
        let now = world.now;
        set_mark(&mut world.pool().pods[0], mark, now);
        world.decide();
        let calls: Vec<bool> = world.last.calls.values().map(|call| call.consume).collect();
        assert_eq!(calls, [mark.is_none()]);
        world.told.clear();
    }
    assert!(world.decision("p").ask.contains(&"celery@a".to_owned()));
    // Until it says so.
    world.now = world.now.after(Duration::from_millis(200));
    world.renew();
    world.answered("a", |_| ());
    world.decide();
    assert!(world.last.calls.is_empty());
}

/// What a worker held when it was asked last is no reason to spare it when it has nothing to do, and another has.
#[test]
fn who_is_done_is_parked_before_who_works_whatever_it_said_before() {
    for says_so in [true, false] {
        let mut world = World::new([pool("p")]);
        world.pool().min = 1;
        world.set("q", 0, 1);
        for name in ["a", "b"] {
            world.add(name, 0);
            let held = if name == "b" && says_so { 2 } else { 1 };
            world.answered(name, |answer| running(answer, 0, held));
        }
        let mut parked = Vec::new();
        for _ in 0..120 * 5 {
            world.now = world.now.after(Duration::from_millis(200));
            world.renew();
            world.worker("a").active = 1;
            let decision = world.decide();
            for node in &decision.ask {
                let held = u64::from(node == "celery@a" || !says_so);
                world.answered(&node["celery@".len()..], |answer| running(answer, 0, held));
            }
            parked.clone_from(&decision.parking.victims);
            if !parked.is_empty() {
                break;
            }
        }
        assert_eq!(parked.iter().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
    }
}
