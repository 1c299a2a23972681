//! Addresses as people write them, and what must never be shown of them.

use proptest::prelude::*;

use super::{BrokerConfig, BrokerError, BrokerKind, BrokerOptions, Secret, Tls};

fn parse(url: &str) -> Result<BrokerConfig, BrokerError> {
    let options = BrokerOptions {
        sentinel_master: Some("mymaster".into()),
        ..BrokerOptions::default()
    };
    BrokerConfig::parse(url, &options)
}

fn virtual_host(url: &str) -> String {
    parse(url).unwrap().virtual_host
}

#[test]
fn redis_addresses() {
    let plain = parse("redis://cache").unwrap();
    assert_eq!(
        (plain.kind, plain.hosts.as_slice(), plain.database),
        (BrokerKind::Redis, &[("cache".into(), 6379)][..], 0)
    );
    assert_eq!(plain.address(), "redis://cache:6379/0");
    assert!(plain.tls.is_none() && plain.username.is_none() && plain.sentinel_master.is_none());

    let full = parse("rediss://al%40ice:p%2Fw@h:7000/3?ssl_cert_reqs=required").unwrap();
    assert_eq!(full.username.as_deref(), Some("al@ice"));
    assert_eq!(full.password.as_ref().map(Secret::expose), Some("p/w"));
    assert_eq!((full.database, full.tls.clone()), (3, Some(Tls::default())));
    assert_eq!(full.address(), "rediss://h:7000/3");

    assert_eq!(parse("redis://:pw@h//5").unwrap().database, 5);
    assert_eq!(
        parse("redis://[::1]:6380/1").unwrap().address(),
        "redis://[::1]:6380/1"
    );
    assert_eq!(
        parse("redis://[::1]:6380/1").unwrap().hosts,
        [("::1".into(), 6380)]
    );
}

#[test]
fn several_sentinels_share_user_database_and_scheme() {
    let config = parse("sentinel://:pw@a:26379/2;sentinel://b;sentinel://:pw@c:26380").unwrap();
    assert_eq!(
        config.hosts,
        [("a".into(), 26379), ("b".into(), 26379), ("c".into(), 26380)]
    );
    assert_eq!(
        (config.database, config.sentinel_master.as_deref()),
        (2, Some("mymaster"))
    );
    assert_eq!(config.address(), "sentinel://a:26379,b:26379,c:26380/2");
    assert_eq!(
        parse("sentinel://a/1;sentinel://b/2"),
        Err(BrokerError::Parts("database or virtual host"))
    );
    assert_eq!(
        parse("sentinel://:x@a;sentinel://:y@b"),
        Err(BrokerError::Parts("user name and password"))
    );
    assert_eq!(parse("sentinel://a;redis://b"), Err(BrokerError::Parts("scheme")));
    assert_eq!(parse("redis://a;redis://b"), Err(BrokerError::Hosts("Redis", 1)));
    assert_eq!(
        BrokerConfig::parse("sentinel://a", &BrokerOptions::default()),
        Err(BrokerError::SentinelMaster)
    );
}

#[test]
fn virtual_hosts_are_read_as_kombu_reads_them() {
    for root in [
        "amqp://h",
        "amqp://h/",
        "amqp://h/%2F",
        "amqp://h/%2f",
        "amqp://h//",
        "pyamqp://guest@h//",
    ] {
        assert_eq!(virtual_host(root), "/", "{root}");
    }
    assert_eq!(virtual_host("amqp://h/team"), "team");
    assert_eq!(virtual_host("amqp://h/a%20b%2Fc"), "a b/c");
    assert_eq!(
        parse("amqp://u:p@h/team").unwrap().address(),
        "amqp://h:5672/team"
    );
    assert_eq!(parse("amqps://h").unwrap().address(), "amqps://h:5671/");
    assert_eq!(parse("amqp://a;amqp://b:1").unwrap().hosts.len(), 2);
    assert_eq!(parse("amqp://h/%00"), Err(BrokerError::VirtualHost));
}

#[test]
fn management_takes_the_brokers_credentials_unless_it_has_its_own() {
    let with = |management: &str| {
        let options = BrokerOptions {
            management_url: Some(Secret::new(management)),
            metrics_url: Some(Secret::new("http://h:15692/")),
            ..BrokerOptions::default()
        };
        BrokerConfig::parse("amqp://u:p@h/", &options)
    };
    let found = with("https://h:15671/rabbit/").unwrap();
    let management = found.management_url.unwrap();
    assert_eq!(management.url, "https://h:15671/rabbit");
    assert_eq!(
        (
            management.username.as_deref(),
            management.password.unwrap().expose()
        ),
        (Some("u"), "p")
    );
    let metrics = found.metrics_url.unwrap();
    assert_eq!(
        (metrics.url.as_str(), metrics.username, metrics.password),
        ("http://h:15692", None, None)
    );
    let own = with("http://m:n@h:15672").unwrap().management_url.unwrap();
    assert_eq!(
        (own.username.as_deref(), own.password.as_ref().unwrap().expose()),
        (Some("m"), "n")
    );
    assert_eq!(format!("{own:?}"), "http://h:15672");
    assert_eq!(with("ftp://h"), Err(BrokerError::Http("rabbitmq.managementUrl")));
}

