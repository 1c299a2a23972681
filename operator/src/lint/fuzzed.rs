//! The parsers of manifests, for the fuzzer.

use super::{airflow, document, lint, split};
use crate::fuzz::Target;

const BUDGET: &str = include_str!("../../../deploy/examples/shared-budget.yaml");
const SENTINEL: &str = include_str!("../../../deploy/examples/redis-tls-sentinel.yaml");
const SMALL: &str = "apiVersion: poolwright.dev/v1alpha1\nkind: TaskQueue\nmetadata:\n  name: mail\nspec:\n  broker: {url: 'redis://u:p@redis:6379/0'}\n  waitTargetSeconds: 5\n---\napiVersion: v1\nkind: List\nitems:\n- &a {kind: Pool, apiVersion: poolwright.dev/v1alpha1, metadata: {name: db}, spec: {slots: 0o17}}\n- *a\n";
const WORDS: &[&str] = &[
    "---\n",
    "spec",
    "metadata",
    "kind: ",
    "List",
    "items",
    "- ",
    ": ",
    "&a ",
    "*a",
    "<<: ",
    "|-\n",
    ">\n",
    "!!binary ",
    "{",
    "}",
    "[",
    "]",
    "~",
    "0o17",
    "0x1F",
    ".inf",
    "'",
    "\"",
    "# ",
];

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let mut all = vec![
        Target::text("manifest: YAML", &[SMALL, BUDGET, SENTINEL], |text| {
            let mut kept = 0;
            for (start, part) in split::documents(text) {
                kept += match document::parse(start, part) {
                    // A node is a word or two for each place in the text.
                    Ok(node) => usize::from(node.is_some()),
                    Err(error) => error.message.len(),
                };
            }
            kept
        })
        .words(WORDS)
        .slow()
        .longest(16 * 1024),
        Target::text("manifest: lint", &[SMALL, BUDGET, SENTINEL], |text| {
            let report = lint(&[("fleet.yaml".to_owned(), text.to_owned())]);
            report.findings.len()
        })
        .words(WORDS)
        .fleet(),
        Target::text(
            "manifest: path of a field",
            &["spec.queues[2].name", "spec.pod.labels[a.b/c]", "[0][\"x\"]"],
            |path| document::steps(path).len(),
        )
        .words(&["[", "]", ".", "\"", "[18446744073709551616]"]),
    ];
    all.extend(airflow::fuzzed::targets());
    all
}
