//! The parsers of what RabbitMQ answers over HTTP, and of where it is asked, for the fuzzer. AMQP itself is read by the
//! library.

use super::totals::{Source, Totals, management, metrics, url};
use crate::fuzz::Target;

const ROWS: &[u8] =
    br#"[{"name":"a","vhost":"/","messages_unacknowledged":3,"type":"classic","arguments":{"x-max-priority":5}},{"name":"b","state":"down"}]"#;
const LINES: &[u8] = b"# TYPE rabbitmq_detailed_queue_messages_unacked gauge\n\
    # HELP rabbitmq_detailed_queue_messages_unacked Messages delivered\n\
    rabbitmq_detailed_queue_messages_unacked{vhost=\"/\",queue=\"a\"} 4\n\
    rabbitmq_detailed_queue_messages_unacked{vhost=\"/\",queue=\"q\\\"}\\\\,\"} 2\n\
    rabbitmq_detailed_queue_messages_unacked{vhost=\"other\",queue=\"a\"} 9\n\
    rabbitmq_detailed_queue_messages_ready{vhost=\"/\",queue=\"a\"} 7\n";

fn kept(totals: Option<Totals>) -> usize {
    totals.map_or(0, |totals| totals.keys().map(|name| name.len() + 64).sum())
}

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let addresses = [
        "http://mq:15672",
        "https://user:p%40ss@mq/under/",
        "http://mq:15692/metrics/per-object?x=1",
    ];
    vec![
        Target::bytes("rabbitmq: management", &[ROWS, br#"{"error":"x"}"#], |body| {
            kept(management(body))
        })
        .words(&["name", "messages_unacknowledged", "null"]),
        Target::bytes("rabbitmq: metrics", &[LINES], |body| kept(metrics(body, "/"))).words(&[
            "rabbitmq_detailed_queue_messages_unacked{",
            "vhost=\"/\"",
            "queue=\"",
            "\\",
            "\"}",
            "} ",
            "=\"",
            ",",
        ]),
        Target::text("rabbitmq: address to ask", &addresses, |text| {
            let urls = [Source::Management, Source::Metrics].map(|source| url(source, text, "a/b c\u{e4}"));
            urls.into_iter().flatten().map(|url| url.as_str().len()).sum()
        })
        .words(&["://", "/metrics", "mailto:", "data:,", "@", "[::1]"]),
    ]
}
