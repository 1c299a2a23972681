//! Messages as Celery 5.7 sent them, messages that must be dropped, and arbitrary bytes.

use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use poolwright_core::later::Later;
use poolwright_core::sample::Running;
use proptest::prelude::*;

use super::{
    Bindings, COMMANDED_MAX, Collector, Command, MAX_REPLY_BYTES, Method, Request, Unbelievable, envelope,
    heartbeat_from_body, heartbeat_from_envelope, node_of_envelope_start, topic_matches,
};
use crate::signals::Heartbeat;

/// A heartbeat, byte for byte as it was on the wire.
const HEARTBEAT: &str = r#"{"hostname":"w1@vm","utcoffset":0.0,"pid":13724,"clock":6,"freq":2.0,"active":2,"processed":2,"loadavg":[0.88,0.41,0.16],"sw_ident":"py-celery","sw_ver":"5.7.0","sw_sys":"Linux","timestamp":1795337642.959312,"type":"worker-heartbeat"}"#;

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn redis_event(body: &str) -> Vec<u8> {
    let body = base64(body);
    format!(
        r#"{{"body":"{body}","content-encoding":"utf-8","content-type":"application/json","headers":{{"hostname":"w1@vm"}},"properties":{{"delivery_mode":1,"delivery_info":{{"exchange":"celeryev","routing_key":"worker.heartbeat"}},"priority":0,"body_encoding":"base64","delivery_tag":"4a7d9f8a"}}}}"#
    )
    .into_bytes()
}

fn reply(ticket: &str, content_type: &str, body: &str) -> Vec<u8> {
    let body = base64(body);
    format!(
        r#"{{"body": "{body}", "content-encoding": "utf-8", "content-type": "{content_type}", "headers": {{"ticket": "{ticket}", "clock": 7}}, "properties": {{"delivery_mode": 1, "delivery_info": {{"exchange": "reply.celery.pidbox", "routing_key": "oid"}}, "priority": 0, "body_encoding": "base64", "delivery_tag": "x"}}}}"#
    )
    .into_bytes()
}

fn tickets() -> Vec<(Method, String)> {
    let tickets = ["t-active", "t-reserved", "t-scheduled", "t-queues"];
    Method::ALL.into_iter().zip(tickets.map(str::to_owned)).collect()
}

const ACTIVE: &str = r#"{"w1@vm":[
 {"id":"1","name":"tapp.slow","args":["SECRET-ARG"],"kwargs":{"k":{"n":[1,{"SECRET-ARG":2}]}},"type":"tapp.slow","hostname":"w1@vm","time_start":1795337642.9,"acknowledged":true,"delivery_info":{"exchange":"","routing_key":"q1","priority":0,"redelivered":false},"worker_pid":13726},
 {"id":"2","name":"tapp.slow","args":"(SECRET-ARG)","kwargs":"{}","acknowledged":false,"delivery_info":{"exchange":"","routing_key":"q1","priority":0,"redelivered":null},"worker_pid":13727},
 {"id":"3","name":"tapp.slow","acknowledged":false,"delivery_info":{"exchange":"tasks","routing_key":"task.high.eu"},"worker_pid":null}]}"#;
const RESERVED: &str = r#"{"w1@vm":[{"id":"4","args":["SECRET-ARG"],"acknowledged":false,"delivery_info":{"exchange":null,"routing_key":"q1"}}]}"#;
const SCHEDULED: &str = r#"{"w1@vm":[{"eta":"2026-11-22T09:03:41.494128+00:00","priority":6,"request":{"id":"5","args":["SECRET-ARG"],"delivery_info":{"exchange":"other","routing_key":"k"}}}]}"#;
const QUEUES: &str = r#"{"w1@vm":[
 {"name":"q1","exchange":{"name":"q1","type":"direct","arguments":null},"routing_key":"q1","queue_arguments":null,"durable":true},
 {"name":"high","exchange":{"name":"tasks","type":"topic"},"routing_key":"task.high.#"},
 {"name":"direct","exchange":{"name":"other","type":"direct"},"routing_key":"k"}]}"#;

fn collect(replies: &[Vec<u8>]) -> Collector {
    let mut collector = Collector::new(&["w1@vm".to_owned()], &tickets());
    for message in replies {
        collector.take_envelope(message);
    }
    collector
}

