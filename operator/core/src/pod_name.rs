//! The name of a pod, kept as that of the worker in it.
//!
//! A worker is looked up for every pod in every cycle, and pods are named in every decision: neither should need a new
//! string.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// What comes before a pod's name in the node name of its worker.
const BEFORE: &str = "celery@";

/// A pod's name. Copies share it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName(Arc<str>);

impl PodName {
    /// The name under which the pod's worker speaks: `celery@` and the name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0[BEFORE.len()..]
    }
}

impl From<&str> for PodName {
    fn from(name: &str) -> Self {
        Self([BEFORE, name].concat().into())
    }
}

impl From<String> for PodName {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl Default for PodName {
    fn default() -> Self {
        "".into()
    }
}

impl Deref for PodName {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq<str> for PodName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for PodName {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for PodName {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_name_and_knows_the_workers() {
        let name = PodName::from("emails-1");
        assert_eq!((name.as_str(), name.node()), ("emails-1", "celery@emails-1"));
        assert_eq!(
            (name.to_string(), format!("{name:?}")),
            ("emails-1".to_owned(), "\"emails-1\"".to_owned())
        );
        let (first, second) = (PodName::from("a"), PodName::from("b".to_owned()));
        assert!(PodName::default().is_empty() && first < second && second == "b");
    }
}
