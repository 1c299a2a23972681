//! Manifests for tests in as few words as they need, and what is said of them.

use super::lint;

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: poolwright.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// A Pool whose spec is `spec`.
pub fn pool(name: &str, spec: &str) -> String {
    object("Pool", name, spec)
}

/// A TaskQueue on a Redis, with `more` in its spec.
pub fn queue(name: &str, more: &str) -> String {
    let broker = "broker: {url: \"redis://redis:6379/0\"}";
    object("TaskQueue", name, &format!("{broker}, {more}"))
}

/// A WorkerPool on these queues whose pods take four tasks and which gets no advice, with `more` in its spec.
pub fn worker(name: &str, queues: &[&str], more: &str) -> String {
    let queues: Vec<String> = queues.iter().map(|queue| format!("{{name: {queue}}}")).collect();
    let celery = "celery: {app: shop, concurrency: 4, prefetchMultiplier: 1}";
    let spec = format!(
        "class: General, queues: [{}], {celery}, worker: {{image: shop}}, {more}",
        queues.join(", ")
    );
    object("WorkerPool", name, &spec)
}

/// What is found in these manifests, without the places.
pub fn said(manifests: &[String]) -> Vec<String> {
    let report = lint(&[("a.yaml".to_owned(), manifests.concat())]);
    let words = report.findings.iter().map(|finding| {
        let place = format!("a.yaml:{}:{}: ", finding.place.line, finding.place.column);
        finding.to_string().replace(&place, "")
    });
    words.collect()
}
