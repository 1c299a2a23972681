//! The parsers of what `simulate` is given, for the fuzzer.

use super::arrivals::{self, Queues};
use super::world;
use crate::fuzz::Target;
use crate::lint::fleet;

const ARRIVALS: &str =
    "seconds,queue,service_seconds\r\n0,mail,1.5\r\n\r\n2.25,\"video\",0\r\n2.25,mail,1e2\r\n";
const TRACE: &str = "\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16T18:15:50.99Z,396,109\n2023-11-16 20:15:59+02:00,1,1\n";
const FLEET: &str = include_str!("../../../deploy/examples/fast-lane.yaml");
const BUDGET: &str = include_str!("../../../deploy/examples/shared-budget.yaml");

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let queues = || Queues {
        consumed: vec!["mail", "video"],
        idle: vec!["old"],
    };
    vec![
        Target::text("simulate: arrivals", &[ARRIVALS], move |text| {
            let read = arrivals::csv(text, &queues());
            read.map_or_else(|wrong| wrong.to_string().len(), |tasks| size_of_val(&tasks[..]))
        })
        .words(&[
            "seconds",
            "queue",
            "service_seconds",
            "mail",
            "old",
            ",",
            "\"",
            "\n",
            "2678400",
            "2678400.001",
        ]),
        Target::text("simulate: trace", &[TRACE], |text| {
            let read = arrivals::trace(text, 0);
            read.map_or_else(|wrong| wrong.to_string().len(), |tasks| size_of_val(&tasks[..]))
        })
        .words(&[
            "TIMESTAMP",
            "GeneratedTokens",
            ",",
            "\n",
            "+25:00",
            "[Europe/Berlin]",
            "-009999-01-02 00:00:00",
            "9999-12-31 23:59:59",
        ]),
        Target::text("simulate: fleet", &[FLEET, BUDGET], |text| {
            let Ok(fleet) = fleet::of(&[("fleet.yaml".to_owned(), text.to_owned())]) else {
                return 0;
            };
            world::of(&fleet, 30_000).map_or_else(
                |words| words.len(),
                |world| world.notes.iter().map(String::len).sum(),
            )
        })
        .words(&[
            "spec",
            "minReplicas: ",
            "slots: ",
            "\n---\n",
            "kind: Pool",
            "concurrency: ",
            "autoscale: {min: 1, max: 2}",
            "Seconds: ",
        ])
        .fleet(),
    ]
}
