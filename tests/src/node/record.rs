//! The node's record: one line of JSON for each start, signal and exit.
//!
//! "No task was killed" is a statement about processes. The record says it
//! from outside: whatever an operator or a worker believes, a SIGKILL that the
//! node had to send is written here.

use crate::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

/// One event of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it happened.
    pub at: Timestamp,
    /// The node's name.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// `start`, `signal` or `exit`.
    pub event: String,
    /// The id of the main process, which is that of its process group.
    pub pid: u32,
    /// With `signal`: `TERM` to the main process, `KILL` to the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// With `exit`: the exit code, or 128 and the signal's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// With `exit`: whether the node had sent SIGKILL.
    #[serde(default)]
    pub killed: bool,
}

/// Reads a record file; a missing one is empty.
pub fn read_records(file: &Path) -> Result<Vec<Record>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete
        .lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

/// Writes the record; nodes may share a file, as each line is one write.
pub(crate) struct Recorder {
    file: Mutex<File>,
    node: String,
}

impl Recorder {
    pub(crate) fn open(file: &Path, node: &str) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(file)?;
        Ok(Self {
            file: Mutex::new(file),
            node: node.into(),
        })
    }

    pub(crate) fn write(&self, mut record: Record) {
        record.at = Timestamp::now();
        record.node.clone_from(&self.node);
        let mut line = serde_json::to_vec(&record).expect("a record is plain data");
        line.push(b'\n');
        let written = self.file.lock().expect("no write panics").write_all(&line);
        if let Err(error) = written {
            eprintln!("node {}: cannot write its record: {error}", self.node);
        }
    }
}
