//! What must never be said: canaries in all that an operator has said in a whole run, and that it has sent an event of
//! which the documents do not tell.
//!
//! Passwords and the arguments of tasks that tests use begin with [`CANARY`]. The log and the metrics of each operator are
//! looked through as it ends, and the events and status of all objects as the plane does.

use crate::{Plane, Result};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// How a canary begins.
pub const CANARY: &str = "canary-";
/// What an operator says of an event that its reference page does not have.
const UNTOLD: &str = "an event of a reason that docs/reference/events.md does not have";
/// Names a file to which what was found is added, and how much was looked through.
pub const VARIABLE: &str = "POOLWRIGHT_LEAKS";

/// Looks through one text, and notes what was found in the file of the run, if there is one.
pub(crate) fn look(place: &str, text: &str) {
    let Some(file) = std::env::var_os(VARIABLE) else {
        return;
    };
    let report = reported(place, text);
    let noted = OpenOptions::new().create(true).append(true).open(file);
    if let Err(error) = noted.and_then(|mut file| file.write_all(report.as_bytes())) {
        eprintln!("what was looked for was not noted: {error}");
    }
}

fn reported(place: &str, text: &str) -> String {
    let looked = format!("looked\t{place}\t{}\n", text.lines().count());
    let leaked = text
        .lines()
        .filter(|line| line.contains(CANARY) || line.contains(UNTOLD));
    let leaked = leaked.map(|line| format!("leaked\t{place}\t{line}\n"));
    std::iter::once(looked).chain(leaked).collect()
}

/// The answer to a GET without a runtime, for the end of a test.
pub(crate) fn fetch(address: &str, path: &str) -> Option<String> {
    let address: SocketAddr = address.parse().ok()?;
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Looks through the events and the status of every object of a plane. What users wrote, their spec, is theirs.
///
/// # Errors
/// `kubectl` fails.
pub async fn look_through(plane: &Plane) -> Result<()> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(());
    }
    let kubectl = plane.kubectl()?;
    let get = async |kind: &str| kubectl.run(["get", kind, "--all-namespaces", "-o", "json"]).await;
    look(
        "events",
        &serde_json::to_string_pretty(&parsed(&get("events").await?)?)?,
    );
    for kind in ["workerpools", "taskqueues", "pools.poolwright.dev"] {
        let Ok(text) = get(kind).await else { continue };
        for object in parsed(&text)?["items"].as_array().into_iter().flatten() {
            let status = serde_json::to_string_pretty(&object["status"])?;
            look(&format!("status of {kind}"), &status);
        }
    }
    Ok(())
}

fn parsed(text: &str) -> Result<Value> {
    Ok(serde_json::from_str(text)?)
}

/// What a run has found: the lines that leaked, and how many texts and lines were looked through.
///
/// # Errors
/// The file cannot be read.
pub fn found(file: &Path) -> Result<(Vec<String>, usize, usize)> {
    let text = std::fs::read_to_string(file)?;
    let leaked = text.lines().filter_map(|line| line.strip_prefix("leaked\t"));
    let looked = text.lines().filter(|line| line.starts_with("looked\t"));
    let lines = looked
        .clone()
        .filter_map(|line| line.rsplit('\t').next()?.parse::<usize>().ok());
    Ok((leaked.map(str::to_owned).collect(), looked.count(), lines.sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_wherever_it_is_said() -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let said = format!("good\nthe password is {CANARY}7, and more\nwell");
        let log = format!("good\n{UNTOLD}");
        let report = [reported("log", &log), reported("metrics", &said)].concat();
        std::fs::write(file.path(), report)?;
        let lines = vec![
            format!("log\t{UNTOLD}"),
            format!("metrics\tthe password is {CANARY}7, and more"),
        ];
        assert_eq!(found(file.path())?, (lines, 2, 5));
        Ok(())
    }
}
