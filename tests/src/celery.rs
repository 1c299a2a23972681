//! Real Celery: an environment with its workers as an image of the local node,
//! a publisher, and the tasks' own account of what ran where and when.

use crate::process::{mortal, on_keeper};
use crate::{Result, plane};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// The image name under which a shared plane's node knows the environment.
pub const CELERY_IMAGE: &str = "poolwright.test/celery:5.7";

/// The environment: `bin/celery`, `bin/python` and the app `tapp` in `app`.
#[derive(Clone, Debug)]
pub struct Celery {
    /// The image's folder.
    pub dir: PathBuf,
}

impl Celery {
    /// Finds it in the user's cache folder, and makes it when it is missing.
    pub fn locate() -> Result<Self> {
        static KNOWN: Mutex<Option<Celery>> = Mutex::new(None);
        let mut known = KNOWN.lock().expect("no build panics");
        if let Some(known) = &*known {
            return Ok(known.clone());
        }
        let dir = plane::build(&Path::new(env!("CARGO_MANIFEST_DIR")).join("celery/build.sh"))?;
        Ok(known.insert(Self { dir }).clone())
    }

    /// A command of the environment (`celery` or `python`), in the app's folder,
    /// which ends with this process: a publisher, or a worker that is no pod.
    pub fn command(&self, program: &str, broker: &str, env: &[(&str, &str)]) -> Command {
        let mut command = mortal(self.dir.join("bin").join(program));
        command.current_dir(self.dir.join("app"));
        command
            .env("CELERY_BROKER_URL", broker)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(env.iter().copied());
        command
    }

    /// Starts a publisher; `env` are the variables of `tapp.py`, such as `TAPP_KEY_PREFIX`.
    pub async fn publisher(&self, broker: &str, env: &[(&str, &str)]) -> Result<Publisher> {
        let mut command = self.command("python", broker, env);
        command
            .args(["publish.py", "--serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let mut child = on_keeper(move || command.spawn())?;
        let requests = child.stdin.take().ok_or("the publisher has no input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("the publisher has no output")?).lines();
        let mut publisher = Publisher {
            _child: child,
            requests,
            answers,
        };
        publisher.answer().await?;
        Ok(publisher)
    }
}

/// Tasks to publish. Their ids are the prefix, a hyphen and a number from 0.
#[derive(Clone, Debug, Serialize)]
pub struct Batch {
    /// `tapp.sleep`, `tapp.limited`, `tapp.spin`, `tapp.add` or `tapp.fail`.
    pub task: String,
    /// The queue's name.
    pub queue: String,
    /// How many.
    pub count: usize,
    /// What each takes, with those but the last two.
    pub seconds: f64,
    /// The message's priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Seconds before which a task is not due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub countdown: Option<f64>,
    /// Seconds after which a task is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<f64>,
    /// What the ids begin with; random when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// More keyword arguments of the task.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Batch {
    /// Some tasks that each sleep for so many seconds.
    pub fn sleep(queue: &str, count: usize, seconds: f64) -> Self {
        Self {
            task: "tapp.sleep".into(),
            queue: queue.into(),
            count,
            seconds,
            priority: None,
            countdown: None,
            expires: None,
            prefix: None,
            extra: BTreeMap::new(),
        }
    }
}

/// A long-lived process that publishes with Celery's own client.
#[derive(Debug)]
pub struct Publisher {
    _child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    ids: Vec<String>,
    error: Option<String>,
}

impl Publisher {
    /// Publishes them and returns their ids once the broker has them.
    pub async fn publish(&mut self, batch: &Batch) -> Result<Vec<String>> {
        let mut line = serde_json::to_vec(batch)?;
        line.push(b'\n');
        self.requests.write_all(&line).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Vec<String>> {
        let line = self.answers.next_line().await?.ok_or("the publisher has ended")?;
        let answer: Answer = serde_json::from_str(&line)?;
        match answer.error {
            None => Ok(answer.ids),
            Some(error) => Err(format!("the publisher failed: {error}").into()),
        }
    }
}

/// What a task wrote to the file of `TAPP_LOG`.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskEvent {
    /// The task's id.
    pub id: String,
    /// The pod on which it ran.
    pub pod: String,
    /// `start`, `end` or `fail`.
    pub event: String,
    /// Seconds since 1970.
    pub at: f64,
}

/// Reads a task log; a missing one is empty.
pub fn read_task_events(log: &Path) -> Result<Vec<TaskEvent>> {
    let text = match std::fs::read_to_string(log) {
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
