//! What can be asked of `poolwright simulate`, and with which bounds.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use poolwright_sim::suite::SEEDS_MAX;
use poolwright_sim::workloads;

/// Least and most seconds that each of `--tasks` may take.
const SERVICE_SECONDS: (f64, f64) = (0.001, 86_400.0);
/// Least and most seconds that a worker may take to start.
const START_UP_SECONDS: (f64, f64) = (0.0, 3600.0);
/// Years in which a run may begin. A schedule looks years ahead for its next start, and time ends with the year 9999.
const YEARS: RangeInclusive<i16> = 1970..=2200;

/// Flags of `simulate`.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["files", "suite", "tune"])))]
pub struct SimulateArgs {
    /// Manifests of a fleet to run, as for lint: files, or folders; may be repeated. - is standard input. A fleet is run
    /// once, with one seed: the same input gives the same answer
    #[arg(short = 'f', long = "filename", value_name = "PATH", num_args = 1..)]
    pub files: Vec<PathBuf>,

    /// Tasks of the fleet: a CSV file with the header `seconds,queue,service_seconds`, in order of seconds. The queue is the
    /// name of a TaskQueue. Default: --tasks of --service-seconds each, all at once
    #[arg(long, value_name = "FILE", requires = "files", conflicts_with_all = ["trace", "suite", "tune"])]
    pub arrivals: Option<PathBuf>,

    /// Tasks of the fleet: a trace with the header `TIMESTAMP,ContextTokens,GeneratedTokens`, in order of time. A task takes
    /// 0.1 s for each generated token
    #[arg(long, value_name = "FILE", requires = "files", conflicts_with_all = ["suite", "tune"])]
    pub trace: Option<PathBuf>,

    /// TaskQueue that gets the tasks of --trace. Default: the only one
    #[arg(long, value_name = "NAME", requires = "trace", conflicts_with_all = ["arrivals", "suite", "tune"])]
    pub queue: Option<String>,

    /// Tasks that arrive at once, dealt to the queues in turn, 1 to 1000000
    #[arg(long, value_name = "NUMBER", default_value_t = 200, allow_negative_numbers = true, conflicts_with_all = ["arrivals", "trace", "suite", "tune"], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tasks: u32,

    /// Seconds that each of --tasks takes, 0.001 to 86400
    #[arg(long = "service-seconds", value_name = "NUMBER", default_value = "60", allow_negative_numbers = true, conflicts_with_all = ["arrivals", "trace", "suite", "tune"], value_parser = service)]
    pub service_millis: u64,

    /// Seconds from a pod's creation until its worker consumes, in the mean, 0 to 3600; the standard deviation is a fifth
    #[arg(long = "start-up-seconds", value_name = "NUMBER", default_value = "30", allow_negative_numbers = true, conflicts_with_all = ["suite", "tune"], value_parser = start_up)]
    pub start_up_millis: u64,

    /// Time of day of the first second, for schedules, such as 2027-01-04T07:55:00+01:00; of the years 1970 to 2200
    #[arg(
        long,
        value_name = "TIME",
        default_value = "2027-01-01T00:00:00Z",
        conflicts_with_all = ["suite", "tune"],
        value_parser = instant
    )]
    pub begins_at: Timestamp,

    /// Run all workloads against all other autoscalers, by default and tuned, and print how far each is from the lower bound.
    /// The last line begins with geo-mean
    #[arg(long)]
    pub suite: bool,

    /// Search the other autoscalers' settings on seeds that the suite does not use, and print the file that holds them
    #[arg(long)]
    pub tune: bool,

    /// Seeds for each workload, 1 to 1000. Default: 5 for --suite, 2 for --tune
    #[arg(long, value_name = "NUMBER", conflicts_with = "files", value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    pub seeds: Option<u64>,

    /// Only this workload of the suite; may be repeated. Default: all
    #[arg(long = "workload", value_name = "NAME", requires = "suite", conflicts_with_all = ["files", "tune"], value_parser = workload)]
    pub workloads: Vec<String>,

    /// Folder for index.html, one page with the suite's tables and charts
    #[arg(long, value_name = "DIRECTORY", requires = "suite", conflicts_with_all = ["files", "tune"])]
    pub report: Option<PathBuf>,
}

fn workload(text: &str) -> Result<String, String> {
    let names: Vec<&str> = workloads::ALL.iter().map(|one| one.name).collect();
    if names.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("is no workload; there are {}", names.join(", ")))
    }
}

fn service(text: &str) -> Result<u64, String> {
    millis(text, SERVICE_SECONDS)
}

fn start_up(text: &str) -> Result<u64, String> {
    millis(text, START_UP_SECONDS)
}

