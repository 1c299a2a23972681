//! A line says all that it is about, and nothing that cannot be written.

use std::fmt::Write as _;

use super::super::tests::{asked, pool, queue, workers};
use super::super::{FLEET_SEED, as_written};
use super::*;

/// A WorkerPool as its owner writes it, with a schedule that is on for a while.
#[derive(Clone)]
struct Written {
    name: &'static str,
    concurrency: u32,
    least: u32,
    most: u32,
    policy: String,
    delay: Option<u64>,
}

impl Written {
    fn new(name: &'static str, concurrency: u32, least: u32, most: u32) -> Self {
        Self {
            name,
            concurrency,
            least,
            most,
            policy: "Backlog".to_owned(),
            delay: Some(300),
        }
    }

    fn manifests(&self) -> String {
        let Self {
            least, most, policy, ..
        } = self;
        let mut scaling = format!(
            "policy: {policy}, minReplicas: {least}, maxReplicas: {most}, \
             schedules: [{{name: night, cron: '1 0 * * *', durationSeconds: 900, minReplicas: 2}}]"
        );
        if let Some(delay) = self.delay {
            // Writing to a String cannot fail.
            let _ = write!(scaling, ", scaleDownDelaySeconds: {delay}");
        }
        let celery = format!("concurrency: {}", self.concurrency);
        queue(self.name, "") + &workers(self.name, &celery, &scaling)
    }

    /// With what a line says, to the letter.
    fn with(&self, line: &str) -> Self {
        let mut new = self.clone();
        for words in line.split(", ").flat_map(|words| words.split(" and ")) {
            match words.split_once(": ") {
                Some(("policy", policy)) => policy.clone_into(&mut new.policy),
                Some(("scaleDownDelaySeconds", delay)) => new.delay = Some(delay.parse().unwrap()),
                Some(("minReplicas", least)) => new.least = least.parse().unwrap(),
                Some(("maxReplicas", most)) => new.most = most.parse().unwrap(),
                Some(("concurrency", slots)) => new.concurrency = slots.parse().unwrap(),
                _ => match words {
                    "no scaleDownDelaySeconds" => new.delay = None,
                    "half the concurrency (rounded down to at least 1)" => {
                        new.concurrency = (self.concurrency / 2).max(1);
                    }
                    "maxReplicas for as many slots (rounded up)" => {
                        new.most = (self.most * self.concurrency).div_ceil(new.concurrency);
                    }
                    "twice the concurrency" => new.concurrency = 2 * self.concurrency,
                    "half maxReplicas (rounded up)" => new.most = self.most.div_ceil(2),
                    other => panic!("{other:?} of {line:?}"),
                },
            }
        }
        new
    }
}

/// The world of these manifests, and what came of it.
fn ran(manifests: &str, arrivals: &str) -> (World, Answer) {
    let (args, _folder) = asked(manifests, "--arrivals ARRIVALS", arrivals);
    as_written(&args, &mut Vec::new()).unwrap()
}

/// Least numbers of pods, those of schedules and a delay that is written are all easily passed over.
#[test]
fn a_line_costs_what_it_says_when_it_is_written_into_the_manifests() {
    let one = [Written::new("mail", 3, 1, 7)];
    let two = [Written::new("mail", 3, 1, 7), Written::new("post", 4, 2, 5)];
    for fleet in [&one[..], &two[..]] {
        let mut arrivals = String::new();
        for at in 0..40 {
            let name = fleet[at % fleet.len()].name;
            let _ = writeln!(arrivals, "{},{name},{}", at / 10 * 200, 5 + at % 7);
        }
        let written: String = fleet.iter().map(Written::manifests).collect();
        let (world, _) = ran(&written, &arrivals);
        let base = Variant {
            words: Vec::new(),
            world,
        };
        let mut all = policies(&base.world);
        all.extend(shapes(&all[1]));
        let shaped = shapes(&base);
        assert_eq!(shaped.len(), 5);
        all.extend(shaped);
        for variant in all {
            let line = variant.words.join(", ");
            let written: String = fleet.iter().map(|one| one.with(&line).manifests()).collect();
            let (world, answer) = ran(&written, &arrivals);
            assert_eq!(world.scenario.fleets, variant.world.scenario.fleets, "{line}");
            let promised = run(&variant.world, FLEET_SEED).slot_hours;
            assert!(
                (answer.slot_hours - promised).abs() < 1e-9,
                "{line}: {} of {promised}",
                answer.slot_hours
            );
        }
    }
}

#[test]
fn what_no_manifest_can_say_is_not_told() {
    let shaped = |manifests: &str| -> Vec<String> {
        let (world, _) = ran(manifests, "0,mail,1\n");
        let base = Variant {
            words: Vec::new(),
            world,
        };
        let words = shapes(&base).into_iter();
        words.map(|variant| variant.words.join(", ")).collect()
    };
    let fleet = |celery: &str, scaling: &str| queue("mail", "") + &workers("mail", celery, scaling);
    // Half of the pods are fewer than the least, and half a slot is none.
    assert_eq!(
        shaped(&fleet("concurrency: 1", "minReplicas: 4, maxReplicas: 5")),
        [
            "minReplicas: 0",
            "minReplicas: 0, concurrency: 2 and maxReplicas: 3"
        ]
    );
    let fallback = "maxReplicas: 5, fallback: {replicas: 4, afterSeconds: 60}";
    assert_eq!(shaped(&fleet("concurrency: 1", fallback)), [""; 0]);
    let most = "maxReplicas: 10000";
    let fewer = "concurrency: 4 and maxReplicas: 5000";
    assert_eq!(shaped(&fleet("concurrency: 2", most)), [fewer]);
    for celery in ["executionPool: Solo", "autoscale: {min: 1, max: 4}"] {
        assert_eq!(
            shaped(&fleet(celery, "minReplicas: 1")),
            ["minReplicas: 0"],
            "{celery}"
        );
    }
    // A pod of twice the slots would be larger than its Pool, or than all that its queue may take.
    let two = workers("mail", "concurrency: 2", "maxReplicas: 4");
    let half = "concurrency: 1 and maxReplicas: 8";
    let small = queue("mail", "  pool: {name: db}") + &two + &pool("db", "slots: 3");
    assert_eq!(shaped(&small), [half]);
    let capped = queue("mail", "  maxActiveTasks: 3") + &two;
    assert_eq!(shaped(&capped), [half]);
    let other = |celery: &str| queue("post", "") + &workers("post", celery, "maxReplicas: 4");
    let both = fleet("concurrency: 1", "maxReplicas: 6") + &other("autoscale: {min: 1, max: 4}");
    assert_eq!(
        shaped(&both),
        ["concurrency: 2 and maxReplicas: 3 (not with autoscale)"]
    );
    let held = other("concurrency: 2").replace("scaling:", "replicas: 4\n  scaling:");
    let all = both + &held.replace("post", "held") + &other("executionPool: Solo").replace("post", "solo");
    assert_eq!(
        shaped(&all),
        ["concurrency: 2 and maxReplicas: 3 (not with autoscale or executionPool: Solo or spec.replicas)"]
    );
}