#[test]
fn a_heartbeat_reads_the_same_over_both_transports() {
    let plain = heartbeat_from_body(HEARTBEAT.as_bytes()).unwrap().unwrap();
    assert_eq!(
        (plain.node.as_str(), plain.pid, plain.active, plain.processed),
        ("w1@vm", 13724, 2, 2)
    );
    assert_eq!((plain.interval, plain.offline), (Duration::from_secs(2), false));
    assert_eq!(heartbeat_from_envelope(&redis_event(HEARTBEAT)), Ok(Some(plain)));
}

#[test]
fn online_and_offline_are_signs_of_life_and_other_events_are_not() {
    let of =
        |kind: &str| heartbeat_from_body(HEARTBEAT.replace("worker-heartbeat", kind).as_bytes()).unwrap();
    let kind = |beat: Heartbeat| (beat.online, beat.offline);
    assert_eq!(of("worker-online").map(kind), Some((true, false)));
    assert_eq!(of("worker-heartbeat").map(kind), Some((false, false)));
    assert_eq!(of("worker-offline").map(kind), Some((false, true)));
    assert_eq!(of("task-received"), None);
    assert_eq!(
        heartbeat_from_body(format!("[{HEARTBEAT}]").as_bytes()),
        Ok(None),
        "task.multi is a list"
    );
}

#[test]
fn implausible_heartbeats_are_dropped_with_a_reason() {
    let long = format!("\"hostname\":\"{}\"", "n".repeat(256));
    let changes = [
        ("\"active\":2", "\"active\":-1", "its active is no"),
        ("\"active\":2", "\"active\":2.5", "its active is no"),
        ("\"active\":2", "\"active\":\"SECRET\"", "its active is no"),
        ("\"active\":2", "\"active\":NaN", "NaN"),
        ("\"active\":2", "\"active\":1000000001", "1,000,000,000"),
        ("\"active\":2", "\"active\":null", "its active is no"),
        ("\"processed\":2", "\"processed\":1e400", "it is no JSON"),
        ("\"processed\":2", "\"done\":2", "its processed is no"),
        (
            "\"freq\":2.0",
            "\"freq\":0.05",
            "its freq is no number of 0.1 to 3,600",
        ),
        ("\"freq\":2.0", "\"freq\":3601", "its freq is no"),
        ("\"freq\":2.0", "\"freq\":-2", "its freq is no"),
        ("\"freq\":2.0", "\"freq\":-Infinity", "Infinity"),
        ("\"pid\":13724", "\"pid\":-1", "its pid is no"),
        (
            "\"hostname\":\"w1@vm\"",
            "\"hostname\":\"\"",
            "its hostname is not",
        ),
        (
            "\"hostname\":\"w1@vm\"",
            "\"hostname\":\"w\\u0007\"",
            "its hostname is not",
        ),
        ("\"hostname\":\"w1@vm\"", long.as_str(), "its hostname is not"),
    ];
    for (part, new, words) in changes {
        let body = HEARTBEAT.replace(part, new);
        assert_ne!(body, HEARTBEAT);
        let odd = heartbeat_from_body(body.as_bytes()).expect_err(new);
        assert!(odd.why.contains(words), "{new}: {}", odd.why);
        assert!(!odd.why.contains("SECRET"), "{}", odd.why);
        let node = odd.node.expect(new);
        assert!(
            node.len() <= 100 && (new.starts_with("\"hostname") || node == "w1@vm"),
            "{new}: {node}"
        );
        let odd = heartbeat_from_envelope(&redis_event(&body)).expect_err(new);
        assert!(odd.why.contains(words), "{new}: {}", odd.why);
    }
}

