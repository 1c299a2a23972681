//! There and back, and what is refused.

use std::path::PathBuf;

use poolwright_api::v1alpha1::AirflowSync;
use proptest::prelude::*;

use super::*;
use crate::cli::{ExportArgs, ImportArgs};
use crate::lint::lint;

/// As Airflow 2.11.2 and 3.3.2 write them.
const EXPORTED: &str = r#"{
    "Gr\u00f6\u00dfe \ud83d\ude00=x": {
        "description": "\u00fc\ud83d\ude00\n\"quoted\"",
        "include_deferred": false,
        "slots": 0
    },
    "database_connections": {
        "description": null,
        "include_deferred": false,
        "slots": -1
    },
    "default_pool": {
        "description": "Default pool",
        "include_deferred": true,
        "slots": 128
    },
    "mail": {
        "description": "",
        "include_deferred": false,
        "slots": 1000000
    }
}"#;

fn args() -> ImportArgs {
    ImportArgs {
        file: PathBuf::from("pools.json"),
        secret: "airflow-api".to_owned(),
        sync: AirflowSync::Apply,
        namespace: None,
        names: Vec::new(),
    }
}

fn imported(text: &str, args: &ImportArgs) -> Result<String, String> {
    import::documents("pools.json", text, args).map_err(|error| error.to_string())
}

/// A file with this text, as long as the folder is kept.
fn file_of(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// What is exported from these manifests.
fn exported(manifests: &str) -> Result<String, String> {
    let (_folder, path) = file_of(manifests);
    let args = ExportArgs { files: vec![path] };
    export::run(&args).map_err(|error| error.to_string())
}

#[test]
fn a_pool_is_written_as_people_read_it() {
    let text = r#"{"default_pool": {"slots": 128, "description": "Default pool", "include_deferred": true},
                   "mail": {"slots": 5}}"#;
    let args = ImportArgs {
        namespace: Some("shop".to_owned()),
        sync: AirflowSync::Mirror,
        ..args()
    };
    let expected = "\
apiVersion: poolwright.dev/v1alpha1
kind: Pool
metadata:
  name: default-pool
  namespace: shop
spec:
  slots: 128
  description: Default pool
  includeDeferred: true
  airflow:
    secretRef:
      name: airflow-api
    name: default_pool
    sync: Mirror
---
apiVersion: poolwright.dev/v1alpha1
kind: Pool
metadata:
  name: mail
  namespace: shop
spec:
  slots: 5
  airflow:
    secretRef:
      name: airflow-api
    sync: Mirror
";
    assert_eq!(imported(text, &args).unwrap(), expected);
    assert_eq!(imported("{}", &args).unwrap(), "");
}

#[test]
fn there_and_back_is_the_same_file() {
    let manifests = imported(EXPORTED, &args()).unwrap();
    for name in [
        "name: gr--e---x",
        "name: database-connections",
        "name: default-pool",
    ] {
        assert!(manifests.contains(name), "{manifests}");
    }
    assert_eq!(exported(&manifests).unwrap().trim_end(), EXPORTED);
}

/// One of Airflow's pools, as odd as they come.
fn any_pool() -> impl Strategy<Value = file::FilePool> {
    let description = proptest::option::of(".{0,60}|[ -~\n\t]{0,60}|yes|null|0x1f|~|- a|\\|");
    (-1..=1_000_000_i32, description, any::<bool>()).prop_map(|(slots, description, include_deferred)| {
        file::FilePool {
            slots,
            description,
            include_deferred,
            offset: 0,
        }
    })
}

