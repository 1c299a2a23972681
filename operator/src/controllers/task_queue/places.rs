//! Where the messages of TaskQueues lie, and which of them lie at one place.
//!
//! A function of the objects and of the addresses that are known; whose fault it is that two are at one place is said
//! elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt as _;
use poolwright_api::v1alpha1::TaskQueue;
use poolwright_core::sample::BrokerView;

/// Address, key prefix and queue.
pub(super) type Place = (String, String, String);

/// Where a TaskQueue's messages lie: two objects may name one place in two ways, by a URL and by a Secret, or in two
/// namespaces. Until the address is known, the broker's id stands for it.
pub(super) fn place(queue: &TaskQueue, id: &str, views: &BTreeMap<String, Arc<BrokerView>>) -> Place {
    let address = views.get(id).map_or("", |view| &view.address);
    let redis = queue.spec.broker.redis.as_ref();
    (
        if address.is_empty() { id } else { address }.to_owned(),
        redis
            .and_then(|redis| redis.key_prefix.clone())
            .unwrap_or_default(),
        queue.queue_name().to_owned(),
    )
}

/// True if some TaskQueue names Celery's default queue where this one lies, whatever namespace it is in and however it names
/// the broker.
pub(super) fn names_default(first: &BTreeMap<&Place, &Arc<TaskQueue>>, (address, prefix, _): &Place) -> bool {
    let default = (address.clone(), prefix.clone(), "celery".to_owned());
    first.contains_key(&default)
}

/// The oldest TaskQueue of each place; a second one is a conflict.
pub(super) fn first_of_each<'a>(
    queues: &'a [Arc<TaskQueue>],
    places: &'a [Place],
) -> BTreeMap<&'a Place, &'a Arc<TaskQueue>> {
    let age = |queue: &TaskQueue| {
        let created = queue.creation_timestamp().map(|time| time.0);
        (created, queue.namespace(), queue.name_any())
    };
    let mut first: BTreeMap<&Place, &Arc<TaskQueue>> = BTreeMap::new();
    for (queue, place) in queues.iter().zip(places) {
        let oldest = first.entry(place).or_insert(queue);
        if oldest.metadata.uid != queue.metadata.uid && age(queue) < age(oldest) {
            *oldest = queue;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A TaskQueue of another namespace, or through another Secret, names it as well.
    #[test]
    fn the_default_queue_is_named_by_whoever_lies_at_the_same_place() {
        let queue = |name: &str, prefix: Option<&str>| {
            let redis = prefix.map(|prefix| json!({"keyPrefix": prefix}));
            let broker = json!({"url": "redis://redis:6379/0", "redis": redis});
            let object = json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
                "metadata": {"name": name, "namespace": name}, "spec": {"broker": broker}});
            Arc::new(serde_json::from_value::<TaskQueue>(object).unwrap())
        };
        let queues = [
            queue("mail", None),
            queue("celery", None),
            queue("post", Some("p.")),
        ];
        let view = BrokerView {
            address: "redis:6379/0".to_owned(),
            ..BrokerView::default()
        };
        let views = ["a", "b", "c"].map(|id| (id.to_owned(), Arc::new(view.clone())));
        let views = BTreeMap::from(views);
        let places = ["a", "b", "c"].into_iter().zip(&queues);
        let places: Vec<Place> = places.map(|(id, queue)| place(queue, id, &views)).collect();
        let first = first_of_each(&queues, &places);
        let named: Vec<bool> = places.iter().map(|place| names_default(&first, place)).collect();
        assert_eq!(named, [true, true, false]);
    }
}
