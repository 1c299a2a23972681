//! Status writes: merge patches of what differs, within a budget.
//!
//! Numbers that move all the time wait for their turn; everything else waits for no budget. Nothing is written
//! when nothing differs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use kube::{Api, Resource};
use poolwright_core::time::Moment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::lenient::Lenient;
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
/// gone. Under the resourceVersion nothing but this write has changed what the API server then answers; if that cannot be
/// read all the same, it counts as not written, which is the safe side: whoever asked is told nothing, and it is read anew.
///
/// # Errors
/// What else the API server answers.
pub async fn write_as_read<K, S>(
    api: &Api<Lenient<K>>,
    object: &K,
    old: &S,
    new: &S,
) -> Result<Option<K>, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
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
        Ok(object) => Ok(object.open().ok()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}

fn changes<S: Serialize>(old: &S, new: &S) -> Result<Option<Value>, kube::Error> {
    let value = |status: &S| serde_json::to_value(status).map_err(kube::Error::SerdeError);
    Ok(difference(&value(old)?, &value(new)?))
}

/// Who has waited for a write and has not asked for so long has no place before others any more.
const WAITS: Duration = Duration::from_secs(15);

/// A token bucket for writes that may wait, in the order in which they began to: whoever asks first and often is not to
/// have all of it.
pub struct Budget {
    per_second: f64,
    state: Mutex<Bucket>,
}

#[derive(Default)]
struct Bucket {
    tokens: f64,
    filled: Moment,
    /// Places are given in this order.
    next: u64,
    /// Who waits, by place, and when it asked last.
    waiting: BTreeMap<u64, (String, Moment)>,
    places: HashMap<String, u64>,
}

impl Bucket {
    fn forget(&mut self, who: &str) {
        if let Some(place) = self.places.remove(who) {
            self.waiting.remove(&place);
        }
    }

    /// Gives a place to whoever has none, and says whether those before it leave it a token.
    fn has_turn(&mut self, who: &str, now: Moment) -> bool {
        let place = self.places.get(who).copied().unwrap_or(self.next);
        if place == self.next {
            self.next += 1;
            self.places.insert(who.to_owned(), place);
        }
        self.waiting.insert(place, (who.to_owned(), now));
        while let Some((_, (first, asked))) = self.waiting.first_key_value() {
            if now.since(*asked) <= WAITS {
                break;
            }
            let first = first.clone();
            self.forget(&first);
        }
        let mut before = self.waiting.range(..place);
        let mut left = self.tokens - 1.0;
        while left >= 0.0 && before.next().is_some() {
            left -= 1.0;
        }
        left >= 0.0
    }
}

impl Budget {
    /// At most `per_second` writes a second, and as many at once.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            state: Mutex::new(Bucket {
                tokens: per_second,
                ..Bucket::default()
            }),
        }
    }

    /// The object of this uid has nothing to be written any more: its place is free.
    pub fn leave(&self, who: &str) {
        let mut bucket = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.forget(who);
    }

    /// True if the object of this uid may be written now. What may not wait may always, and takes a write out of the budget
    /// if there is one; what may wait has its turn after those that wait already, and keeps its place while it asks again.
    pub fn take(&self, who: &str, now: Moment, may_wait: bool) -> bool {
        let mut bucket = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let refill = now.since(bucket.filled).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + refill).min(self.per_second);
        bucket.filled = now.max(bucket.filled);
        if may_wait && !bucket.has_turn(who, now) {
            return false;
        }
        bucket.forget(who);
        bucket.tokens = if bucket.tokens < 1.0 {
            bucket.tokens
        } else {
            bucket.tokens - 1.0
        };
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
        let take = |ms| budget.take("one", Moment(ms), true);
        assert!(take(0) && take(0) && !take(0));
        assert!(!take(400) && take(600) && !take(600));
        assert!(budget.take("one", Moment(600), false), "it may not wait");
    }

    #[test]
    fn who_asks_first_each_time_does_not_have_all_of_a_budget() {
        let budget = Budget::new(2);
        let mut writes = BTreeMap::from(["a", "b", "c", "d", "e"].map(|who| (who, 0)));
        for second in 0..50 {
            for (who, count) in &mut writes {
                *count += u32::from(budget.take(who, Moment(second * 1000), true));
            }
        }
        // A hundred in all. Who asks first gets in line again first, which is all that is left of that.
        assert!(
            writes.values().all(|count| (15..=25).contains(count)),
            "{writes:?}"
        );
    }

    #[test]
    fn who_does_not_ask_any_more_keeps_nobody_waiting() {
        let budget = Budget::new(1);
        let take = |who, seconds: u64| budget.take(who, Moment(seconds * 1000), true);
        assert!(take("a", 0) && !take("gone", 0) && !take("b", 0));
        assert!(!take("b", 14), "the other one's turn comes first");
        assert!(take("b", 16));
        // What could not wait said the rest along, so its place is free.
        assert!(!take("a", 16) && !take("b", 16) && budget.take("a", Moment(16_000), false));
        assert!(take("b", 17));
        assert!(!take("a", 17) && !take("b", 17));
        budget.leave("a");
        assert!(take("b", 18));
    }
}
