use std::net::Ipv4Addr;
use std::sync::Mutex as StdMutex;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use poolwright_api::v1alpha1::PrometheusQuery;
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::signals::guard::{Class, network};
use crate::signals::load::Prometheus;

/// The A records that a name server gives for a name, the n-th time that it is asked for them.
type Zone = fn(name: &str, time: usize) -> Vec<[u8; 4]>;

/// A name server on loopback, and the names that it was asked for.
async fn name_server(zone: Zone) -> (ResolverConfig, Arc<StdMutex<Vec<String>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut connection = ConnectionConfig::udp();
    connection.port = socket.local_addr().unwrap().port();
    let asked = Arc::new(StdMutex::new(Vec::<String>::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let answer = answer(&buffer[..length], zone, &seen);
            let _ = socket.send_to(&answer, peer).await;
        }
    });
    let server = NameServerConfig::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true, vec![connection]);
    let search = vec![Name::from_ascii("shop.svc.test.").unwrap()];
    (ResolverConfig::from_parts(None, search, vec![server]), asked)
}

/// NXDOMAIN for a name without addresses; nothing for another type than A.
fn answer(query: &[u8], zone: Zone, asked: &StdMutex<Vec<String>>) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let (name, question) = (labels.join("."), &query[12..at + 5]);
    let wants_a = question[question.len() - 4..] == [0, 1, 0, 1];
    let time = asked
        .lock()
        .unwrap()
        .iter()
        .filter(|before| **before == name)
        .count();
    let known = zone(&name, time);
    let code = if known.is_empty() { 3 } else { 0 };
    let records = if wants_a {
        asked.lock().unwrap().push(name);
        known
    } else {
        Vec::new()
    };
    let mut out = query[..2].to_vec();
    out.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(records.len()).unwrap(),
        0,
        0,
        0,
        0,
    ]);
    out[7] = u8::try_from(records.len()).unwrap();
    out[6] = 0;
    out.extend(question);
    for record in records {
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        out.extend(record);
    }
    out
}

async fn inside(zone: Zone, allowed: &[&str]) -> (Network, Arc<StdMutex<Vec<String>>>) {
    let (config, asked) = name_server(zone).await;
    let allowed = allowed.iter().map(|text| network(text).unwrap()).collect();
    let servers = vec![("kubernetes.test.".to_owned(), 443)];
    (
        Network::of_servers(config, Policy::inside(allowed), servers).unwrap(),
        asked,
    )
}

fn zone(name: &str, time: usize) -> Vec<[u8; 4]> {
    match (name, time) {
        ("good.test" | "broker.shop.svc.test", _) | ("turns.test", 0) => vec![[10, 1, 2, 3]],
        ("both.test", _) => vec![[10, 1, 2, 3], [169, 254, 169, 254]],
        ("kubernetes.test" | "alias.test", _) => vec![[10, 96, 0, 1]],
        // Allowed first, and not any more.
        ("moves.test", 0) => vec![[127, 1, 0, 1]],
        ("turns.test" | "moves.test", _) => vec![[127, 0, 0, 1]],
        _ => Vec::new(),
    }
}

async fn class(network: &Network, host: &str, port: u16) -> Option<Class> {
    match network.resolve(host, port).await {
        Err(Unusable::Refused(refusal)) => Some(refusal.class),
        Err(Unusable::Unknown(words)) => panic!("{host}: {words}"),
        Ok(_) => None,
    }
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_judged_whole() {
    let (network, asked) = inside(zone, &[]).await;
    let found = network.resolve("good.test.", 6379).await.unwrap();
    assert_eq!(found, ["10.1.2.3:6379".parse().unwrap()]);
    let times = |name: &str| {
        asked
            .lock()
            .unwrap()
            .iter()
            .filter(|asked| *asked == name)
            .count()
    };
    assert_eq!(times("good.test"), 1);
    assert_eq!(class(&network, "both.test.", 6379).await, Some(Class::LinkLocal));
    for name in ["localhost", "localhost.", "127.0.0.1."] {
        assert_eq!(class(&network, name, 6379).await, Some(Class::Loopback), "{name}");
    }
    assert_eq!(class(&network, "alias.test.", 443).await, Some(Class::ApiServer));
    assert_eq!(
        class(&network, "alias.test.", 6379).await,
        Some(Class::ApiServerHost)
    );
    for name in ["0x7f.1", "2130706433", "none.test."] {
        let unknown = network.resolve(name, 6379).await;
        assert!(matches!(unknown, Err(Unusable::Unknown(_))), "{name}");
    }
}

#[tokio::test]
async fn a_name_that_turns_bad_is_refused_the_next_time() {
    let (network, _) = inside(zone, &[]).await;
    assert_eq!(class(&network, "turns.test.", 6379).await, None);
    assert_eq!(class(&network, "turns.test.", 6379).await, Some(Class::Loopback));
}

#[tokio::test]
async fn search_domains_complete_a_short_name() {
    let (network, _) = inside(zone, &[]).await;
    let found = network.resolve("broker", 6379).await.unwrap();
    assert_eq!(found, ["10.1.2.3:6379".parse().unwrap()]);
}

#[tokio::test]
async fn without_name_servers_addresses_can_be_used_and_names_cannot() {
    let network = Network::new(None, Policy::inside(Vec::new()), Vec::new());
    assert_eq!(class(&network, "10.1.2.3", 6379).await, None);
    let error = network
        .resolve("good.test", 6379)
        .await
        .unwrap_err()
        .error("spec.broker");
    assert_eq!(error.kind, FaultKind::Unreachable);
    assert!(error.message.contains("names no name server"), "{error}");
}

/// Counts who connects, and answers nobody.
async fn listener(address: &str) -> (u16, Arc<StdMutex<usize>>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(StdMutex::new(0));
    let into = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            *into.lock().unwrap() += 1;
            drop(stream);
        }
    });
    (port, count)
}

/// What is connected to is the address that was judged: the name has another one by then.
#[tokio::test]
async fn http_connects_to_the_address_that_was_judged() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (port, good) = listener("127.1.0.1:0").await;
    let (_, bad) = listener(&format!("127.0.0.1:{port}")).await;
    let (network, _) = inside(zone, &["127.1.0.0/16"]).await;
    let prometheus = Prometheus::new(network).unwrap();
    let read = |host: &str| {
        let (url, query) = (format!("http://{host}:{port}"), "1".to_owned());
        let prometheus = prometheus.clone();
        async move {
            prometheus
                .read(&PrometheusQuery { url, query })
                .await
                .unwrap_err()
        }
    };
    let first = read("moves.test.").await;
    assert_eq!(first.kind, FaultKind::Unreachable, "{first}");
    assert_eq!((*good.lock().unwrap(), *bad.lock().unwrap()), (1, 0));
    for host in [
        "moves.test.",
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "127.0.0.1.",
        "[::ffff:7f00:1]",
        "localhost",
    ] {
        let error = read(host).await;
        assert_eq!(error.kind, FaultKind::Refused, "{host}: {error}");
        assert!(
            error.message.starts_with("source.prometheus.url: "),
            "{host}: {error}"
        );
    }
    assert_eq!((*good.lock().unwrap(), *bad.lock().unwrap()), (1, 0));
}
