//! Which executor runs a task of Airflow: what a row of its table says, read by what `[core] executor` says.
//!
//! Airflow writes whatever the task named: an alias, a class or a whole path, or nothing for the first of the list. All of
//! them are the same executor here. Decides nothing but whether a task is one for Celery's workers.

/// Version 2's class whose tasks go to Celery's queues but for those of one queue.
const BOTH: &str = "CeleryKubernetesExecutor";
/// That queue, where `[celery_kubernetes_executor] kubernetes_queue` names no other.
pub const KUBERNETES_QUEUE: &str = "kubernetes";
/// The classes whose tasks go to Celery's queues.
const CELERY: [&str; 2] = ["CeleryExecutor", BOTH];
/// Airflow's own classes that send no task there, in version 2 or 3.
const OTHERS: [&str; 4] = [
    "KubernetesExecutor",
    "LocalExecutor",
    "LocalKubernetesExecutor",
    "SequentialExecutor",
];

/// One entry of `[core] executor`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    alias: Option<String>,
    /// The class, or its whole path.
    class: String,
}

/// `[core] executor` of one Airflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executors {
    entries: Vec<Entry>,
    kubernetes_queue: String,
}

/// The last part of a path.
fn short(class: &str) -> &str {
    class.rsplit('.').next().unwrap_or(class)
}

impl Entry {
    /// `CeleryExecutor`, `alias:path.to.Class`, or in a team's name `team=CeleryExecutor`.
    fn read(text: &str) -> Self {
        let text = text.rsplit('=').next().unwrap_or(text).trim();
        match text.split_once(':') {
            Some((alias, class)) => Self {
                alias: Some(alias.trim().to_owned()),
                class: class.trim().to_owned(),
            },
            None => Self {
                alias: None,
                class: text.to_owned(),
            },
        }
    }

    /// Whether this is known to be no executor of Celery's: somebody's own class may be one, whatever it is called.
    fn is_other(&self) -> bool {
        let is_own = self.class.contains('.') && !self.class.starts_with("airflow.");
        !is_own && OTHERS.contains(&short(&self.class))
    }

    fn is(&self, name: &str) -> bool {
        self.alias.as_deref() == Some(name) || short(&self.class) == short(name)
    }
}

impl Executors {
    /// Reads the text of the option: entries with commas between them, and semicolons between teams.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let entries = text
            .split([',', ';'])
            .map(str::trim)
            .filter(|one| !one.is_empty());
        Self {
            entries: entries.map(Entry::read).collect(),
            kubernetes_queue: KUBERNETES_QUEUE.to_owned(),
        }
    }

    /// The same where `[celery_kubernetes_executor] kubernetes_queue` names this queue.
    #[must_use]
    pub fn with_kubernetes_queue(mut self, queue: &str) -> Self {
        queue.clone_into(&mut self.kubernetes_queue);
        self
    }

    /// Whether a task of this queue that an executor of this class has is one for Celery's workers.
    fn sends(&self, class: &str, queue: &str) -> bool {
        let class = short(class);
        CELERY.contains(&class) && (class != BOTH || queue != self.kubernetes_queue)
    }

    /// Whether all of them are known to send no task to Celery's queues; an empty list is not.
    #[must_use]
    pub fn are_none_of_celery(&self) -> bool {
        !self.entries.is_empty() && self.entries.iter().all(Entry::is_other)
    }

    /// Whether a task of this queue whose row has this executor is one for Celery's workers; an empty one is the first entry.
    #[must_use]
    pub fn is_celery(&self, executor: Option<&str>, queue: &str) -> bool {
        match executor.map(str::trim).filter(|name| !name.is_empty()) {
            None => {
                let first = self.entries.first();
                first.is_some_and(|entry| self.sends(&entry.class, queue))
            }
            Some(name) => {
                let entry = self.entries.iter().find(|entry| entry.is(name));
                // Not in the list as we were told it: by its own name.
                self.sends(entry.map_or(name, |entry| &entry.class), queue)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "airflow.providers.celery.executors.celery_executor.CeleryExecutor";

    #[test]
    fn alias_class_path_and_nothing_are_one_executor() {
        let with_alias = format!("KubernetesExecutor, heavy:{PATH}");
        for (option, executor, is) in [
            ("CeleryExecutor", None, true),
            ("CeleryExecutor", Some(""), true),
            ("CeleryExecutor", Some("CeleryExecutor"), true),
            ("CeleryExecutor", Some(PATH), true),
            ("CeleryExecutor", Some("KubernetesExecutor"), false),
            ("KubernetesExecutor,CeleryExecutor", None, false),
            ("KubernetesExecutor,CeleryExecutor", Some("CeleryExecutor"), true),
            (with_alias.as_str(), Some("heavy"), true),
            (with_alias.as_str(), Some("CeleryExecutor"), true),
            (with_alias.as_str(), Some(PATH), true),
            (with_alias.as_str(), None, false),
            ("x:my.own.Executor,CeleryExecutor", Some("x"), false),
            ("x:my.own.Executor,CeleryExecutor", Some("my.own.Executor"), false),
            ("LocalExecutor;team=CeleryExecutor", Some("CeleryExecutor"), true),
            ("CeleryKubernetesExecutor", None, true),
            ("LocalExecutor", None, false),
            ("", None, false),
        ] {
            let read = Executors::read(option);
            assert_eq!(read.is_celery(executor, "default"), is, "{option:?} {executor:?}");
        }
    }

    #[test]
    fn one_queue_of_the_executor_for_both_is_not_celerys() {
        let path = "airflow.providers.celery.executors.celery_kubernetes_executor.CeleryKubernetesExecutor";
        for (option, executor, queue, is) in [
            (BOTH, None, "default", true),
            (BOTH, None, "kubernetes", false),
            (path, Some(""), "kubernetes", false),
            (path, Some(BOTH), "kubernetes", false),
            (PATH, Some(BOTH), "kubernetes", false),
            (PATH, None, "kubernetes", true),
        ] {
            let read = Executors::read(option);
            assert_eq!(
                read.is_celery(executor, queue),
                is,
                "{option:?} {executor:?} {queue:?}"
            );
        }
        let named = Executors::read(BOTH).with_kubernetes_queue("k8s");
        assert!(!named.is_celery(None, "k8s") && named.is_celery(None, "kubernetes"));
    }

    #[test]
    fn only_what_is_known_is_none_of_celery() {
        let kubernetes = "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor";
        for (option, are) in [
            ("LocalExecutor", true),
            ("SequentialExecutor", true),
            ("LocalKubernetesExecutor", true),
            ("LocalExecutor, KubernetesExecutor", true),
            (kubernetes, true),
            ("light:LocalExecutor", true),
            (
                "CeleryExecutor:airflow.executors.local_executor.LocalExecutor",
                true,
            ),
            ("LocalExecutor;team=KubernetesExecutor", true),
            ("LocalExecutor;team=CeleryExecutor", false),
            ("KubernetesExecutor,CeleryExecutor", false),
            (PATH, false),
            ("CeleryKubernetesExecutor", false),
            ("my.own.LocalExecutor", false),
            ("LocalExecutor:my.own.Executor", false),
            ("", false),
        ] {
            assert_eq!(Executors::read(option).are_none_of_celery(), are, "{option:?}");
        }
    }

    /// An alias may be called as a class of another is.
    #[test]
    fn an_alias_hides_the_class_of_its_name() {
        let read = Executors::read("CeleryExecutor:my.own.Executor");
        assert!(!read.is_celery(Some("CeleryExecutor"), "default"));
        assert!(!read.is_celery(None, "default"));
    }
}
