use poolwright_api::v1alpha1::AirflowSync;

use super::*;

fn parse(line: &str) -> Result<Command, String> {
    Cli::try_from_arguments(line.split(' '))
        .map(|cli| cli.command)
        .map_err(|error| error.to_string())
}

fn run(line: &str) -> RunArgs {
    match parse(line) {
        Ok(Command::Run(args)) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn run_has_defaults() {
    let args = run("poolwright run");
    assert_eq!(
        args.http_address_or_default(true),
        SocketAddr::from(([0, 0, 0, 0], 8080))
    );
    assert_eq!(
        args.http_address_or_default(false),
        SocketAddr::from(([127, 0, 0, 1], 0))
    );
    assert_eq!(args.log_format_or_default(true), LogFormat::Json);
    assert_eq!(args.log_format_or_default(false), LogFormat::Text);
    assert_eq!(
        (args.poll_interval_milliseconds, args.status_writes_per_second),
        (200, 10)
    );
    assert!(args.namespaces.is_empty());
}

#[test]
fn run_takes_flags() {
    let args = run(
        "poolwright run --http-address 127.0.0.1:9000 --namespace a --namespace b --log-format json \
         --log-level poolwright=debug --poll-interval-milliseconds 50 --status-writes-per-second 20"
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .as_str(),
    );
    assert_eq!(
        args.http_address_or_default(true),
        SocketAddr::from(([127, 0, 0, 1], 9000))
    );
    assert_eq!(args.namespaces, ["a", "b"]);
    assert_eq!(args.log_format_or_default(false), LogFormat::Json);
    assert_eq!(args.log_level, "poolwright=debug");
    assert_eq!(
        (args.poll_interval_milliseconds, args.status_writes_per_second),
        (50, 20)
    );
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    for value in ["49", "2001", "-1", "x"] {
        assert!(parse(&format!("poolwright run --poll-interval-milliseconds={value}")).is_err());
    }
    let words = parse("poolwright run --poll-interval-milliseconds=49").unwrap_err();
    assert!(words.contains("50..=2000"), "{words}");
    assert!(parse("poolwright run --status-writes-per-second=0").is_err());
}

#[test]
fn a_lease_is_named_with_its_namespace() {
    let args = run("poolwright run --lease poolwright/operator --lease-seconds 3");
    let name = args.lease.expect("a name").to_string();
    assert_eq!((name.as_str(), args.lease_seconds), ("poolwright/operator", 3));
    let args = run("poolwright run");
    assert_eq!((args.lease, args.lease_seconds), (None, 15));
    for text in [
        "operator",
        "/operator",
        "a/",
        "a/b/c",
        "A/b",
        "a.b/c",
        "-a/b",
        "a/b-",
        "a/.b",
        "a/b c",
    ] {
        assert!(
            parse(&format!("poolwright run --lease={text}")).is_err(),
            "{text}"
        );
    }
    for seconds in ["2", "301"] {
        assert!(parse(&format!("poolwright run --lease a/b --lease-seconds={seconds}")).is_err());
    }
    let words = parse("poolwright run --lease-seconds=5").unwrap_err();
    assert!(words.contains("--lease"), "{words}");
}

#[test]
fn a_shard_is_chosen_by_a_selector_or_by_names_and_never_by_both() {
    let selector = run("poolwright run --namespace-selector=shard=a,!own").namespace_selector;
    assert_eq!(selector.expect("one").to_string(), "!own,shard=a");
    assert_eq!(run("poolwright run").namespace_selector, None);
    let words = parse("poolwright run --namespace-selector=shard= --namespace b").unwrap_err();
    assert!(
        words.contains("--namespace-selector") && words.contains("cannot be used with"),
        "{words}"
    );
    for text in ["", "=a", "shard=a:b"] {
        let words = parse(&format!("poolwright run --namespace-selector={text}")).unwrap_err();
        assert!(
            words.contains("--namespace-selector") && words.contains("a label selector is like"),
            "{words}"
        );
    }
}

#[test]
fn a_certificate_and_its_key_are_named_together() {
    let files =
        run("poolwright run --metrics-tls-cert /tls/tls.crt --metrics-tls-key /tls/tls.key").metrics_tls();
    let (certificate, key) = (PathBuf::from("/tls/tls.crt"), PathBuf::from("/tls/tls.key"));
    assert_eq!(files, Some(tls::Files { certificate, key }));
    assert_eq!(run("poolwright run").metrics_tls(), None);
    for (given, missing) in [("cert", "key"), ("key", "cert")] {
        let words = parse(&format!("poolwright run --metrics-tls-{given} a")).unwrap_err();
        assert!(
            words.contains(&format!("--metrics-tls-{missing} <FILE>")),
            "{words}"
        );
    }
}

#[test]
fn explain_takes_kind_and_name() {
    for text in [
        "wp/mail",
        "mail",
        "workerpool/mail",
        "WorkerPools.poolwright.dev/mail",
    ] {
        match parse(&format!("poolwright explain {text} -n shop")) {
            Ok(Command::Explain(args)) => {
                assert_eq!(
                    (args.name.as_str(), args.namespace.as_deref()),
                    ("mail", Some("shop"))
                );
            }
            other => panic!("{other:?}"),
        }
    }
    for text in ["tq/mail", "wp/", "wp/a/b", "Mail", "wp/../x"] {
        assert!(parse(&format!("poolwright explain {text}")).is_err(), "{text}");
    }
}

#[test]
fn lint_takes_several_files_and_standard_input() {
    for line in ["poolwright lint -f a.yaml -f -", "poolwright lint -f a.yaml -"] {
        match parse(line) {
            Ok(Command::Lint(args)) => {
                assert_eq!(args.files, [PathBuf::from("a.yaml"), PathBuf::from("-")]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(parse("poolwright lint").is_err());
}

#[test]
fn lint_takes_an_airflow_with_manifests_or_alone() {
    for (flag, more) in [("config", ""), ("pools", " -f a.yaml"), ("tasks", "")] {
        match parse(&format!("poolwright lint --airflow-{flag} x{more}")) {
            Ok(Command::Lint(args)) => {
                let given = [&args.airflow_config, &args.airflow_pools, &args.airflow_tasks];
                assert_eq!(given.into_iter().flatten().count(), 1, "{flag}");
                assert_eq!(args.files.is_empty(), more.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }
}

fn import(flags: &str) -> Result<ImportArgs, String> {
    match parse(&format!("poolwright pools import - {flags}"))? {
        Command::Pools(PoolsArgs {
            what: PoolsCommand::Import(args),
        }) => Ok(args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pools_are_imported_for_an_airflow_that_is_named() {
    let args = import("--secret=airflow-api").unwrap();
    assert_eq!(args.sync, AirflowSync::Apply);
    assert_eq!((args.namespace, args.names), (None, Vec::new()));
    let args = import("--secret=s.t --sync=Mirror -n shop --name a=b=c --name d=e.f").unwrap();
    assert_eq!(args.sync, AirflowSync::Mirror);
    let names = [("a=b", "c"), ("d", "e.f")].map(|(pool, name)| (pool.to_owned(), name.to_owned()));
    assert_eq!(args.names, names);
    assert!(import("--sync=Apply").unwrap_err().contains("required"));
}

/// What no Pool can hold is refused before a manifest is printed.
#[test]
fn pools_are_imported_with_what_a_pool_can_hold() {
    for flags in [
        "--secret=S",
        "--secret=a..b",
        "--secret=s -n a.b",
        "--secret=s --sync=apply",
        "--secret=s --name a",
        "--secret=s --name a=B",
    ] {
        assert!(import(flags).unwrap_err().contains("invalid value"), "{flags}");
    }
    assert!(parse("poolwright pools export").is_err());
}

#[test]
fn a_plugin_says_how_kubectl_calls_it() {
    let words = parse("/usr/local/bin/kubectl-poolwright explain").unwrap_err();
    assert!(words.contains("Usage: kubectl poolwright explain"), "{words}");
    let words = parse("poolwright explain").unwrap_err();
    assert!(words.contains("Usage: poolwright explain"), "{words}");
}

#[test]
fn crd_prints_what_the_files_hold() {
    let folder = tempfile::tempdir().unwrap();
    let mut printed = Vec::new();
    crd(&CrdArgs { out: None }, &mut printed).unwrap();
    crd(
        &CrdArgs {
            out: Some(folder.path().join("new")),
        },
        &mut Vec::new(),
    )
    .unwrap();
    let committed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crds");
    let mut expected = Vec::new();
    for (file, _) in poolwright_api::crds() {
        let text = std::fs::read_to_string(committed.join(file)).unwrap();
        assert!(
            std::fs::read_to_string(folder.path().join("new").join(file)).unwrap() == text,
            "{file}"
        );
        expected.push(text);
    }
    assert!(String::from_utf8(printed).unwrap() == expected.join("---\n"));
}
