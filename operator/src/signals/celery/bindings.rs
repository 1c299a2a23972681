//! Which queue a message came from, by the bindings that its worker tells of.
//!
//! Decides by these alone: a message does not say its queue, only where it was published. Where nothing fits, the
//! routing key is the queue, which is what it is with Celery's defaults. The number of bindings is bounded.

use std::cell::Cell;
use std::collections::BTreeSet;

/// Most queues that one worker may consume.
pub(super) const MAX_QUEUES: usize = 1024;
/// Words of patterns that are compared with words of routing keys for one answer, or one poll. A thousand routes and a
/// thousand patterns of four words are sixteen million; what fits into the answers of a worker can be ten thousand times
/// as many.
const STEPS_MAX: usize = 20_000_000;

/// Where a message was published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) exchange: String,
    pub(super) routing_key: String,
}

impl Route {
    /// Bytes of its names.
    pub(super) fn bytes(&self) -> usize {
        self.exchange.len() + self.routing_key.len()
    }
}

/// A queue that a worker consumes, and how it is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) route: Route,
    pub(super) topic: bool,
}

impl Bound {
    /// A queue as Celery binds one that nobody described.
    #[cfg(test)]
    pub(super) fn plain(name: &str) -> Self {
        let (exchange, routing_key) = (name.to_owned(), name.to_owned());
        let route = Route {
            exchange,
            routing_key,
        };
        Self {
            name: name.to_owned(),
            route,
            topic: false,
        }
    }
}

/// The bindings of one worker's queues; at most 1,024.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings(Vec<Bound>);

impl FromIterator<Bound> for Bindings {
    fn from_iter<T: IntoIterator<Item = Bound>>(bound: T) -> Self {
        Self(bound.into_iter().take(MAX_QUEUES).collect())
    }
}

impl Bindings {
    /// Those of a worker on one queue that nobody described.
    #[cfg(test)]
    #[must_use]
    pub fn plain(name: &str) -> Self {
        Self(vec![Bound::plain(name)])
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The queues' names.
    #[must_use]
    pub fn queues(&self) -> BTreeSet<String> {
        self.0.iter().map(|bound| bound.name.clone()).collect()
    }

    /// True if they tell more than routing keys do: if one is bound otherwise than by its name.
    #[must_use]
    pub fn matter(&self) -> bool {
        self.0
            .iter()
            .any(|bound| bound.topic || bound.route.routing_key != bound.name)
    }

    /// These, and behind them the others of queues that these do not name.
    #[must_use]
    pub fn with(mut self, others: &Self) -> Self {
        let own = self.queues();
        let others = others.0.iter().filter(|bound| !own.contains(&bound.name));
        self.0.extend(others.cloned());
        self.0.truncate(MAX_QUEUES);
        self
    }

    /// The queue that a message of this route came from, as far as these tell.
    pub(super) fn queue_of(&self, route: &Route, topics: &Topics) -> String {
        let named = |b: &&Bound| b.name == route.routing_key;
        let exact = |b: &&Bound| b.route == *route;
        let topic = |b: &&Bound| {
            b.topic
                && b.route.exchange == route.exchange
                && topics.matches(&b.route.routing_key, &route.routing_key)
        };
        let found = if route.exchange.is_empty() {
            None
        } else {
            let matched = self.0.iter().find(exact).or_else(|| self.0.iter().find(named));
            matched.or_else(|| self.0.iter().find(topic))
        };
        found.map_or_else(|| route.routing_key.clone(), |b| b.name.clone())
    }
}

/// Compares topics until that has taken too long: then none matches any more, and the routing key stands for the queue, as
/// where nothing fits.
#[derive(Debug)]
pub(crate) struct Topics {
    left: Cell<usize>,
}

impl Topics {
    /// Nothing has been compared yet.
    pub(crate) fn new() -> Self {
        Self {
            left: Cell::new(STEPS_MAX),
        }
    }

    /// [`topic_matches`], while there is time.
    pub(crate) fn matches(&self, pattern: &str, key: &str) -> bool {
        let words = |text: &str| text.bytes().filter(|byte| *byte == b'.').count() + 1;
        // Counting the words takes as long as they are.
        let steps = words(pattern).saturating_mul(words(key));
        let steps = steps.saturating_add(pattern.len() + key.len());
        let left = self.left.get().checked_sub(steps);
        self.left.set(left.unwrap_or(0));
        left.is_some() && topic_matches(pattern, key)
    }
}

/// AMQP's topic rule: words divided by dots, `*` is one word, `#` any number.
pub(super) fn topic_matches(pattern: &str, key: &str) -> bool {
    let key: Vec<&str> = key.split('.').collect();
    // `reach[i]`: the pattern so far can have consumed the first `i` words.
    let mut reach = vec![false; key.len() + 1];
    if let Some(first) = reach.first_mut() {
        *first = true;
    }
    for word in pattern.split('.') {
        let mut next = vec![false; key.len() + 1];
        for at in 0..=key.len() {
            let before = at.checked_sub(1);
            let stepped = before.is_some_and(|b| reach[b] && (word == "*" || word == key[b]));
            let spread = word == "#" && (reach[at] || before.is_some_and(|b| next[b]));
            next[at] = if word == "#" { spread } else { stepped };
        }
        reach = next;
    }
    reach.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One mebibyte holds a pattern of two hundred thousand words, another four thousand routes of a hundred and twenty.
    #[test]
    fn no_answer_takes_longer_than_so_many_comparisons() {
        let bound = |pattern: &str| Bound {
            name: "mail".to_owned(),
            route: Route {
                exchange: "topics".to_owned(),
                routing_key: pattern.to_owned(),
            },
            topic: true,
        };
        let found = |pattern: &str, topics: &Topics, key: String| {
            let bindings: Bindings = [bound(pattern)].into_iter().collect();
            let route = Route {
                exchange: "topics".to_owned(),
                routing_key: key,
            };
            bindings.queue_of(&route, topics)
        };
        let topics = Topics::new();
        assert_eq!(found("mail.#", &topics, "mail.de".to_owned()), "mail");
        let pattern = "#.a.".repeat(100_000);
        for number in 0..4096 {
            let key = format!("{number}{}", ".a".repeat(120));
            assert_eq!(found(&pattern, &topics, key.clone()), key);
        }
        assert_eq!(topics.left.get(), 0);
        assert_eq!(found("mail.#", &topics, "mail.de".to_owned()), "mail.de");
        assert_eq!(found("mail.#", &Topics::new(), "mail.de".to_owned()), "mail");
    }
}