#[test]
fn a_brokers_login_goes_to_no_other_host() {
    let with = |broker: &str, management: &str| {
        let options = BrokerOptions {
            management_url: Some(Secret::new(management)),
            ..BrokerOptions::default()
        };
        BrokerConfig::parse(broker, &options).map(|found| found.management_url.unwrap().username)
    };
    let elsewhere = Err(BrokerError::Elsewhere("rabbitmq.managementUrl"));
    for management in [
        "http://else:15672",
        "http://h.else",
        "http://10.0.0.1",
        "http://[::1]:15672",
    ] {
        assert_eq!(with("amqp://u:p@h/", management), elsewhere, "{management}");
        assert_eq!(with("amqp://u@h/", management), elsewhere, "{management}");
        // Where there is none to be sent, and where it has its own.
        assert_eq!(with("amqp://h/", management), Ok(None), "{management}");
        let own = management.replace("http://", "http://m:n@");
        assert_eq!(with("amqp://u:p@h/", &own), Ok(Some("m".into())), "{management}");
    }
    let user = Ok(Some("u".into()));
    assert_eq!(with("amqp://u:p@h:5671/", "https://H:15671"), user);
    assert_eq!(with("amqps://u:p@h/", "https://h:15671"), user);
    let in_clear = Err(BrokerError::InClear("rabbitmq.managementUrl"));
    assert_eq!(with("amqps://u:p@h/", "http://h:15672"), in_clear);
    assert_eq!(with("amqps://u:p@h/", "http://m:n@h:15672"), Ok(Some("m".into())));
    assert_eq!(with("amqp://u:p@a;amqp://u:p@b", "http://b:15672"), user);
    assert_eq!(with("amqp://u:p@[::1]:5672/", "http://[::1]:15672"), user);
}

#[test]
fn unusable_options_are_named() {
    let with = |url: &str, change: &dyn Fn(&mut BrokerOptions)| {
        let mut options = BrokerOptions::default();
        change(&mut options);
        BrokerConfig::parse(url, &options).unwrap_err()
    };
    assert_eq!(
        with("redis://h", &|o| o.tls = Some(Tls::default())),
        BrokerError::TlsScheme("redis")
    );
    let lonely = Tls {
        client_cert_pem: Some("x".into()),
        ..Tls::default()
    };
    assert_eq!(
        with("rediss://h", &|o| o.tls = Some(lonely.clone())),
        BrokerError::ClientCertificate
    );
    assert_eq!(
        with("redis://h", &|o| o.priority_steps = vec![]),
        BrokerError::PrioritySteps
    );
    assert_eq!(
        with("redis://h", &|o| o.priority_steps = vec![3, 3]),
        BrokerError::PrioritySteps
    );
    assert_eq!(
        with("redis://h", &|o| o.event_exchange.clear()),
        BrokerError::Empty("eventExchange")
    );
    assert_eq!(
        with("redis://h", &|o| o.key_prefix = "a\nb".into()),
        BrokerError::Name("redis.keyPrefix")
    );
    assert_eq!(
        with("redis://h", &|o| o.key_prefix = "é".repeat(256)),
        BrokerError::Name("redis.keyPrefix")
    );
    assert_eq!(
        with("sentinel://h", &|o| o.sentinel_master = Some("m".repeat(256))),
        BrokerError::Name("redis.sentinelMaster")
    );
    let words = BrokerError::Name("redis.keyPrefix").to_string();
    assert!(words.contains("at most 255 characters"), "{words}");
}

#[test]
fn unusable_addresses_are_explained_without_their_user_information() {
    let hidden = [
        ("redis://user:12#hunter2@host/0", BrokerError::Ambiguous("#")),
        ("redis://user:12?hunter2@host/0", BrokerError::Ambiguous("@")),
        ("amqp://user:12/hunter2@host/v", BrokerError::Ambiguous("@")),
        ("redis://:hunter2@host/nine", BrokerError::Database),
        ("redis://:hunter2@host:99999/0", BrokerError::Syntax),
        ("redis://:hunter2@/0", BrokerError::Syntax),
        ("http://:hunter2@host", BrokerError::Scheme),
        ("hunter2", BrokerError::Scheme),
        ("", BrokerError::Scheme),
    ];
    for (url, expected) in hidden {
        let error = parse(url).unwrap_err();
        if expected != BrokerError::Syntax {
            assert_eq!(error, expected);
        }
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    assert!(matches!(
        parse("redis://"),
        Err(BrokerError::Host | BrokerError::Syntax)
    ));
}

#[test]
fn a_secret_prints_as_redacted() {
    let config = parse("amqp://somebody:hunter2@h/v").unwrap();
    let shown = format!(
        "{config:?} {} {:?} {}",
        config.address(),
        config.password,
        Secret::new("hunter2")
    );
    assert!(
        !shown.contains("hunter2") && !shown.contains("somebody"),
        "{shown}"
    );
    assert!(shown.contains("[redacted]"));
}

proptest! {
    #[test]
    fn no_text_panics_and_no_encoded_password_shows(text in ".{0,80}", password in "[a-z]{12,20}") {
        let _ = parse(&text);
        let _ = parse(&format!("redis://{text}"));
        let shown = format!("{:?}", parse(&format!("amqp://u{password}:{password}@h/{text}")));
        prop_assert!(!shown.contains(&password));
    }
}