proptest! {
    // Few cases of many pools: most of the time goes into the schema that each case is checked by.
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever Airflow has, YAML keeps it, and no server would refuse it.
    #[test]
    fn any_pool_comes_back(
        pools in proptest::collection::btree_map("[a-z][ -~äß😀\n\t#:'\"]{0,40}|[^\\s]{1,20}", any_pool(), 1..24),
    ) {
        let text = file::write(&pools).unwrap();
        let names = pools.keys().enumerate().map(|(at, name)| (name.clone(), format!("p{at}")));
        let args = ImportArgs { names: names.collect(), ..args() };
        let manifests = imported(&text, &args).unwrap();
        let report = lint(&[("a.yaml".to_owned(), manifests.clone())]);
        prop_assert!(!report.has_errors(), "{report}{manifests}");
        prop_assert_eq!(exported(&manifests).unwrap(), text);
        for name in pools.keys().filter_map(|name| import::resource_name(name)) {
            let taken = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            prop_assert!(taken && !name.starts_with('-') && !name.ends_with('-'), "{}", name);
        }
    }
}

#[test]
fn two_pools_never_become_one() {
    let text = r#"{"a_b": {"slots": 1}, "A-b": {"slots": 2}}"#;
    let error = imported(text, &args()).unwrap_err();
    assert_eq!(
        error,
        "pools.json: pools \"A-b\" and \"a_b\" would both become Pool \"a-b\": say how one of them should be called, with \
         --name 'a_b=NAME'"
    );
    let with = |names: &[(&str, &str)]| {
        let names = names
            .iter()
            .map(|(pool, name)| ((*pool).to_owned(), (*name).to_owned()));
        imported(
            text,
            &ImportArgs {
                names: names.collect(),
                ..args()
            },
        )
    };
    let manifests = with(&[("a_b", "reports")]).unwrap();
    assert!(
        manifests.contains("  name: reports\n") && manifests.contains("    name: a_b\n"),
        "{manifests}"
    );
    assert!(with(&[("a_b", "a-b")]).unwrap_err().contains("would both become"));
    assert!(
        with(&[("c", "c")])
            .unwrap_err()
            .contains("--name \"c=c\" names a pool that is not in this file")
    );
    let twice = with(&[("a_b", "c"), ("a_b", "d")]).unwrap_err();
    assert!(
        twice.contains("--name \"a_b=d\" is about a pool that another"),
        "{twice}"
    );
}

/// A Pool `default-pool` stands for `default_pool` unless it says otherwise.
#[test]
fn a_pool_with_the_name_of_ours_is_not_taken_for_airflows() {
    let text = "{\n    \"default-pool\": {\n        \"description\": null,\n        \"include_deferred\": false,\n        \
                \"slots\": 3\n    }\n}\n";
    let manifests = imported(text, &args()).unwrap();
    assert_eq!(exported(&manifests).unwrap(), text, "{manifests}");
}