/// Seconds within bounds, as milliseconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the bounds, and not negative
fn millis(text: &str, (least, most): (f64, f64)) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (least..=most).contains(&seconds) => Ok((seconds * 1000.0).round() as u64),
        _ => Err(format!("must be a number of seconds from {least} to {most}")),
    }
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let time: Timestamp = text.parse().map_err(|_| {
        if text.parse::<DateTime>().is_ok() {
            "has no offset: add Z or an offset such as +01:00".to_owned()
        } else {
            "must be a date and a time with an offset, such as 2027-01-04T07:55:00+01:00".to_owned()
        }
    })?;
    if YEARS.contains(&time.to_zoned(TimeZone::UTC).year()) {
        Ok(time)
    } else {
        Err(format!(
            "must be in the years {} to {}",
            YEARS.start(),
            YEARS.end()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;

    fn parse(line: &str) -> Result<SimulateArgs, String> {
        let cli = Cli::try_from_arguments(format!("poolwright simulate {line}").split(' '));
        match cli.map_err(|error| error.to_string())?.command {
            Command::Simulate(args) => Ok(args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn simulate_does_one_thing_with_the_flags_that_belong_to_it() {
        for line in [
            "-f fleet.yaml",
            "-f fleet.yaml --arrivals a.csv --start-up-seconds 45",
            "-f fleet.yaml --trace t.csv --queue mail",
            "--suite",
            "--suite --seeds 20 --workload cron --workload steady --report out",
            "--tune --seeds 1",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for (line, words) in [
            ("--seeds 3", "required"),
            ("--suite --tune", "cannot be used with"),
            ("--suite -f fleet.yaml", "cannot be used with"),
            ("--suite --seeds 0", "0 is not in 1..=1000"),
            ("--suite --seeds -1", "-1"),
            (
                "--suite --workload tides",
                "is no workload; there are steady, diurnal",
            ),
            ("--suite --arrivals a.csv", "cannot be used with"),
            ("--tune --trace t.csv", "cannot be used with"),
            ("--tune --workload cron", "cannot be used with"),
            (
                "-f fleet.yaml --arrivals a.csv --trace t.csv",
                "cannot be used with",
            ),
            ("-f fleet.yaml --report out", "cannot be used with"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    /// Where a file says which tasks come, a flag that says so too would be passed over.
    #[test]
    fn tasks_come_from_flags_or_from_a_file() {
        for flag in ["--tasks 9", "--service-seconds 9"] {
            for source in [
                "-f a.yaml --arrivals a.csv",
                "-f a.yaml --trace t.csv",
                "--suite",
                "--tune",
            ] {
                let error = parse(&format!("{source} {flag}")).unwrap_err();
                assert!(error.contains("cannot be used with"), "{source} {flag}: {error}");
            }
        }
        let error = parse("-f a.yaml --arrivals a.csv --queue mail").unwrap_err();
        assert!(error.contains("cannot be used with"), "{error}");
        for flag in ["--start-up-seconds 9", "--begins-at 2027-01-04T07:55:00Z"] {
            let error = parse(&format!("--suite {flag}")).unwrap_err();
            assert!(error.contains("cannot be used with"), "{flag}: {error}");
        }
    }

    #[test]
    fn seconds_may_be_fractions_within_bounds() {
        let args = parse("-f a.yaml --service-seconds 0.5 --start-up-seconds 1.25").unwrap();
        assert_eq!((args.service_millis, args.start_up_millis), (500, 1250));
        let args = parse("-f a.yaml").unwrap();
        assert_eq!(
            (args.tasks, args.service_millis, args.start_up_millis),
            (200, 60_000, 30_000)
        );
        for (line, words) in [
            (
                "--service-seconds 0",
                "must be a number of seconds from 0.001 to 86400",
            ),
            (
                "--service-seconds -5",
                "must be a number of seconds from 0.001 to 86400",
            ),
            ("--service-seconds NaN", "must be a number of seconds"),
            ("--service-seconds 86400.5", "must be a number of seconds"),
            (
                "--start-up-seconds -1",
                "must be a number of seconds from 0 to 3600",
            ),
            ("--tasks -3", "-3 is not in 1..=1000000"),
            ("--tasks 0", "0 is not in 1..=1000000"),
        ] {
            let error = parse(&format!("-f a.yaml {line}")).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_told_what_it_lacks() {
        let error = |text: &str| parse(&format!("-f a.yaml --begins-at {text}")).unwrap_err();
        let words = error("2027-01-04T07:55:00");
        assert!(words.contains("add Z or an offset such as +01:00"), "{words}");
        let words = error("eight");
        assert!(
            words.contains("must be a date and a time with an offset"),
            "{words}"
        );
        let args = parse("-f a.yaml --begins-at 2027-01-04T07:55:00+01:00").unwrap();
        assert_eq!(args.begins_at.to_string(), "2027-01-04T06:55:00Z");
    }

    /// Near the end of time there is no next start to look for.
    #[test]
    fn a_run_begins_in_years_in_which_schedules_can_be_kept() {
        for time in [
            "9999-12-30T22:00:00Z",
            "2201-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
        ] {
            let error = parse(&format!("-f a.yaml --begins-at {time}")).unwrap_err();
            assert!(
                error.contains("must be in the years 1970 to 2200"),
                "{time}: {error}"
            );
        }
        for time in ["1970-01-01T00:00:00Z", "2200-12-31T23:59:59Z"] {
            assert!(parse(&format!("-f a.yaml --begins-at {time}")).is_ok(), "{time}");
        }
    }
}
