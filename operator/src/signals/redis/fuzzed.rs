//! The parsers of what Redis and its sentinels answer, for the fuzzer.
//!
//! The library reads the protocol, and hands over values. Any bytes are such a value here, so that each input comes as far
//! as the parsers.

use std::collections::HashMap;

use poolwright_core::later::Later;
use redis::Value;
use tokio::time::Instant;

use super::scripts;
use super::unacked::Entries;
use super::waiting::Looks;
use super::{connect, poll};
use crate::fuzz::Target;

/// Deepest list of lists.
const DEPTH_MAX: usize = 16;

/// `[` and `]` around a list, `:12;` for a number, `"text;` for a string, `+text;` for a status, `_` for nothing; whatever
/// else stands there is passed over.
fn value(rest: &mut &[u8], depth: usize) -> Option<Value> {
    loop {
        let (first, after) = rest.split_first()?;
        *rest = after;
        match first {
            b'[' if depth < DEPTH_MAX => {
                let mut all = Vec::new();
                while let Some(one) = value(rest, depth + 1) {
                    all.push(one);
                }
                return Some(Value::Array(all));
            }
            b']' => return None,
            b':' => {
                let number = std::str::from_utf8(until(rest))
                    .ok()
                    .and_then(|text| text.parse().ok());
                return Some(Value::Int(number.unwrap_or(i64::MIN)));
            }
            b'"' => return Some(Value::BulkString(until(rest).to_vec())),
            b'+' => {
                return Some(Value::SimpleString(
                    String::from_utf8_lossy(until(rest)).into_owned(),
                ));
            }
            b'_' => return Some(Value::Nil),
            _ => {}
        }
    }
}

/// What stands before the next `;`.
fn until<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| *byte == b';').unwrap_or(rest.len());
    let (text, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    text
}

fn values(mut bytes: &[u8]) -> Vec<Value> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        all.extend(value(&mut bytes, 0));
    }
    all
}

fn sum(later: &Later) -> usize {
    size_of_val(later)
}

/// A look into lists of so many messages, and what it says of each of them.
fn look(rows: &[Value]) -> usize {
    let mut looks = Looks::default();
    let lists: Vec<String> = (0..rows.len().min(64)).map(|at| format!("list{at}")).collect();
    let lengths: HashMap<&str, u64> = lists.iter().map(|list| (list.as_str(), 1000)).collect();
    looks.seen(&lists, &lengths, rows, Instant::now());
    let one = |list: &String| {
        let not_due = looks.not_due(list, 1_000_000_000, 1_795_338_221_494);
        sum(&looks.later(list, not_due, 1_795_338_221_494))
    };
    lists.iter().map(one).sum()
}

/// An index of what is fetched, with its entries read.
fn index(all: &[Value]) -> usize {
    let mut entries = Entries::default();
    let nothing = Value::Array(Vec::new());
    let end = |at: usize| all.get(at).unwrap_or(&nothing);
    if entries.listed(1_000_000, [end(0), end(1)]).is_none() {
        return 0;
    }
    for (at, tag) in entries.unread().into_iter().enumerate() {
        let entry = (
            String::new(),
            "orders".to_owned(),
            (at % 2 == 0).then_some(i64::MAX),
        );
        entries.learn(tag, (at % 5 > 0).then_some(entry));
    }
    let told = entries.tally(1_795_338_221_494, |_, key| key.to_owned());
    told.map_or(0, |told| told.values().map(|one| 32 * one.fetched.len()).sum())
}

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let entry: &[u8] = br#"[{"body": "W10=", "content-type": "application/json", "headers": {"task": "shop.pay", "eta": "2026-11-22T09:03:41.494128+00:00"}, "properties": {"delivery_tag": "5f0c"}}, "", "orders"]"#;
    vec![
        Target::bytes(
            "redis: unacked entry",
            &[entry, br#"[{"headers":{"eta":null}},null,"q"]"#],
            |bytes| scripts::entry(bytes).map_or(0, |(exchange, key, _)| exchange.len() + key.len()),
        )
        .words(&["headers", "eta", "null"]),
        Target::bytes(
            "redis: text that a script cut out",
            &[br"caf\u00e9", br"orders", br"\ud83d\ude00"],
            |bytes| scripts::unescaped(bytes).map_or(0, |text| text.len()),
        )
        .words(&["\\u", "\\ud83d", "\\\""]),
        Target::bytes(
            "redis: binding",
            &[b"mail.de\x06\x16mail.#\x06\x16mail", b"\x06\x16\x06\x16orders"],
            |bytes| poll::binding(bytes).map_or(0, |(key, queue)| key.len() + queue.len()),
        )
        .words(&["\u{6}\u{16}", "#", "*"]),
        Target::bytes(
            "redis: look into waiting messages",
            &[b"[:40;[:25;\"2026-11-22T09:03:41+00:00;][:15;]][:3;[:3;][:0;]]"],
            |bytes| look(&values(bytes)),
        )
        .words(&["[:", ";]", "\"9999-12-31T23:59:59Z;", ":1000000000;", "_"]),
        Target::bytes(
            "redis: index of unacked messages",
            &[b"[\"5f0c;\"1795338221.5;\"5f0d;\"1795338222;]", b"[][]"],
            |bytes| index(&values(bytes)),
        )
        .words(&["\"inf;", "\"nan;", "\"-1e308;", "[", "]", "\"a;\"1;"]),
        Target::bytes(
            "redis: sentinel's answer",
            &[b"[\"10.0.0.7;\"6379;]", b"_", b"[+redis;+6379;]"],
            |bytes| {
                let all = values(bytes);
                let found = all.first().map(connect::master_of);
                found.map_or(0, |found| {
                    found.map_or_else(|error| error.message.len(), |(host, _)| host.len())
                })
            },
        )
        .words(&["\"65536;", "\"-1;", "_"]),
    ]
}
