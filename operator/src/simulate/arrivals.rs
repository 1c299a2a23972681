//! Which tasks arrive when, read from a file or made.
//!
//! Two forms of files, both with commas, a header that is required and the first task first. It corrects nothing: what is
//! not as it should be is an error with its line.
//!
//! * Arrivals: `seconds,queue,service_seconds` in any order of columns; seconds since the beginning, the name of a
//!   `TaskQueue`, and how long the task takes a slot.
//! * A trace, as published for language models: `TIMESTAMP,ContextTokens,GeneratedTokens`. The first task arrives at 0;
//!   each takes 0.1 s for each generated token. A time without an offset is taken as UTC.
//!
//! A cell may stand in double quotes; a comma inside them is not understood.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use poolwright_sim::scenario::{Millis, Task};

/// Largest file that is read, in bytes: some million tasks.
pub(super) const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Longest time that a file may hold, in seconds: a month.
const SECONDS_MAX: f64 = 31.0 * 86_400.0;
/// Milliseconds that a task takes for a generated token.
const TOKEN_MILLIS: u64 = 100;
/// Most tokens of a task: a month, as for the times of a file.
const TOKENS_MAX: u64 = 26_784_000;

const ARRIVALS: [&str; 3] = ["seconds", "queue", "service_seconds"];
const TRACE: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

/// What is wrong with a file, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    line: usize,
    message: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

fn wrong(line: usize, message: impl Into<String>) -> Wrong {
    Wrong {
        line,
        message: message.into(),
    }
}

/// The TaskQueues that a file may name.
#[derive(Clone, Debug, Default)]
pub(super) struct Queues<'a> {
    /// Those that a `WorkerPool` consumes, in the order of the scenario.
    pub(super) consumed: Vec<&'a str>,
    /// The others.
    pub(super) idle: Vec<&'a str>,
}

/// Tasks that arrive at the beginning, dealt to the queues in turn.
pub(super) fn at_once(tasks: u32, service: Millis, queues: usize) -> Vec<Task> {
    let task = |at: u32| Task {
        arrives: 0,
        service,
        queue: at as usize % queues.max(1),
        failures: 0,
    };
    (0..tasks).map(task).collect()
}

/// The tasks of a file of arrivals.
pub(super) fn csv(text: &str, queues: &Queues) -> Result<Vec<Task>, Wrong> {
    let mut before = 0;
    rows(text, ARRIVALS, |line, [seconds, queue, service]| {
        let task = Task {
            arrives: millis(line, ARRIVALS[0], seconds)?,
            service: millis(line, ARRIVALS[2], service)?.max(1),
            queue: place(queue, queues).map_err(|message| wrong(line, message))?,
            failures: 0,
        };
        in_order(line, &mut before, task.arrives)?;
        Ok(task)
    })
}

/// The tasks of a trace, all for one queue.
pub(super) fn trace(text: &str, queue: usize) -> Result<Vec<Task>, Wrong> {
    let (mut first, mut before) = (None, 0);
    rows(text, TRACE, |line, [time, _, tokens]| {
        let at = instant(line, time)?;
        let since = at.duration_since(*first.get_or_insert(at));
        let since = u64::try_from(since.as_millis()).map_err(|_| unsorted(line))?;
        in_order(line, &mut before, since)?;
        let count: Option<u64> = tokens.parse().ok();
        let tokens = count.filter(|count| *count <= TOKENS_MAX).ok_or_else(|| {
            wrong(
                line,
                format!("GeneratedTokens is {tokens:?}, and must be a whole number from 0 to {TOKENS_MAX}"),
            )
        })?;
        Ok(Task {
            arrives: since,
            service: (tokens * TOKEN_MILLIS).max(1),
            queue,
            failures: 0,
        })
    })
}

/// A time of a trace, with an offset or without.
fn instant(line: usize, text: &str) -> Result<DateTime, Wrong> {
    let with_offset = text.parse::<Timestamp>().map(|at| Offset::UTC.to_datetime(at));
    with_offset.or_else(|_| text.parse()).map_err(|_| {
        wrong(
            line,
            format!("TIMESTAMP is {text:?}, and must be a date and a time such as 2023-11-16 18:15:46.68"),
        )
    })
}

/// The place of the queue that gets a trace: the named one, or the only one.
pub(super) fn one_queue(name: Option<&str>, queues: &Queues) -> Result<usize, String> {
    match (name, &queues.consumed[..]) {
        (Some(name), _) => place(name, queues),
        (None, [_]) => Ok(0),
        (None, _) => Err(format!(
            "--queue is required, because there are several: {}",
            queues.consumed.join(", ")
        )),
    }
}

