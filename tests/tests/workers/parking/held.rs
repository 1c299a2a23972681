//! What a parked worker still holds, on both brokers: it is neither lost nor waited for longer than it must be.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use poolwright_tests::scenario::LIMIT;
use poolwright_tests::*;
use serde_json::json;

use super::ground::Yard;
use super::{set, set_on_rabbitmq};

/// So long before it is asked to end a worker may begin a task that nobody could see, in seconds.
const UNSEEN: f64 = 1.5;

#[tokio::test]
async fn a_parked_worker_that_is_started_again_is_told_again_on_redis() -> Result<()> {
    let (yard, _redis) = set("p-again").await?;
    is_told_again(yard).await
}

#[tokio::test]
async fn a_parked_worker_that_is_started_again_is_told_again_on_rabbitmq() -> Result<()> {
    is_told_again(set_on_rabbitmq("p-again-rabbit").await?).await
}

/// A worker that starts again consumes what its command line says, and knows nothing of the past. The operator is away
/// meanwhile: while a worker's container does not run, it holds nothing, and its pod would go.
async fn is_told_again(mut yard: Yard) -> Result<()> {
    let told = Told::listen(&yard.wire).await?;
    let (_, parked) = yard.park_one_of_two_busy(60.0).await?;
    let before = told.stops(&parked);
    assert!(before > 0, "it was parked and not told");
    yard.stage.operator.kill();
    yard.stage.kill_worker(&parked)?;
    // The other worker can only fetch one of these while it is busy.
    yard.wire.publish(&Batch::sleep("q", 4, 0.5)).await?;
    wait_until("the worker to consume again by itself", LIMIT, || async {
        yard.has_ended(&parked)
    })
    .await?;
    assert_eq!(told.stops(&parked), before);
    yard.stage.operator.start_again().await?;
    wait_until("it to be told again", LIMIT, || async {
        Ok(told.stops(&parked) > before)
    })
    .await?;
    wait_until("it to go", LIMIT, || async { Ok(!yard.is_there(&parked).await?) }).await?;
    assert!(yard.moves.all().iter().all(|one| one.act != Act::Back));
    // The task that died with it had been acknowledged; all others are done.
    yard.stage.await_ended(5, LIMIT).await?;
    yard.stage.await_no_pods("q", LIMIT).await?;
    let events = yard.stage.events()?.into_iter();
    let ended = events.filter(|event| event.event == "end");
    let ended: Vec<String> = ended.map(|event| event.id).collect();
    assert_eq!(ended.len(), 5, "{ended:?}");
    yard.expect_well(&ended).await
}

#[tokio::test]
async fn a_parked_worker_with_rate_limited_tasks_loses_none_on_redis() -> Result<()> {
    let (yard, _redis) = set("p-rate").await?;
    loses_no_limited_tasks(yard, 1).await
}

#[tokio::test]
async fn a_parked_worker_with_rate_limited_tasks_loses_none_on_rabbitmq() -> Result<()> {
    // There nothing shows what waits for its turn, so both may go at once.
    loses_no_limited_tasks(set_on_rabbitmq("p-rate-rabbit").await?, 2).await
}