#[test]
fn what_no_pool_can_be_is_said_with_its_pool() {
    let long = |length| format!("{{\"{}\": {{\"slots\": 1}}}}", "a".repeat(length));
    let described = format!(
        r#"{{"p": {{"slots": 1, "description": "{}"}}}}"#,
        "ä".repeat(1025)
    );
    let cases = [
        (
            r#"{"p": {"slots": -2}}"#.to_owned(),
            "pool \"p\": slots must be a whole number from -1, which is no limit, to 1000000, is -2 at line 1",
        ),
        (r#"{"p": {"slots": 1000001}}"#.to_owned(), "is 1000001"),
        (r#"{"p": {"slots": "5"}}"#.to_owned(), "is \"5\""),
        (r#"{"p": {"slots": 1.5}}"#.to_owned(), "is 1.5"),
        (
            r#"{"p": {"description": ""}}"#.to_owned(),
            "pool \"p\": missing field `slots`",
        ),
        (
            "{\"o\": {\"slots\": 1},\n\"p\": {\"slots\": 1, \"slot\": 2}}".to_owned(),
            "pool \"p\": unknown field `slot`, expected one of `slots`, `description`, `include_deferred`, `team_name` at line 2 column 24.",
        ),
        (
            r#"{"p": {"slots": 1}, "p": {"slots": 2}}"#.to_owned(),
            "pool \"p\": is there twice",
        ),
        (
            r#"{"p": {"slots": 1, "team_name": "blue"}}"#.to_owned(),
            "pool \"p\": is of team \"blue\"",
        ),
        (r#"{" ": {"slots": 1}}"#.to_owned(), "pool \" \": has no name"),
        (long(257), "the name has 257 characters, Airflow takes 256"),
        (long(254), "no Pool can be named after"),
        (
            r#"{"数据": {"slots": 1}}"#.to_owned(),
            "no Pool can be named after pool \"数据\": say how it should be called, with --name '数据=NAME'",
        ),
        (
            described,
            "pool \"p\": description has 1025 characters, a Pool takes 1024",
        ),
        (
            r#"[{"pool": "p"}]"#.to_owned(),
            "expected a map of pools by their names",
        ),
        ("{\"p\": {\"slots\": 1}".to_owned(), "EOF while parsing"),
        ("{} {}".to_owned(), "trailing characters"),
    ];
    for (text, words) in cases {
        let error = imported(&text, &args()).unwrap_err();
        assert!(
            error.starts_with("pools.json: ") && error.contains(words),
            "{error}"
        );
    }
    assert!(imported(&long(253), &args()).is_ok());
    assert!(imported(r#"{"p": {"slots": 1, "team_name": null}}"#, &args()).is_ok());
}

#[test]
fn only_pools_of_airflow_are_exported_and_each_once() {
    let pool = |resource: &str, more: &str| {
        format!(
            "---\napiVersion: poolwright.dev/v1alpha1\nkind: Pool\nmetadata: {{name: {resource}}}\nspec: {{slots: 4{more}}}\n"
        )
    };
    let airflow = |name: &str| format!(", airflow: {{secretRef: {{name: s}}{name}}}");
    let budget = pool("budget", "");
    assert_eq!(exported(&budget).unwrap(), "{}\n");
    let two = format!(
        "{budget}{}{}",
        pool("z", &airflow("")),
        pool("default-pool", &airflow(""))
    );
    let names: BTreeNames = serde_json::from_str(&exported(&two).unwrap()).unwrap();
    assert_eq!(names.into_keys().collect::<Vec<_>>(), ["default_pool", "z"]);
    let twice = format!("{}{}", pool("a", &airflow("")), pool("b", &airflow(", name: a")));
    let conflict = exported(&twice).unwrap_err();
    assert!(
        conflict.contains("another Pool of this namespace, \"a\""),
        "{conflict}"
    );
    // Of two Secrets `lint` cannot say that they are about one Airflow, and a file is.
    let error = exported(&twice.replacen("name: s}", "name: s2}", 1)).unwrap_err();
    assert!(
        error.starts_with("Pool \"b\" (") && error.contains("is pool \"a\" of Airflow, as Pool \"a\" ("),
        "{error}"
    );
    let refused = exported(&pool("a", ", slot: 3")).unwrap_err();
    assert!(
        refused.contains("error: spec.slot: ") && refused.contains("1 error"),
        "{refused}"
    );
}

type BTreeNames = std::collections::BTreeMap<String, serde_json::Value>;

#[test]
fn nothing_is_printed_beside_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.json");
    std::fs::write(&path, r#"{"a": {"slots": 1}, "b": {"slots": -7}}"#).unwrap();
    let mut output = Vec::new();
    let what = PoolsCommand::Import(ImportArgs {
        file: path.clone(),
        ..args()
    });
    let error = super::run(&PoolsArgs { what }, &mut output).unwrap_err();
    assert!(error.to_string().contains("pools.json: pool \"b\": "), "{error}");
    assert!(output.is_empty());
    // As some editors write it.
    std::fs::write(&path, "\u{feff}{\"a\": {\"slots\": 1}}").unwrap();
    let what = PoolsCommand::Import(ImportArgs { file: path, ..args() });
    super::run(&PoolsArgs { what }, &mut output).unwrap();
    assert!(output.starts_with(b"apiVersion: "));
}
