//! Status writes: merge patches of what differs, within a budget.
//!
//! Numbers that move all the time wait for their turn; everything else waits for no budget. Nothing is written
//! when nothing differs.

use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use kube::{Api, Resource};
use poolwright_core::time::Moment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::patching;

/// The merge patch (RFC 7386) that leads from `old` to `new`, or `None` when they are equal.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        if let Some(changed) = difference(old.get(key).unwrap_or(&Value::Null), value) {
            patch.insert(key.clone(), changed);
        }
    }
    Some(Value::Object(patch))
}

/// A status as this process last wrote it: the watch may be behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<S> {
    /// It.
    pub status: S,
    version: Option<String>,
}

impl<S> Written<S> {
    /// What `object` has for a status as far as this process knows, and the resourceVersion of that: what was written last,
    /// until the watch shows something that came after it, by whomever.
    pub fn latest<'a>(
        written: Option<&'a Self>,
        object: &'a ObjectMeta,
        shown: &'a S,
    ) -> (&'a S, Option<&'a str>) {
        let number = |version: Option<&String>| version.and_then(|version| version.parse::<u64>().ok());
        let shown_at = object.resource_version.as_ref();
        // They are comparable as numbers. Were they not, what was written would be believed as long as it is kept.
        let newest = |one: &&Self| number(one.version.as_ref()) >= number(shown_at);
        match written.filter(newest) {
            Some(one) => (&one.status, one.version.as_deref()),
            None => (shown, shown_at.map(String::as_str)),
        }
    }
}

/// Writes the difference between two statuses of this very object, not of a successor of its name; `None` if there was
/// none.
///
/// Under the resourceVersion that `old` is of. A status only reports, but nobody would correct what an operator of the
/// past writes late: whoever leads now compares with what it has written itself, and wakes for no status.
///
/// # Errors
/// What the API server answers. After a conflict forget what was written: the watch will show what there is.
pub async fn write<K, S>(
    api: &Api<K>,
    object: &ObjectMeta,
    (old, version): (&S, Option<&str>),
    new: S,
) -> Result<Option<Written<S>>, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let Some(patch) = changes(old, &new)? else {
        return Ok(None);
    };
    let name = object.name.as_deref().unwrap_or_default();
    let metadata = json!({"uid": object.uid, "resourceVersion": version});
    let patch = json!({"metadata": metadata, "status": patch});
    let object = api.patch_status(name, &patching(), &Patch::Merge(patch)).await?;
    let version = object.meta().resource_version.clone();
    Ok(Some(Written { status: new, version }))
}

/// The same for an object as it was read; returns the object as it then is, or `None` if it has changed meanwhile or is
/// gone.
///
/// # Errors
/// What else the API server answers.
pub async fn write_as_read<K, S>(api: &Api<K>, object: &K, old: &S, new: &S) -> Result<Option<K>, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let Some(patch) = changes(old, new)? else {
        return Ok(Some(object.clone()));
    };
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    let metadata = json!({"uid": meta.uid, "resourceVersion": meta.resource_version});
    let patch = json!({"metadata": metadata, "status": patch});
    match api.patch_status(name, &patching(), &Patch::Merge(patch)).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}

fn changes<S: Serialize>(old: &S, new: &S) -> Result<Option<Value>, kube::Error> {
    let value = |status: &S| serde_json::to_value(status).map_err(kube::Error::SerdeError);
    Ok(difference(&value(old)?, &value(new)?))
}

/// A token bucket for writes that may wait.
pub struct Budget {
    per_second: f64,
    state: Mutex<(f64, Moment)>,
}

impl Budget {
    /// At most `per_second` writes a second, and as many at once.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            state: Mutex::new((per_second, Moment::default())),
        }
    }

    /// Takes one write out of the budget, if there is one.
    pub fn take(&self, now: Moment) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let refill = now.since(state.1).as_secs_f64() * self.per_second;
        *state = ((state.0 + refill).min(self.per_second), now.max(state.1));
        if state.0 < 1.0 {
            return false;
        }
        state.0 -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write of an operator of the past may come after ours: what the watch shows then is what there is.
    #[test]
    fn what_was_written_is_believed_until_something_comes_after_it() {
        let object = |version: &str| ObjectMeta {
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        let written = Written {
            status: "ours",
            version: Some("100".to_owned()),
        };
        let latest = |version| {
            let meta = object(version);
            let (status, version) = Written::latest(Some(&written), &meta, &"shown");
            (*status, version.unwrap_or_default().to_owned())
        };
        assert_eq!(latest("99"), ("ours", "100".to_owned()), "the watch is behind");
        assert_eq!(latest("100"), ("ours", "100".to_owned()));
        assert_eq!(latest("101"), ("shown", "101".to_owned()), "of somebody else");
        let meta = object("7");
        let none = Written::latest(None, &meta, &"shown");
        assert_eq!(none, (&"shown", Some("7")));
    }

    #[test]
    fn a_patch_removes_what_is_gone() {
        let old = json!({"a": 1, "limits": [1], "inner": {"x": 1, "y": 2}});
        let new = json!({"a": 1, "inner": {"x": 3}});
        assert_eq!(
            difference(&old, &new),
            Some(json!({"limits": null, "inner": {"x": 3, "y": null}}))
        );
        assert_eq!(difference(&new, &new), None);
    }

    #[test]
    fn a_budget_is_spent_and_refills() {
        let budget = Budget::new(2);
        let at = |ms| Moment(ms);
        assert!(budget.take(at(0)) && budget.take(at(0)) && !budget.take(at(0)));
        assert!(!budget.take(at(400)) && budget.take(at(600)) && !budget.take(at(600)));
    }
}
