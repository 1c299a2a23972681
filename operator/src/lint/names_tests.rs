//! Names that nearly are there.

use crate::lint::testing::{pool, queue, said, worker};

#[test]
fn a_name_that_is_nearly_there_is_asked_after() {
    let wrong = |name: &str| {
        said(&[
            pool(
                "db",
                &format!("slots: 8, guarantees: [{{queue: {name}, slots: 4}}]"),
            ),
            queue(
                "payments",
                &format!("pool: {{name: db}}, priority: {{downstream: [{name}]}}"),
            ),
            queue("mail-queue", ""),
            worker("w", &[name], "").replace("name: w}", "name: w, labels: {}}"),
        ])
    };
    for (name, meant) in [
        ("payment", "payments"),
        ("paiments", "payments"),
        ("mail", "mail-queue"),
    ] {
        let words = format!("TaskQueue {name:?} is not in these files; is {meant:?} meant?");
        let found: Vec<String> = wrong(name)
            .into_iter()
            .filter(|one| one.ends_with(&words))
            .collect();
        assert_eq!(found.len(), 3, "{:?}", wrong(name));
        assert!(found.iter().all(|one| one.starts_with("warning: ")), "{found:?}");
    }
    let unknown = wrong("invoices").join("\n");
    assert!(!unknown.contains("meant?"), "{unknown}");
}

#[test]
fn an_object_in_another_namespace_is_named() {
    let moved = queue("mail", "").replace("name: mail}", "name: mail, namespace: shop}");
    let words = |queue: String, worker: String| said(&[queue, worker]).concat();
    assert_eq!(
        words(moved, worker("w", &["mail"], "")),
        "warning: spec.queues[0].name: TaskQueue \"mail\" (a.yaml:4) is in namespace \"shop\": objects see those of \
         their own namespace only"
    );
    let away = worker("w", &["mail"], "").replace("name: w}", "name: w, namespace: shop}");
    let found = words(queue("mail", ""), away);
    assert!(
        found.contains("(a.yaml:4) is written without a namespace"),
        "{found}"
    );
}