/// No answer of a worker shows what waits for its turn there: it is given back when the worker ends, and done elsewhere. At
/// first no more than `most` go.
async fn loses_no_limited_tasks(yard: Yard, most: usize) -> Result<()> {
    let stage = &yard.stage;
    yard.two(json!({"prefetchMultiplier": 2})).await?;
    let batch = Batch {
        task: "tapp.limited".into(),
        ..Batch::sleep("q", 6, 0.5)
    };
    let ids = yard.wire.publish(&batch).await?;
    // Each has done its first and has fetched two more.
    stage.await_ended(2, LIMIT).await?;
    yard.at_most(1).await?;
    let parked = yard.await_parked().await?;
    // No worker holds more than its prefetch of two, so what is above it is the parked one's.
    let begun = stage
        .events()?
        .iter()
        .filter(|event| event.event == "start")
        .count();
    let held = ids.len() - begun - waiting(&yard.wire).await?;
    println!("{parked} is parked while {held} tasks are fetched and not begun");
    assert!(
        held > 2,
        "{parked} may have held none of the {held} that were fetched"
    );
    wait_until("one to go", LIMIT, || async {
        let went = yard.moves.count(|act| matches!(act, Act::Went { .. }));
        Ok((1..=most).contains(&went))
    })
    .await?;
    let ended = stage
        .events()?
        .iter()
        .filter(|event| event.event == "end")
        .count();
    println!("{ended} tasks of {} were done when it went", ids.len());
    yard.at_most(3).await?;
    stage.await_ended(ids.len(), LIMIT * 2).await?;
    stage.await_no_pods("q", LIMIT).await?;
    // Between the last look at a worker and its end lie a write, and what Kubernetes makes of it.
    stage.expect_no_victim_running_longer(UNSEEN)?;
    yard.expect_done(&ids).await
}

/// Messages that wait in the queue `q`, by the broker.
async fn waiting(wire: &Wire) -> Result<usize> {
    if wire.url.starts_with("redis:") {
        let mut connection = brokers::connect(&wire.url).await?;
        return Ok(redis::cmd("LLEN").arg("q").query_async(&mut connection).await?);
    }
    let connection = Connection::connect(&wire.url, ConnectionProperties::default()).await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = connection.create_channel().await?;
    let queue = channel
        .queue_declare("q".into(), passive, FieldTable::default())
        .await?;
    Ok(queue.message_count() as usize)
}

#[tokio::test]
async fn a_parked_worker_with_tasks_that_are_not_due_gives_them_back_on_redis() -> Result<()> {
    let (yard, _redis) = set("p-eta").await?;
    gives_back_what_is_not_due(yard).await
}

#[tokio::test]
async fn a_parked_worker_with_tasks_that_are_not_due_gives_them_back_on_rabbitmq() -> Result<()> {
    gives_back_what_is_not_due(set_on_rabbitmq("p-eta-rabbit").await?).await
}

/// They are given back when it ends: an hour of countdown is no reason to keep a worker for an hour.
async fn gives_back_what_is_not_due(yard: Yard) -> Result<()> {
    let stage = &yard.stage;
    yard.two(json!({})).await?;
    let batch = Batch {
        countdown: Some(75.0),
        ..Batch::sleep("q", 10, 0.5)
    };
    let ids = yard.wire.publish(&batch).await?;
    // With a minimum of none both are parked in the moment before these tasks are seen, and either may come back.
    let one = json!({"spec": {"scaling": {"minReplicas": 1, "maxReplicas": 1}}});
    stage.patch_pool("q", one).await?;
    let parked = yard.await_parked().await?;
    let held = yard.scheduled(&parked).await?;
    println!("{parked} holds {held} tasks that are not due");
    assert!(held > 0, "the other worker has fetched all");
    wait_until("it to go", LIMIT, || async { Ok(!yard.is_there(&parked).await?) }).await?;
    assert!(stage.events()?.is_empty(), "it went only when its tasks were due");
    yard.at_least(0).await?;
    stage.await_ended(ids.len(), LIMIT).await?;
    stage.await_no_pods("q", LIMIT).await?;
    // Otherwise a worker that is asked to end with tasks in it would pass every other test, too.
    let held = stage
        .expect_no_busy_victim()
        .err()
        .ok_or("it held nothing when it went")?;
    println!("{held}");
    yard.expect_given_back(&ids).await
}

impl Yard {
    /// Tasks that are not due and that a pod's worker holds, by Celery's own client.
    async fn scheduled(&self, pod: &str) -> Result<usize> {
        let node = format!("celery@{pod}");
        let mut command = Celery::locate()?.command("celery", &self.wire.url, &[]);
        command.args(["-A", "tapp", "inspect", "scheduled", "--json", "-t", "5"]);
        command.args(["-d", &node]);
        let output = tokio::process::Command::from(command).output().await?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(answer[&node].as_array().map_or(0, Vec::len))
    }
}
