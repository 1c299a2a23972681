//! The parsers of what brokers, workers, Prometheus and name servers say, for the fuzzer.

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::Name;

use super::{airflow, celery, eta_milliseconds, guard, load, rabbitmq, redis};
use crate::fuzz::Target;

/// A name server's answer: `broker.example. 300 IN A 10.0.0.7`, and the same name again as an alias.
const DNS: &[u8] = b"\x12\x34\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00\x06broker\x07example\x00\x00\x01\x00\x01\
\xc0\x0c\x00\x05\x00\x01\x00\x00\x01\x2c\x00\x04\x01a\xc0\x0c\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\x0a\x00\x00\x07";

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let mut all = own();
    all.extend(celery::fuzzed::targets());
    all.extend(redis::fuzzed::targets());
    all.extend(rabbitmq::fuzzed::targets());
    all.extend(airflow::fuzzed::targets());
    all
}

fn own() -> Vec<Target> {
    let etas = [
        "2026-11-22T09:03:41.494128+00:00",
        "2026-11-22T09:03:41",
        "9999-12-31T23:59:59.999999Z",
        "0001-01-01T00:00:00",
    ];
    let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1700000000.1,"72.5"]}}"#;
    let vector = br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1,"91"]}]}}"#;
    let hosts = [
        "redis",
        "redis.shop.svc.cluster.local.",
        "10.0.0.7",
        "[fd00::1]",
        "0x7f.1",
        "::ffff:169.254.169.254",
    ];
    vec![
        Target::text("celery: ETA", &etas, |text| {
            eta_milliseconds(text).map_or(0, |_| size_of::<i64>())
        }),
        Target::bytes("prometheus: answer", &[scalar, vector], |body| {
            load::load(body).map_or_else(|error| error.message.len(), |_| size_of::<f64>())
        })
        .words(&[
            "resultType",
            "result",
            "scalar",
            "vector",
            "matrix",
            "data",
            "value",
        ]),
        Target::text("network: host", &hosts, |text| {
            usize::from(guard::host(text) == guard::Host::Name)
        })
        .words(&["0x", "::", "[", "]", ".", "%eth0"]),
        Target::text(
            "network: CIDR",
            &["10.1.2.0/24", "fd00::/64", "10.0.0.7", "0.0.0.0/0"],
            |text| guard::network(text).map_or_else(|words| words.len(), |_| 0),
        )
        .words(&["/", "/33", "/129", "::"]),
        Target::text("network: name to look up", &hosts, |text| {
            let name = Name::from_utf8(text).or_else(|_| Name::from_ascii(text));
            name.map_or(0, |name| name.to_string().len())
        })
        .words(&[".", "xn--", "\\046", "\u{3002}"]),
        Target::bytes("network: DNS answer", &[DNS], |bytes| {
            Message::from_vec(bytes).map_or(0, |answer| answer.answers.len())
        }),
    ]
}
