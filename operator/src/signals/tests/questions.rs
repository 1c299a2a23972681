//! When the poller puts its questions, in paused time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::Wanted;
use super::{Run, with};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The times at which a worker was asked.
fn asked(node: &str) -> Vec<Instant> {
    with(|stage| {
        let of = stage
            .asked
            .iter()
            .filter(|(_, nodes)| nodes.iter().any(|n| n == node));
        of.map(|(at, _)| *at).collect()
    })
}

fn widest(times: &[Instant]) -> Duration {
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_requested_worker_is_asked_at_once_also_where_polls_are_far_apart() {
    let run = Run::start();
    let queues = (0..2000).map(|number| format!("q{number}")).collect();
    let stray = false;
    run.sender.send(Wanted { queues, stray }).unwrap();
    sleep(ms(10_300)).await;
    assert_eq!(run.view().poll_interval, Duration::from_secs(2));
    for _ in 0..5 {
        sleep(ms(600)).await;
        let requested = Instant::now();
        run.board.ask("b", vec!["celery@a".into()]);
        sleep(ms(200)).await;
        let last = *asked("celery@a").last().unwrap();
        assert!(last >= requested, "asked within 200 ms");
        let asked_at = run.view().workers["celery@a"]
            .answer
            .clone()
            .unwrap()
            .value
            .asked_at;
        assert!(run.clock.now().since(asked_at) <= ms(200));
    }
}

/// Its workers are nobody's of ours: that the queue has no TaskQueue is no mistake then.
#[tokio::test(start_paused = true)]
async fn messages_of_the_unnamed_queue_are_stray_only_while_nobody_consumes_it() {
    with(|stage| stage.stray = 3);
    let run = Run::start();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(run.view().stray, 3);
    with(|stage| stage.consumes = Some("celery"));
    run.board.ask("b", vec!["celery@a".into()]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(run.view().stray, 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_hangs_delays_no_other() {
    let run = Run::start();
    sleep(Duration::from_secs(5)).await;
    with(|stage| {
        stage.hung = Some("celery@b");
        stage.asked.clear();
    });
    let mut oldest = Duration::ZERO;
    let both = || vec!["celery@a".to_owned(), "celery@b".to_owned()];
    for step in 0..100 {
        run.board.ask("b", both());
        sleep(ms(200)).await;
        let answer = run.view().workers["celery@a"].answer.clone().unwrap();
        if step > 5 {
            oldest = oldest.max(run.clock.now().since(answer.value.asked_at));
        }
    }
    assert!(widest(&asked("celery@a")) <= ms(700), "{:?}", asked("celery@a"));
    assert!(oldest <= ms(800), "{oldest:?}");
    let hung = asked("celery@b");
    assert!(hung.len() > 5);
    let apart = hung[1..]
        .windows(2)
        .all(|pair| pair[1] - pair[0] >= Duration::from_secs(3));
    assert!(
        apart,
        "but for the first time, no more often than every three seconds: {hung:?}"
    );
    assert!(run.view().workers["celery@b"].unreadable.is_some());
}

#[tokio::test(start_paused = true)]
async fn no_requested_worker_waits_for_the_end_of_an_inquiry_to_another() {
    let run = Run::start();
    sleep(Duration::from_secs(5)).await;
    with(|stage| stage.hung = Some("celery@b"));
    run.board.ask("b", vec!["celery@b".into()]);
    sleep(ms(100)).await;
    let requested = Instant::now();
    assert_eq!(asked("celery@b").last(), Some(&(requested - ms(100))));
    run.board.ask("b", vec!["celery@a".into()]);
    sleep(ms(10)).await;
    assert_eq!(asked("celery@a").last(), Some(&requested));
}

#[tokio::test(start_paused = true)]
async fn a_size_is_asked_for_on_request_and_stands_when_it_is_not_asked_again() {
    let run = Run::start();
    sleep(Duration::from_secs(5)).await;
    let size = || run.view().workers["celery@a"].size.clone();
    assert_eq!(size(), None);
    run.board.size("b", vec!["celery@a".into()]);
    let requested = run.clock.now();
    sleep(ms(10)).await;
    let found = size().unwrap();
    assert_eq!((found.value, found.at), (4, requested));
    sleep(Duration::from_secs(1)).await;
    run.board.ask("b", vec!["celery@a".into()]);
    sleep(ms(300)).await;
    assert_eq!(size(), Some(found));
}