fn place(name: &str, queues: &Queues) -> Result<usize, String> {
    let found = queues.consumed.iter().position(|queue| *queue == name);
    found.ok_or_else(|| {
        if queues.idle.contains(&name) {
            return format!("no WorkerPool consumes TaskQueue {name:?}: its tasks would never run");
        }
        format!(
            "{name:?} is no TaskQueue of the fleet; there are {}",
            queues.consumed.join(", ")
        )
    })
}

/// Reads the lines behind the header, their cells in the order of `columns`.
fn rows(
    text: &str,
    columns: [&str; 3],
    mut read: impl FnMut(usize, [&str; 3]) -> Result<Task, Wrong>,
) -> Result<Vec<Task>, Wrong> {
    let mut lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
    let Some((_, header)) = lines.next().filter(|(_, header)| !header.trim().is_empty()) else {
        return Err(wrong(
            1,
            format!("is empty; the first line must be {}", columns.join(",")),
        ));
    };
    let order = order(header, columns)?;
    let mut tasks = Vec::new();
    for (line, row) in lines.filter(|(_, row)| !row.trim().is_empty()) {
        let cells = cells(line, row)?;
        if cells.len() != columns.len() {
            return Err(wrong(
                line,
                format!("has {} cells, and the header {}", cells.len(), columns.len()),
            ));
        }
        tasks.push(read(line, order.map(|at| cells[at]))?);
    }
    if tasks.is_empty() {
        return Err(wrong(1, "holds no task"));
    }
    Ok(tasks)
}

/// The cells of a line, without the quotes around them.
fn cells(line: usize, row: &str) -> Result<Vec<&str>, Wrong> {
    let bare = |cell: &str| !cell.contains('"');
    let cell = |cell| {
        let cell = str::trim(cell);
        let inner = cell.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        Some(inner.unwrap_or(cell)).filter(|cell| bare(cell))
    };
    let cells: Option<Vec<&str>> = row.split(',').map(cell).collect();
    cells.ok_or_else(|| {
        wrong(
            line,
            "has a quote that is not understood: quotes may only stand around a whole cell without comma or quote",
        )
    })
}

/// The place of each column in the header.
fn order(header: &str, columns: [&str; 3]) -> Result<[usize; 3], Wrong> {
    let must = format!("the header must be {}", columns.join(","));
    let found = cells(1, header)?;
    if let Some(unknown) = found.iter().find(|name| !columns.contains(name)) {
        return Err(wrong(1, format!("unknown column {unknown:?}; {must}")));
    }
    let mut order = [0; 3];
    for (column, name) in columns.iter().enumerate() {
        let at = found.iter().position(|one| one == name);
        order[column] = at.ok_or_else(|| wrong(1, format!("column {name:?} is missing; {must}")))?;
    }
    if found.len() > columns.len() {
        return Err(wrong(1, format!("has {} columns; {must}", found.len())));
    }
    Ok(order)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded above, and not negative
fn millis(line: usize, column: &str, text: &str) -> Result<Millis, Wrong> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds < 0.0 => Err(wrong(
            line,
            format!("{column} is {text}, and must not be negative"),
        )),
        Ok(seconds) if seconds <= SECONDS_MAX => Ok((seconds * 1000.0).round() as Millis),
        _ => Err(wrong(
            line,
            format!("{column} is {text:?}, and must be a number of seconds, at most {SECONDS_MAX}"),
        )),
    }
}

fn unsorted(line: usize) -> Wrong {
    wrong(line, "is earlier than the line before it: sort the file by time")
}

