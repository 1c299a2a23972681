//! The API server's audit log: who wrote what, who read Secrets, and all that the operator asked for.
//!
//! Tests count writes by user here, which no client-side counter can replace:
//! it is the server that says that nothing was written.

use crate::Result;
use jiff::Timestamp;
use serde::Deserialize;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// The policy: every write, every access to Secrets, all of [`OPERATOR`](crate::plane::OPERATOR)'s, how accounts read
/// namespaces, no other read.
pub(crate) const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    resources: [{group: "", resources: [secrets]}]
  - level: Metadata
    users: ["system:serviceaccount:poolwright:poolwright"]
  - level: Metadata
    userGroups: ["system:serviceaccounts"]
    resources: [{group: "", resources: [namespaces]}]
  - level: None
    verbs: [get, list, watch]
  - level: Metadata
"#;

/// One request that the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// For example `system:serviceaccount:poolwright:poolwright`.
    pub user: String,
    /// The name of the client program as it gives it.
    pub user_agent: String,
    /// `create`, `update`, `patch`, `delete`, `get`, …
    pub verb: String,
    /// For example `apps`; empty for the core group.
    pub group: String,
    /// The plural, for example `deployments`.
    pub resource: String,
    /// For example `scale` or `status`; empty for the object itself.
    pub subresource: String,
    /// Empty for a cluster-scoped object.
    pub namespace: String,
    /// Empty for a list, and for a create.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u16,
    /// When the request arrived.
    pub at: Timestamp,
}

impl AuditEntry {
    /// Says whether it could change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    user: LineUser,
    #[serde(default)]
    user_agent: String,
    verb: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
    request_received_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct LineUser {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// Reads the whole log; a last line that is still being written is left out.
pub fn audit_entries(log: &Path) -> Result<Vec<AuditEntry>> {
    AuditTail::default().read(log)
}

/// Most lines are shorter.
const LONGEST: u64 = 64 * 1024;

/// What the log has got since it was last looked at.
#[derive(Clone, Debug, Default)]
pub struct AuditTail {
    read: u64,
}

impl AuditTail {
    /// From the present end of a log on. Only the end is read: a long run's log is too long for each of its tests.
    pub fn from_now(log: &Path) -> Result<Self> {
        let mut file = File::open(log)?;
        let mut begin = file.metadata()?.len();
        loop {
            let end = begin;
            begin = end.saturating_sub(LONGEST);
            let mut text = Vec::new();
            file.seek(SeekFrom::Start(begin))?;
            (&mut file).take(end - begin).read_to_end(&mut text)?;
            let newline = text.iter().rposition(|byte| *byte == b'\n');
            if let Some(newline) = newline {
                let read = begin + newline as u64 + 1;
                return Ok(Self { read });
            }
            if begin == 0 {
                return Ok(Self::default());
            }
        }
    }

    /// The entries since the last look.
    pub fn read(&mut self, log: &Path) -> Result<Vec<AuditEntry>> {
        let (mut file, mut text) = (File::open(log)?, String::new());
        file.seek(SeekFrom::Start(self.read))?;
        file.read_to_string(&mut text)?;
        let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
        self.read += complete.len() as u64;
        complete.lines().map(entry).collect()
    }
}

fn entry(line: &str) -> Result<AuditEntry> {
    let line: Line = serde_json::from_str(line)?;
    let object = line.object_ref.unwrap_or_default();
    Ok(AuditEntry {
        user: line.user.username,
        user_agent: line.user_agent,
        verb: line.verb,
        group: object.api_group,
        resource: object.resource,
        subresource: object.subresource,
        namespace: object.namespace,
        name: object.name,
        code: line.response_status.map_or(0, |status| status.code),
        at: line.request_received_timestamp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_tail_begins_with_the_line_that_is_being_written() {
        let line = |name: &str| {
            format!(
                r#"{{"user":{{"username":"u"}},"verb":"get","objectRef":{{"name":"{name}"}},"requestReceivedTimestamp":"2026-01-01T00:00:00Z"}}"#
            )
        };
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let path = log.path().to_owned();
        let (old, half) = (line("old"), line("half"));
        let (begun, rest) = half.split_at(40);
        // More than is read at once, so that a newline is found only some way back.
        let spaces = usize::try_from(LONGEST).unwrap();
        write!(log, "{old}\n{}{begun}", " ".repeat(spaces)).unwrap();
        log.flush().unwrap();
        let mut tail = AuditTail::from_now(&path).unwrap();
        assert_eq!(tail.read(&path).unwrap(), []);
        writeln!(log, "{rest}\n{}", line("next")).unwrap();
        log.flush().unwrap();
        let names = |entries: Vec<AuditEntry>| entries.into_iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(tail.read(&path).unwrap()), ["half", "next"]);
        assert_eq!(names(audit_entries(&path).unwrap()), ["old", "half", "next"]);
        assert_eq!(tail.read(&path).unwrap(), []);
    }
}
