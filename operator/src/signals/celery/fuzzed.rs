//! The parsers of what workers send, for the fuzzer.

use base64::Engine as _;
use jiff::Timestamp;

use super::replies::node_of_envelope_start;
use super::{Bindings, Collector, Method, Topics, heartbeat_from_body, heartbeat_from_envelope};
use crate::fuzz::Target;

const HEARTBEAT: &[u8] = br#"{"hostname": "celery@checkout-1", "utcoffset": 0, "pid": 7, "clock": 1204, "freq": 2.0, "active": 1, "processed": 42, "loadavg": [0.1, 0.2, 0.3], "sw_ident": "py-celery", "sw_ver": "5.5.3", "sw_sys": "Linux", "timestamp": 1795338221.49, "type": "worker-heartbeat"}"#;
const OFFLINE: &[u8] =
    br#"{"hostname":"celery@checkout-1","pid":7,"freq":2,"active":0,"processed":43,"type":"worker-offline"}"#;
const ACTIVE: &[u8] = br#"{"celery@a": [{"id": "5f0c", "name": "shop.pay", "args": ["x", {"y": [1]}], "kwargs": {}, "type": "shop.pay", "hostname": "celery@a", "time_start": 1795338221.1, "acknowledged": false, "delivery_info": {"exchange": "", "routing_key": "orders", "priority": 0, "redelivered": false}, "worker_pid": 17}]}"#;
const SCHEDULED: &[u8] = br#"{"celery@a": [{"eta": "2026-11-22T09:03:41.494128+00:00", "priority": 6, "request": {"id": "1", "delivery_info": {"exchange": "topic", "routing_key": "mail.de"}}}]}"#;
const QUEUES: &[u8] = br#"{"celery@a": [{"name": "orders", "exchange": {"name": "orders", "type": "direct", "durable": true}, "routing_key": "orders"}, {"name": "mail", "exchange": {"name": "topic", "type": "topic"}, "routing_key": "mail.#"}]}"#;
const STATS: &[u8] = br#"{"celery@a": {"total": {"shop.pay": 12}, "pid": 1, "clock": "7", "uptime": 60, "pool": {"implementation": "celery.concurrency.prefork:TaskPool", "max-concurrency": 4, "processes": [7, 8, 9, 10], "writes": {"total": 12}}, "prefetch_count": 4}}"#;
const REPLIES: [&[u8]; 5] = [ACTIVE, SCHEDULED, QUEUES, STATS, br#"{"celery@b": []}"#];
const WORDS: &[&str] = &[
    "celery@a",
    "celery@b",
    "delivery_info",
    "routing_key",
    "exchange",
    "acknowledged",
    "time_start",
    "eta",
    "request",
    "pool",
    "processes",
    "max-concurrency",
    "hostname",
    "worker-heartbeat",
    "worker-online",
    "freq",
    "active",
    "processed",
    "pid",
    "type",
    "topic",
    "#",
    "*",
];

const METHODS: [(Method, &str); 5] = [
    (Method::Active, "t0"),
    (Method::Reserved, "t1"),
    (Method::Scheduled, "t2"),
    (Method::ActiveQueues, "t3"),
    (Method::Stats, "t4"),
];

/// A body as Redis carries it.
fn envelope(body: &[u8], ticket: &str) -> Vec<u8> {
    let body = base64::engine::general_purpose::STANDARD.encode(body);
    format!(
        r#"{{"body": "{body}", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"ticket": "{ticket}"}}, "properties": {{"body_encoding": "base64"}}}}"#
    )
    .into_bytes()
}

fn heard(read: &Result<Option<crate::signals::Heartbeat>, super::Unbelievable>) -> usize {
    match read {
        Ok(heartbeat) => heartbeat.as_ref().map_or(0, |heartbeat| heartbeat.node.len()),
        Err(odd) => odd.node.as_ref().map_or(0, String::len),
    }
}

/// An inquiry that gets these bytes for an answer to each of its questions, of which one lacks its own.
fn inquiry(take: impl Fn(&mut Collector, &str)) -> usize {
    let nodes = ["celery@a".to_owned(), "celery@b".to_owned()];
    let mut collector = Collector::new(
        &nodes,
        &METHODS.map(|(method, ticket)| (method, ticket.to_owned())),
    );
    for (_, ticket) in METHODS {
        take(&mut collector, ticket);
    }
    let known = Bindings::plain("orders");
    let answer = |told: super::Told| {
        let answer = told.answer(&known, Timestamp::UNIX_EPOCH);
        let names = answer
            .running
            .keys()
            .chain(answer.reserved.keys())
            .chain(answer.scheduled.keys());
        names.chain(&answer.queues).map(|name| name.len() + 64).sum()
    };
    let ended = collector.finish().into_iter();
    ended
        .map(|(node, told)| node.len() + told.map_or_else(|words| words.len(), answer))
        .sum()
}

/// The same, with answers that are whole but for these bytes in the place of one.
fn but_one(body: &[u8], at: usize) -> usize {
    const WHOLE: [&[u8]; 5] = [ACTIVE, br#"{"celery@a": []}"#, SCHEDULED, QUEUES, STATS];
    inquiry(|collector, ticket| {
        let place = METHODS.iter().position(|(_, one)| *one == ticket).unwrap_or(0);
        let body = if place == at { body } else { WHOLE[place] };
        collector.take_body(ticket, "application/json", "utf-8", body);
    })
}

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let envelopes = [HEARTBEAT, ACTIVE, QUEUES].map(|body| envelope(body, "t0"));
    let envelopes: Vec<&[u8]> = envelopes.iter().map(Vec::as_slice).collect();
    let each = |name, at: usize| Target::bytes(name, &REPLIES, move |body| but_one(body, at)).words(WORDS);
    vec![
        Target::bytes("celery: event", &[HEARTBEAT, OFFLINE], |body| {
            heard(&heartbeat_from_body(body))
        })
        .words(WORDS),
        Target::bytes("celery: event in its envelope", &envelopes, |message| {
            heard(&heartbeat_from_envelope(message))
        })
        .words(&[
            "body",
            "content-type",
            "properties",
            "body_encoding",
            "base64",
            "headers",
        ]),
        Target::bytes("celery: envelope of an event", &[HEARTBEAT, OFFLINE], |body| {
            heard(&heartbeat_from_envelope(&envelope(body, "t0")))
        })
        .words(WORDS),
        each("celery: answer to active", 0),
        each("celery: answer to reserved", 1),
        each("celery: answer to scheduled", 2),
        each("celery: answer to active_queues", 3),
        each("celery: answer to stats", 4),
        Target::bytes("celery: answer in its envelope", &envelopes, |message| {
            inquiry(|collector, _| collector.take_envelope(message))
        })
        .words(&["body", "headers", "ticket", "t0", "t1", "t2", "t3", "t4"]),
        Target::bytes("celery: envelope of an answer", &REPLIES, |body| {
            inquiry(|collector, ticket| collector.take_envelope(&envelope(body, ticket)))
        })
        .words(WORDS),
        Target::bytes("celery: node of a long answer", &envelopes, |message| {
            node_of_envelope_start(message).map_or(0, |node| node.len())
        })
        .words(&["body", "\":", "eyJ"]),
        Target::text(
            "celery: topic",
            &["mail.#|mail.de.all", "*.*.#|a.b.c", "#.#.#.#|a.b.c.d"],
            |text| {
                let (pattern, key) = text.split_once('|').unwrap_or((text, ""));
                usize::from(Topics::new().matches(pattern, key))
            },
        )
        .words(&["#", "*", ".", "#.#.#.#", "|"]),
    ]
}
