//! Numbers by object, and the series that are made of them when somebody reads them.

use std::collections::BTreeMap;

use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::table::{Kind, Metric};

/// One row of numbers for each object, by namespace and name.
#[derive(Debug)]
pub(super) struct Rows<T>(BTreeMap<Box<str>, BTreeMap<Box<str>, T>>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Default> Rows<T> {
    /// The row of an object, empty when it is new.
    pub(super) fn of(&mut self, namespace: &str, name: &str) -> &mut T {
        // Most are known, and need no new name.
        if self
            .0
            .get(namespace)
            .is_none_or(|names| !names.contains_key(name))
        {
            let names = self.0.entry(namespace.into()).or_default();
            names.insert(name.into(), T::default());
        }
        let names = self.0.get_mut(namespace);
        names
            .and_then(|names| names.get_mut(name))
            .expect("it was put there if it was not")
    }

    pub(super) fn forget(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.0.get_mut(namespace) else {
            return;
        };
        names.remove(name);
        if names.is_empty() {
            self.0.remove(namespace);
        }
    }

    /// Namespace, name and row, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &T)> {
        self.0
            .iter()
            .flat_map(|(namespace, names)| names.iter().map(move |(name, row)| (&**namespace, &**name, row)))
    }
}

/// The series of one metric.
#[derive(Default)]
pub(super) struct Series(Vec<(Vec<LabelPair>, f64)>);

impl Series {
    /// Labels stand in the order of their names.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let pair = |(name, value): &(&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        self.0.push((labels.iter().map(pair).collect(), value));
    }

    /// One for each object of which the number is known.
    pub(super) fn add_all<T: Default>(&mut self, rows: &Rows<T>, read: impl Fn(&T) -> Option<f64>) {
        for (namespace, name, row) in rows.iter() {
            if let Some(value) = read(row) {
                self.add(&[("name", name), ("namespace", namespace)], value);
            }
        }
    }

    /// What the text is made of; `None` without a series, for such a metric is not shown.
    pub(super) fn into_family(self, metric: &Metric) -> Option<MetricFamily> {
        if self.0.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Kind::Gauge => MetricType::GAUGE,
            Kind::Counter => MetricType::COUNTER,
        });
        let one = |(labels, value)| {
            let mut one = proto::Metric::from_label(labels);
            match metric.kind {
                Kind::Gauge => {
                    let mut gauge = proto::Gauge::default();
                    gauge.set_value(value);
                    one.set_gauge(gauge);
                }
                Kind::Counter => {
                    let mut counter = proto::Counter::default();
                    counter.set_value(value);
                    one.set_counter(counter);
                }
            }
            one
        };
        family.set_metric(self.0.into_iter().map(one).collect());
        Some(family)
    }
}