#[test]
fn events_that_cannot_be_read_are_dropped_with_a_reason() {
    let padded = HEARTBEAT.replace("0.88", &format!("0.88{}", "0".repeat(70_000)));
    let pickled = String::from_utf8(redis_event(HEARTBEAT)).unwrap();
    let pickled = pickled.replace("application/json", "application/x-python-serialize");
    let why = |found: Result<Option<Heartbeat>, Unbelievable>| {
        let odd = found.unwrap_err();
        (odd.node, odd.why.split_inclusive(' ').take(4).collect::<String>())
    };
    let worker = Some("w1@vm".to_owned());
    for (found, node, words) in [
        (
            heartbeat_from_body(padded.as_bytes()),
            worker.clone(),
            "it is longer than ",
        ),
        (
            heartbeat_from_envelope(&redis_event(&padded)),
            worker,
            "it is longer than ",
        ),
        (
            heartbeat_from_envelope(&vec![b'x'; 200_000]),
            None,
            "it is longer than ",
        ),
        (heartbeat_from_envelope(b"SECRET"), None, "it is no message "),
        (
            heartbeat_from_envelope(pickled.as_bytes()),
            None,
            "it is no JSON ",
        ),
        (heartbeat_from_body(b"SECRET"), None, "it is no JSON "),
    ] {
        assert_eq!(why(found), (node, words.to_owned()));
    }
}

