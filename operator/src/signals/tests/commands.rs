//! Commands to workers: in which order, how often and to whom they go.

use std::time::Duration;

use poolwright_core::time::Moment;
use tokio::time::sleep;

use super::super::celery::{COMMANDED_MAX, Command};
use super::super::commands::Commands;
use super::{Mood, Run, with};

fn cancel(queue: &str) -> Command {
    Command::CancelConsumer { queue: queue.into() }
}

fn add(queue: &str) -> Command {
    Command::AddConsumer { queue: queue.into() }
}

fn nodes(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const NOW: Moment = Moment(1000);

#[test]
fn what_has_waited_longest_goes_first_and_once_for_all_its_workers() {
    let mut commands = Commands::default();
    commands.take(&cancel("q"), nodes(&["a"]), NOW);
    commands.take(&cancel("r"), nodes(&["a"]), NOW);
    commands.take(&cancel("q"), nodes(&["b", "a"]), NOW);
    assert_eq!(commands.next(NOW), Some((cancel("q"), nodes(&["a", "b"]))));
    assert_eq!(commands.next(NOW), Some((cancel("r"), nodes(&["a"]))));
    assert_eq!(commands.next(NOW), None);
}

#[test]
fn a_newer_word_on_a_queue_takes_back_the_older_one() {
    let mut commands = Commands::default();
    commands.take(&cancel("q"), nodes(&["a", "b"]), NOW);
    commands.take(&cancel("r"), nodes(&["b"]), NOW);
    commands.take(&add("q"), nodes(&["b"]), NOW);
    let all: Vec<_> = std::iter::from_fn(|| commands.next(NOW)).collect();
    assert_eq!(
        all,
        [
            (cancel("q"), nodes(&["a"])),
            (cancel("r"), nodes(&["b"])),
            (add("q"), nodes(&["b"]))
        ]
    );
}

#[test]
fn a_newer_size_takes_back_the_older_one_and_no_word_on_a_queue() {
    let (grow, shrink) = (Command::PoolGrow { by: 2 }, Command::PoolShrink { by: 2 });
    let mut commands = Commands::default();
    commands.take(&shrink, nodes(&["a", "b"]), NOW);
    commands.take(&cancel("q"), nodes(&["b"]), NOW);
    commands.take(&grow, nodes(&["b"]), NOW);
    let all: Vec<_> = std::iter::from_fn(|| commands.next(NOW)).collect();
    let expected = [
        (shrink, nodes(&["a"])),
        (cancel("q"), nodes(&["b"])),
        (grow, nodes(&["b"])),
    ];
    assert_eq!(all, expected);
}

#[test]
fn what_is_not_repeated_is_dropped() {
    let mut commands = Commands::default();
    commands.take(&cancel("q"), nodes(&["a", "b"]), NOW);
    let later = NOW.after(Duration::from_secs(5));
    commands.take(&cancel("q"), nodes(&["b"]), later);
    let now = later.after(Duration::from_millis(1));
    assert_eq!(commands.next(now), Some((cancel("q"), nodes(&["b"]))));
    assert_eq!(commands.next(now), None);
}

#[test]
fn a_message_names_a_bounded_number_of_workers_and_so_do_all_that_wait() {
    let mut commands = Commands::default();
    let many = (0..5000).map(|number| format!("{number:04}")).collect();
    commands.take(&cancel("q"), many, NOW);
    commands.take(&cancel("r"), nodes(&["a"]), NOW);
    let (first, second) = (commands.next(NOW).unwrap(), commands.next(NOW).unwrap());
    assert_eq!((first.0, first.1.len()), (cancel("q"), COMMANDED_MAX));
    assert_eq!(second.0, cancel("r"), "nobody waits for all the others");
    assert_eq!(std::iter::from_fn(|| commands.next(NOW)).count(), 9);
    for queue in 0..1000 {
        commands.take(&cancel(&queue.to_string()), nodes(&["a"]), NOW);
    }
    assert_eq!(std::iter::from_fn(|| commands.next(NOW)).count(), 256);
}

#[tokio::test(start_paused = true)]
async fn one_command_goes_with_each_poll_and_is_counted() {
    let run = Run::start();
    sleep(Duration::from_millis(4050)).await;
    let made = || with(|stage| stage.connects + stage.polls + stage.asks + stage.told.len() as u64);
    for queue in ["q", "r", "s"] {
        run.board.command("b", cancel(queue), nodes(&["celery@a"]));
    }
    for sent in 0..4 {
        assert_eq!(with(|stage| stage.told.len()), sent.min(3));
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        with(|stage| stage.told[1].clone()),
        (cancel("r"), nodes(&["celery@a"]))
    );
    assert_eq!((run.counted("success"), run.counted("failure")), (made(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_ends_nothing() {
    let run = Run::start();
    sleep(Duration::from_secs(4)).await;
    with(|stage| stage.no_answers = true);
    run.board.command("b", add("q"), nodes(&["celery@a"]));
    assert!(run.stays_fresh(2).await);
    assert_eq!(
        with(|stage| (stage.told.len(), stage.connects)),
        (1, 1),
        "sent once"
    );
    assert_eq!(run.counted("failure"), 1);
    with(|stage| stage.no_answers = false);
    run.board.command("b", add("q"), nodes(&["celery@a"]));
    sleep(Duration::from_millis(250)).await;
    assert_eq!(with(|stage| stage.told.len()), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_wanted_before_an_outage_is_not_sent_after_it() {
    let run = Run::start();
    sleep(Duration::from_secs(2)).await;
    with(|stage| stage.mood = Mood::Down);
    sleep(Duration::from_secs(2)).await;
    run.board.command("b", cancel("q"), nodes(&["celery@a"]));
    with(|stage| stage.mood = Mood::Well);
    sleep(Duration::from_secs(3)).await;
    assert!(run.fresh());
    assert_eq!(with(|stage| stage.told.len()), 0);
}