fn in_order(line: usize, before: &mut Millis, now: Millis) -> Result<(), Wrong> {
    if now < *before {
        return Err(unsorted(line));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let most = SECONDS_MAX as Millis * 1000;
    if now > most {
        return Err(wrong(
            line,
            format!("is more than {SECONDS_MAX} s after the first"),
        ));
    }
    *before = now;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> Queues<'static> {
        Queues {
            consumed: vec!["mail", "video"],
            idle: vec!["old"],
        }
    }

    fn error(text: &str) -> String {
        csv(text, &queues()).unwrap_err().to_string()
    }

    #[test]
    fn arrivals_are_read_by_the_names_of_their_columns() {
        let tasks = csv(
            "queue,service_seconds,seconds\r\nvideo,1.5,0\r\n\r\nmail,0,2.25\r\n",
            &queues(),
        )
        .unwrap();
        let task = |arrives, service, queue| Task {
            arrives,
            service,
            queue,
            failures: 0,
        };
        assert_eq!(tasks, [task(0, 1500, 1), task(2250, 1, 0)]);
    }

    #[test]
    fn each_mistake_of_a_file_of_arrivals_has_its_line() {
        let header = "seconds,queue,service_seconds\n";
        for (text, words) in [
            (
                String::new(),
                "1: is empty; the first line must be seconds,queue,service_seconds",
            ),
            (header.to_owned(), "1: holds no task"),
            (
                "seconds,queue,duration\n0,mail,1\n".to_owned(),
                "1: unknown column \"duration\"",
            ),
            (
                "seconds,queue\n0,mail\n".to_owned(),
                "1: column \"service_seconds\" is missing",
            ),
            (
                "seconds,queue,queue,service_seconds\n".to_owned(),
                "1: has 4 columns",
            ),
            (
                format!("{header}0,mail,1\n5,mail,1\n4,mail,1\n"),
                "4: is earlier than the line before it",
            ),
            (
                format!("{header}0,mail,-1\n"),
                "2: service_seconds is -1, and must not be negative",
            ),
            (
                format!("{header}-3,mail,1\n"),
                "2: seconds is -3, and must not be negative",
            ),
            (
                format!("{header}0,mail,NaN\n"),
                "2: service_seconds is \"NaN\", and must be a number",
            ),
            (format!("{header}0,mail,inf\n"), "2: service_seconds is \"inf\""),
            (format!("{header}0,mial,1\n"), "2: \"mial\" is no TaskQueue"),
            (
                format!("{header}0,old,1\n"),
                "2: no WorkerPool consumes TaskQueue \"old\"",
            ),
            (
                format!("{header}0,\"mail,1\n"),
                "2: has a quote that is not understood",
            ),
            (
                format!("{header}0,\"ma\"\"il\",1\n"),
                "2: has a quote that is not understood",
            ),
            (format!("{header}0,mail\n"), "2: has 2 cells, and the header 3"),
        ] {
            assert!(error(&text).starts_with(words), "{text:?}: {}", error(&text));
        }
    }

    #[test]
    fn a_trace_begins_at_nought_and_a_token_takes_a_tenth_of_a_second() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n\
                    2023-11-16 18:15:50.9951690,396,109";
        let tasks = trace(text, 0).unwrap();
        let found: Vec<(Millis, Millis)> = tasks.iter().map(|task| (task.arrives, task.service)).collect();
        assert_eq!(found, [(0, 4400), (4314, 10_900)]);
        let header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
        for (text, words) in [
            (String::new(), "1: is empty"),
            (header.to_owned(), "1: holds no task"),
            (
                format!("{header}2023-11-16 18:15:46,1,1\n2023-11-16 18:15:45,1,1\n"),
                "3: is earlier than the line",
            ),
            (
                format!("{header}2023-11-16 18:15:46,1,-4\n"),
                "2: GeneratedTokens is \"-4\"",
            ),
            (
                format!("{header}2023-11-16 18:15:46,1,26784001\n"),
                "2: GeneratedTokens is \"26784001\", and must be a whole number from 0 to 26784000",
            ),
            (
                format!("{header}yesterday,1,4\n"),
                "2: TIMESTAMP is \"yesterday\"",
            ),
            (
                "TIMESTAMP,ContextTokens,Tokens\n".to_owned(),
                "1: unknown column \"Tokens\"",
            ),
        ] {
            let error = trace(&text, 0).unwrap_err().to_string();
            assert!(error.starts_with(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn quotes_around_a_cell_are_taken_off() {
        let text = "\"seconds\", \"queue\",\"service_seconds\"\n\"1\",\"mail\", \"2\"\n";
        let tasks = csv(text, &queues()).unwrap();
        assert_eq!(
            (tasks[0].arrives, tasks[0].service, tasks[0].queue),
            (1000, 2000, 0)
        );
    }

    #[test]
    fn times_of_a_trace_may_have_an_offset() {
        let header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
        let text = format!(
            "{header}2023-11-16T18:15:46,1,1\n2023-11-16T18:15:47.5Z,1,1\n2023-11-16 20:15:49+02:00,1,1\n"
        );
        let found: Vec<Millis> = trace(&text, 0).unwrap().iter().map(|task| task.arrives).collect();
        assert_eq!(found, [0, 1500, 3000]);
    }

    #[test]
    fn a_trace_needs_a_queue_where_there_are_several() {
        let one = Queues {
            consumed: vec!["mail"],
            idle: Vec::new(),
        };
        assert_eq!(one_queue(None, &one), Ok(0));
        assert_eq!(one_queue(Some("video"), &queues()), Ok(1));
        for (name, words) in [
            (None, "--queue is required"),
            (Some("x"), "there are mail, video"),
            (Some("old"), "no WorkerPool consumes TaskQueue \"old\""),
        ] {
            let error = one_queue(name, &queues()).unwrap_err();
            assert!(error.contains(words), "{name:?}: {error}");
        }
    }

    #[test]
    fn tasks_at_once_are_dealt_in_turn() {
        let tasks = at_once(5, 60_000, 2);
        assert_eq!(
            tasks.iter().map(|task| task.queue).collect::<Vec<_>>(),
            [0, 1, 0, 1, 0]
        );
        assert!(
            tasks
                .iter()
                .all(|task| (task.arrives, task.service) == (0, 60_000))
        );
    }
}
