//! Pools that keep the same pool of one Airflow: the operator lets one of them, and the others say `Conflict`.
//!
//! One Airflow is what one Secret of a namespace says. Two Secrets may say the same, which is in no manifest.

use poolwright_api::Reason;
use poolwright_api::v1alpha1::{AirflowPool, AirflowSync};

use super::super::objects::Read;
use super::super::{Finding, Severity};

/// A Pool with `sync: Apply`.
struct Claim<'a> {
    read: &'a Read<'a>,
    airflow: AirflowPool,
    pool: &'a str,
}

impl<'a> Claim<'a> {
    fn new(read: &'a Read<'a>) -> Option<Self> {
        let airflow = read.pool()?.spec.airflow.as_ref()?;
        (airflow.sync == AirflowSync::Apply).then(|| Self {
            read,
            airflow: airflow.without_pool(),
            pool: airflow.pool_name(&read.name),
        })
    }

    fn is_about_the_same(&self, other: &Self) -> bool {
        self.read.namespace == other.read.namespace
            && self.pool == other.pool
            && self.airflow == other.airflow
    }
}

/// Pools whose pool of Airflow another one keeps. The first of the files is applied first, which makes it the older one.
pub fn contested(all: &[Read<'_>]) -> Vec<Finding> {
    let mut kept: Vec<Claim<'_>> = Vec::new();
    let mut findings = Vec::new();
    for claim in all.iter().filter_map(Claim::new) {
        match kept.iter().find(|first| first.is_about_the_same(&claim)) {
            // The same object again is told elsewhere.
            Some(first) if first.read.name == claim.read.name => {}
            Some(first) => {
                let words = format!(
                    "another Pool of this namespace, {:?} ({}), stands for Airflow's pool {:?}: give {:?} another, or sync: \
                     Mirror, else it writes nothing to Airflow ({})",
                    first.read.name,
                    first.read.position("spec.airflow"),
                    claim.pool,
                    claim.read.name,
                    Reason::Conflict
                );
                findings.push(claim.read.find(Severity::Error, "spec.airflow.name", &words));
            }
            None => kept.push(claim),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{pool, said};

    fn of(name: &str, airflow: &str) -> String {
        pool(
            name,
            &format!("slots: 4, airflow: {{secretRef: {{name: api}}{airflow}}}"),
        )
    }

    #[test]
    fn the_second_pool_that_keeps_a_pool_of_airflow_is_told_with_the_first() {
        assert_eq!(
            said(&[of("reports", ""), of("other", ", name: reports"), of("mail", "")]),
            [
                "error: spec.airflow.name: another Pool of this namespace, \"reports\" (a.yaml:5), stands for Airflow's pool \
                 \"reports\": give \"other\" another, or sync: Mirror, else it writes nothing to Airflow (Conflict)"
            ]
        );
        let default = said(&[of("default-pool", ""), of("a", ", name: default_pool")]).concat();
        assert!(default.contains("Airflow's pool \"default_pool\""), "{default}");
        let three = said(&["a", "b", "c"].map(|name| of(name, ", name: reports")));
        assert_eq!(three.len(), 2, "{three:?}");
    }

    #[test]
    fn pools_of_other_airflows_and_namespaces_and_those_that_follow_are_apart() {
        let first = || of("reports", "");
        let again = of("other", ", name: reports");
        for other in [
            of("other", ", name: reports, sync: Mirror"),
            of("other", ", name: reports2"),
            again.replace("name: api", "name: api2"),
            again.replace("{name: other}", "{name: other, namespace: shop}"),
            pool("other", "slots: 4"),
        ] {
            assert_eq!(said(&[first(), other.clone()]), [""; 0], "{other}");
        }
        let twice = said(&[first(), first()]).concat();
        assert!(!twice.contains("Conflict"), "{twice}");
    }
}