#[test]
fn a_request_is_written_as_celery_writes_it() {
    let nodes = ["w1@vm".to_owned(), "w2@vm".to_owned()];
    let request = |method| Request {
        method,
        nodes: &nodes,
        ticket: "t",
        control_exchange: "celery",
        oid: "o",
    };
    let body = String::from_utf8(request(Method::Active).body()).unwrap();
    assert_eq!(
        body,
        r#"{"method":"active","arguments":{"safe":true},"destination":["w1@vm","w2@vm"],"pattern":null,"matcher":null,"ticket":"t","reply_to":{"exchange":"reply.celery.pidbox","routing_key":"o"}}"#
    );
    let other = String::from_utf8(request(Method::ActiveQueues).body()).unwrap();
    assert!(
        other.starts_with(r#"{"method":"active_queues","arguments":{},"#),
        "{other}"
    );
    let wrapped = String::from_utf8(envelope(body.as_bytes(), "celery.pidbox", "tag")).unwrap();
    assert!(wrapped.contains(&base64(&body)) && wrapped.contains(r#""headers":{"clock":1,"expires":0}"#));
    assert!(wrapped.contains(r#""body_encoding":"base64""#));
}

/// What `app.control.cancel_consumer` and `.add_consumer` of Celery 5.7 put on the wire.
const CANCEL: &str = r#"{"method": "cancel_consumer", "arguments": {"queue": "q1"}, "destination": ["celery@a", "celery@b"], "pattern": null, "matcher": null}"#;
const ADD: &str = r#"{"method": "add_consumer", "arguments": {"queue": "q1", "exchange": null, "exchange_type": "direct", "routing_key": null}, "destination": ["celery@a", "celery@b"], "pattern": null, "matcher": null}"#;
/// The same of `.pool_grow` and `.pool_shrink`.
const GROW: &str = r#"{"method": "pool_grow", "arguments": {"n": 2}, "destination": ["celery@a", "celery@b"], "pattern": null, "matcher": null}"#;
const SHRINK: &str = r#"{"method": "pool_shrink", "arguments": {"n": 2}, "destination": ["celery@a", "celery@b"], "pattern": null, "matcher": null}"#;

#[test]
fn a_command_is_written_as_celery_writes_it_but_for_white_space() {
    let nodes = ["celery@a", "celery@b"].map(str::to_owned);
    let queue = || "q1".to_owned();
    for (command, theirs) in [
        (Command::CancelConsumer { queue: queue() }, CANCEL),
        (Command::AddConsumer { queue: queue() }, ADD),
        (Command::PoolGrow { by: 2 }, GROW),
        (Command::PoolShrink { by: 2 }, SHRINK),
    ] {
        let ours = String::from_utf8(command.body(&nodes).unwrap()).unwrap();
        assert_eq!(ours, theirs.replace(' ', ""));
    }
}

#[test]
fn a_command_names_its_workers_and_not_too_many() {
    let command = Command::CancelConsumer { queue: "q".into() };
    let nodes = |count| (0..count).map(|n| format!("celery@{n}")).collect::<Vec<_>>();
    assert!(command.body(&nodes(COMMANDED_MAX)).is_some());
    assert_eq!(command.body(&nodes(COMMANDED_MAX + 1)), None);
    assert_eq!(command.body(&[]), None, "every worker would heed it");
}

/// How long tasks have been running is told by another machine's clock.
#[test]
fn dates_that_cannot_be_true_are_no_time() {
    let began = ["90.5", "-5", "1e300", "101", "null"];
    let one = |began: &str| {
        format!(
            r#"{{"time_start":{began},"acknowledged":true,"delivery_info":{{"exchange":"","routing_key":"q1"}}}}"#
        )
    };
    let tasks = began.map(one).join(",");
    let active = format!(r#"{{"w1@vm":[{tasks}]}}"#);
    let mut collector = Collector::new(&["w1@vm".to_owned()], &tickets());
    for ((_, ticket), body) in tickets().iter().zip([&active, RESERVED, SCHEDULED, QUEUES]) {
        collector.take_body(ticket, "application/json", "utf-8", body.as_bytes());
    }
    let told = collector.finish().remove(0).1.unwrap();
    let ran = |second| {
        let wall = Timestamp::from_second(second).unwrap();
        let answer = told.answer(&Bindings::default(), wall);
        assert_eq!(answer.running["q1"].acknowledged, 5);
        answer.running["q1"].ran
    };
    assert_eq!(
        ran(100),
        Duration::from_millis(8500),
        "9.5 s, less one of a clock that is ahead"
    );
    assert_eq!(ran(50), Duration::ZERO);
    assert_eq!(ran(1_000_000_000), Duration::from_secs(2 * 30 * 24 * 3600));
}

#[test]
fn answers_are_reduced_to_counts_by_queue_without_arguments() {
    let json = "application/json";
    let collector = collect(&[
        reply("t-active", json, ACTIVE),
        reply("t-reserved", json, RESERVED),
        reply("t-scheduled", json, SCHEDULED),
        reply("t-queues", json, QUEUES),
    ]);
    assert!(collector.complete());
    assert!(!format!("{collector:?}").contains("SECRET-ARG"));
    let answers = collector.finish();
    assert!(!format!("{answers:?}").contains("SECRET-ARG"));
    let (node, answer) = answers.into_iter().next().unwrap();
    let wall = Timestamp::from_millisecond(1_795_337_652_900).unwrap();
    let answer = answer.unwrap().answer(&Bindings::default(), wall);
    assert_eq!(node, "w1@vm");
    assert_eq!(
        answer.running["q1"],
        Running {
            acknowledged: 1,
            unacknowledged: 1,
            // Of the other it is not said.
            ran: Duration::from_secs(10),
        }
    );
    assert_eq!(
        answer.running["high"],
        Running {
            acknowledged: 0,
            unacknowledged: 1,
            ran: Duration::ZERO,
        }
    );
    assert_eq!(
        answer.reserved.iter().collect::<Vec<_>>(),
        [(&"q1".to_owned(), &1)]
    );
    assert_eq!(
        answer.scheduled.iter().collect::<Vec<_>>(),
        [(&"direct".to_owned(), &1)]
    );
    assert_eq!(answer.queues.iter().collect::<Vec<_>>(), ["direct", "high", "q1"]);
    assert_eq!(answer.later, Later::new([(1_795_338_221_494, 1)]));
}

/// What a worker says of when counts as far as it is a time; that it holds the task counts anyway.
#[test]
fn a_due_time_that_cannot_be_read_is_not_known() {
    let task = r#""request":{"delivery_info":{"exchange":"","routing_key":"q1"}}"#;
    let etas = [
        r#""eta":"9990-12-31T23:59:59+00:00","#,
        r#""eta":"1950-01-01T00:00:00","#,
        r#""eta":"soon","#,
        r#""eta":7,"#,
        r#""eta":null,"#,
        "",
    ];
    let tasks = etas.map(|eta| format!("{{{eta}{task}}}")).join(",");
    let scheduled = format!(r#"{{"w1@vm":[{tasks}]}}"#);
    let mut collector = Collector::new(&["w1@vm".to_owned()], &tickets());
    let replies = [ACTIVE, RESERVED, &scheduled, QUEUES];
    for ((_, ticket), body) in tickets().iter().zip(replies) {
        collector.take_body(ticket, "application/json", "utf-8", body.as_bytes());
    }
    let answer = collector
        .finish()
        .remove(0)
        .1
        .unwrap()
        .answer(&Bindings::default(), Timestamp::UNIX_EPOCH);
    assert_eq!(answer.scheduled["q1"], 6);
    assert_eq!(
        answer.later,
        Later::new([(253_118_303_999_000, 1), (-631_152_000_000, 1)])
    );
}

/// The size of a worker that answered the four other questions as above, and this to `stats`.
fn size(stats: &str) -> Option<u64> {
    let mut asked = tickets();
    asked.insert(0, (Method::Stats, "t-stats".to_owned()));
    let mut collector = Collector::new(&["w1@vm".to_owned()], &asked);
    let stats = format!(r#"{{"w1@vm":{stats}}}"#);
    let replies = [stats.as_str(), ACTIVE, RESERVED, SCHEDULED, QUEUES];
    for ((_, ticket), body) in asked.iter().zip(replies) {
        collector.take_body(ticket, "application/json", "utf-8", body.as_bytes());
    }
    assert!(collector.complete());
    collector.finish().remove(0).1.unwrap().size
}

#[test]
fn the_size_of_a_pool_is_read_where_there_is_one_and_nothing_fails_without() {
    let prefork = r#"{"total":{"tapp.slow":2},"pid":18840,"pool":{"implementation":"celery.concurrency.prefork:TaskPool","max-concurrency":4,"processes":[18842,18848],"max-tasks-per-child":"N/A","timeouts":[0,0]},"prefetch_count":4}"#;
    let gevent = r#"{"pool":{"implementation":"celery.concurrency.gevent:TaskPool","max-concurrency":25}}"#;
    assert_eq!((size(prefork), size(gevent)), (Some(2), Some(25)));
    for strange in [
        r#"{"error":"no"}"#,
        r#"{"pool":"N/A"}"#,
        r#"{"pool":{}}"#,
        r#"{"pool":{"max-concurrency":-1}}"#,
        r#"{"pool":{"max-concurrency":1000001}}"#,
        r#"{"pool":{"processes":4}}"#,
        "[]",
    ] {
        assert_eq!(size(strange), None, "{strange}");
    }
}

#[test]
fn sizes_are_asked_for_before_all_else_and_only_when_wanted() {
    let of = |sizes| -> Vec<&str> {
        let asked = Method::inquiry(sizes);
        asked.into_iter().map(|(method, _)| method.name()).collect()
    };
    let four = ["active", "reserved", "scheduled", "active_queues"];
    assert_eq!(of(false), four);
    assert_eq!((of(true)[0], &of(true)[1..]), ("stats", &four[..]));
}

#[test]
fn the_same_answers_read_over_amqp() {
    let mut collector = Collector::new(&["w1@vm".to_owned()], &tickets());
    for ((_, ticket), body) in tickets().iter().zip([ACTIVE, RESERVED, SCHEDULED, QUEUES]) {
        collector.take_body(ticket, "application/json", "utf-8", body.as_bytes());
    }
    assert!(collector.complete());
    assert!(collector.finish().remove(0).1.is_ok());
}

#[test]
fn what_cannot_be_read_says_so_in_fixed_words() {
    let json = "application/json";
    let unreadable = |message: Vec<u8>| {
        let collector = collect(&[message]);
        assert!(collector.complete());
        collector.finish().remove(0).1.unwrap_err()
    };
    assert!(unreadable(reply("t-active", "application/x-python-serialize", ACTIVE)).contains("not JSON"));
    let error = unreadable(reply("t-active", json, r#"{"w1@vm":{"error":"SECRET-ARG"}}"#));
    assert!(
        error.starts_with("unreadable: ") && !error.contains("SECRET-ARG"),
        "{error}"
    );
    let large = format!(r#"{{"w1@vm":[{{"args":"{}"}}]}}"#, "x".repeat(MAX_REPLY_BYTES));
    assert!(unreadable(reply("t-active", json, &large)).contains("larger than 1 MiB"));
    let no_ack = r#"{"w1@vm":[{"delivery_info":{"exchange":"","routing_key":"q"}}]}"#;
    assert!(unreadable(reply("t-active", json, no_ack)).contains("shape"));
    assert!(unreadable(reply("t-reserved", json, r#"{"w1@vm":["#)).contains("shape"));
}

/// Each worker's names are kept for as long as it lives.
#[test]
fn names_are_believed_up_to_so_many_bytes_and_only_as_names() {
    let json = "application/json";
    let told = |ticket, rows: Vec<String>| {
        let body = format!(r#"{{"w1@vm":[{}]}}"#, rows.join(","));
        let collector = collect(&[reply(ticket, json, &body)]);
        let is_complete = collector.complete();
        is_complete.then(|| collector.finish().remove(0).1.unwrap_err())
    };
    let long = |at: usize| format!("{at:0>200}");
    let held = |count: usize| {
        let row = |at| format!(r#"{{"delivery_info":{{"routing_key":"{}"}}}}"#, long(at));
        told("t-reserved", (0..count).map(row).collect())
    };
    let consumed = |count: usize| {
        let row = |at| format!(r#"{{"name":"q","routing_key":"{}"}}"#, long(at));
        told("t-queues", (0..count).map(row).collect())
    };
    assert_eq!((held(300), consumed(300)), (None, None));
    for error in [held(330), consumed(330)] {
        assert!(error.unwrap().contains("too many queues"));
    }
    let odd = "x".repeat(256);
    for row in [
        format!(r#"{{"name":"q","routing_key":"{odd}"}}"#),
        format!(r#"{{"name":"q","exchange":{{"name":"{odd}"}}}}"#),
    ] {
        assert!(told("t-queues", vec![row]).unwrap().contains("shape"));
    }
    assert_eq!(
        told("t-queues", vec![r#"{"name":"q","routing_key":""}"#.to_owned()]),
        None
    );
}

#[test]
fn foreign_tickets_nodes_and_partial_answers_count_for_nothing() {
    let json = "application/json";
    let collector = collect(&[
        reply("other", json, ACTIVE),
        reply("t-active", json, &ACTIVE.replace("w1@vm", "w2@vm")),
        reply("t-queues", json, QUEUES),
    ]);
    assert!(!collector.complete());
    assert_eq!(collector.finish(), []);
}

#[test]
fn the_sender_of_an_oversized_reply_is_found_in_its_first_bytes() {
    let message = reply(
        "t",
        "application/json",
        &format!(r#"{{"celery@pod": "{}"}}"#, "x".repeat(5000)),
    );
    assert_eq!(
        node_of_envelope_start(&message[..900]).as_deref(),
        Some("celery@pod")
    );
    assert_eq!(node_of_envelope_start(b"{}"), None);
}

#[test]
fn topics_match_by_word() {
    for (pattern, key, matches) in [
        ("a.*", "a.b", true),
        ("a.*", "a.b.c", false),
        ("a.#", "a", true),
        ("a.#", "a.b.c", true),
        ("#.c", "a.b.c", true),
        ("#", "", true),
        ("a.#.d", "a.b.c.d", true),
        ("a.#.d", "a.b.c", false),
        ("a", "a", true),
        ("a", "b", false),
    ] {
        assert_eq!(topic_matches(pattern, key), matches, "{pattern} {key}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = heartbeat_from_body(&bytes);
        let _ = heartbeat_from_envelope(&bytes);
        let _ = node_of_envelope_start(&bytes);
        let mut collector = collect(std::slice::from_ref(&bytes));
        for (_, ticket) in tickets() {
            collector.take_body(&ticket, "application/json", "utf-8", &bytes);
        }
        let _ = collector.finish();
    }

    #[test]
    fn mangled_messages_never_panic_or_show_arguments(cut in 0usize..900, at in 0usize..900, byte: u8) {
        for ((_, ticket), body) in tickets().iter().zip([ACTIVE, RESERVED, SCHEDULED, QUEUES]) {
            let mut bytes = body.as_bytes().to_vec();
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            bytes.truncate(body.len().saturating_sub(cut));
            let mut collector = Collector::new(&["w1@vm".to_owned()], &tickets());
            collector.take_body(ticket, "application/json", "utf-8", &bytes);
            let shown = format!("{collector:?}");
            prop_assert!(!shown.contains("SECRET-ARG"));
        }
    }

    #[test]
    fn topic_matching_ends(pattern in "[a#*.]{0,30}", key in "[ab.]{0,30}") {
        let _ = topic_matches(&pattern, &key);
    }
}
