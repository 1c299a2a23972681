//! One container: starts its process, starts it again when it ends, stops it.
//!
//! The process has its own group. A stop goes to the main process alone, as
//! with a container whose first process does not pass signals on; the kill at
//! the end of the grace goes to the whole group, as a container's end does.

use super::record::Record;
use super::{Image, Shared, env};
use crate::process::{find_program, mortal, on_keeper, signal, signal_group};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// A container whose environment has this variable and whose exit code is 137
/// is reported as `OOMKilled`: a process cannot be given a memory limit here.
const FAKE_OOM: &str = "POOLWRIGHT_FAKE_OOM";
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that is always started again, and ends after the main ones.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// Whether a container is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is to run.
    No,
    /// SIGTERM now, SIGKILL at this moment.
    Term(Instant),
    /// SIGKILL now.
    Kill,
}

/// What a container does, as its status says it.
#[derive(Clone, Debug)]
pub(super) enum State {
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running {
        started: Timestamp,
    },
    Ended {
        code: i32,
        reason: &'static str,
        message: String,
        started: Timestamp,
        ended: Timestamp,
    },
}

/// A change of one container, told to its pod.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) index: usize,
    /// Nothing when a container is stopped that does not run.
    pub(super) state: Option<State>,
    /// It will not run again.
    pub(super) done: bool,
}

/// One container of one pod.
pub(super) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) role: Role,
    pub(super) index: usize,
    pub(super) changes: mpsc::UnboundedSender<Change>,
    pub(super) stop: watch::Receiver<Stop>,
}

struct Exit {
    code: i32,
    reason: &'static str,
    message: String,
}

impl Supervisor {
    /// Runs until the container is done for good.
    pub(super) async fn run(mut self) {
        let (first, longest) = self.shared.config.backoff;
        let mut pause = first;
        while !self.stopping() {
            let (mut command, env) = match self.prepare().await {
                Ok(prepared) => prepared,
                Err((reason, message)) => {
                    self.tell(
                        Some(State::Waiting {
                            reason,
                            message: message.clone(),
                        }),
                        false,
                    );
                    let retry = self.pause(pause).await;
                    if retry && reason == "ErrImagePull" {
                        let message = format!("Back-off pulling image: {message}");
                        self.tell(
                            Some(State::Waiting {
                                reason: "ImagePullBackOff",
                                message,
                            }),
                            false,
                        );
                        self.pause(longest).await;
                    }
                    pause = (pause * 2).min(longest);
                    continue;
                }
            };
            let started = Timestamp::now();
            let since = Instant::now();
            let exit = match on_keeper(move || command.spawn()) {
                Ok(child) => self.attend(child, started, &env).await,
                Err(error) => Exit {
                    code: 128,
                    reason: "StartError",
                    message: error.to_string(),
                },
            };
            let done = self.stopping() || !self.restarts(exit.code);
            let Exit {
                code,
                reason,
                message,
            } = exit;
            let ended = State::Ended {
                code,
                reason,
                message,
                started,
                ended: Timestamp::now(),
            };
            self.tell(Some(ended), done);
            if done {
                return;
            }
            if since.elapsed() > longest * 2 {
                pause = first;
            }
            let message = format!(
                "back-off {}s restarting failed container={} pod={}_{}",
                pause.as_secs(),
                self.container.name,
                self.pod.metadata.name.as_deref().unwrap_or_default(),
                self.pod.metadata.namespace.as_deref().unwrap_or_default(),
            );
            self.tell(
                Some(State::Waiting {
                    reason: "CrashLoopBackOff",
                    message,
                }),
                false,
            );
            self.pause(pause).await;
            pause = (pause * 2).min(longest);
        }
        self.tell(None, true);
    }

    fn tell(&self, state: Option<State>, done: bool) {
        // The pod ends first only when the node loses power.
        let _ = self.changes.send(Change {
            index: self.index,
            state,
            done,
        });
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow() != Stop::No || self.stop.has_changed().is_err()
    }

    fn restarts(&self, code: i32) -> bool {
        let policy = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref());
        match (self.role, policy) {
            (Role::Sidecar, _) | (Role::Main, Some("Always") | None) => true,
            (_, Some("Never")) => false,
            (Role::Init | Role::Main, _) => code != 0,
        }
    }

    /// Sleeps; false when the container is to end.
    async fn pause(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = sleep(pause) => true,
            _ = self.stop.changed() => false,
        }
    }

    /// Waits for the process' end, and brings it about when it is to stop.
    async fn attend(&mut self, mut child: Child, started: Timestamp, env: &BTreeMap<String, String>) -> Exit {
        let pid = child.id().unwrap_or_default();
        self.record("start", pid, |_| {});
        self.tell(Some(State::Running { started }), false);
        let (mut asked, mut killed, mut abandoned) = (false, false, false);
        let status = loop {
            let stop = if abandoned {
                Stop::Kill
            } else {
                *self.stop.borrow_and_update()
            };
            let deadline = match stop {
                Stop::No => None,
                Stop::Kill => Some(Instant::now()),
                Stop::Term(deadline) => {
                    if !asked {
                        asked = true;
                        self.record("signal", pid, |record| record.signal = Some("TERM".into()));
                        signal(pid, Signal::TERM);
                    }
                    Some(deadline)
                }
            };
            if !killed && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                killed = true;
                self.record("signal", pid, |record| record.signal = Some("KILL".into()));
                signal_group(pid, Signal::KILL);
            }
            let wake = deadline.unwrap_or_else(Instant::now);
            tokio::select! {
                status = child.wait() => break status,
                changed = self.stop.changed(), if !abandoned => abandoned = changed.is_err(),
                () = sleep_until(wake), if deadline.is_some() && !killed => {}
            }
        };
        // With the first process of a container end all others of it.
        signal_group(pid, Signal::KILL);
        let code = status.map_or(255, exit_code);
        self.record("exit", pid, |record| {
            record.code = Some(code);
            record.killed = killed;
        });
        let reason = match code {
            0 => "Completed",
            137 if env.contains_key(FAKE_OOM) => "OOMKilled",
            _ => "Error",
        };
        Exit {
            code,
            reason,
            message: String::new(),
        }
    }

    fn record(&self, event: &str, pid: u32, fill: impl FnOnce(&mut Record)) {
        let meta = &self.pod.metadata;
        let mut record = Record {
            at: Timestamp::UNIX_EPOCH,
            node: String::new(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            pod: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            container: self.container.name.clone(),
            event: event.into(),
            pid,
            signal: None,
            code: None,
            killed: false,
        };
        fill(&mut record);
        self.shared.recorder.write(record);
    }

    /// Makes the command, or says why the container waits.
    async fn prepare(&self) -> Result<(Command, BTreeMap<String, String>), (&'static str, String)> {
        let config = &self.shared.config;
        let image = self.container.image.as_ref();
        let Some(Image::Folder(folder)) = config.image(image) else {
            let name = image.map_or("", String::as_str);
            return Err((
                "ErrImagePull",
                format!("failed to pull image \"{name}\": not found on this node"),
            ));
        };
        let env = env::resolve(&self.shared.client, &self.pod, &self.container, &config.name)
            .await
            .map_err(|problem| ("CreateContainerConfigError", problem))?;
        let command = self
            .command(folder, &env)
            .map_err(|problem| ("CreateContainerError", problem))?;
        Ok((command, env))
    }

    fn command(&self, folder: &Path, env: &BTreeMap<String, String>) -> Result<Command, String> {
        let meta = &self.pod.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let parts = self
            .container
            .command
            .iter()
            .flatten()
            .chain(self.container.args.iter().flatten());
        let mut parts = parts.map(|part| env::expand(part, env));
        let program = parts.next().ok_or("no command specified")?;
        let system = env.get("PATH").map_or(SYSTEM_PATH, String::as_str);
        let path = format!("{}:{system}", folder.join("bin").display());
        let program = find_program(&program, Some(&path))
            .ok_or_else(|| format!("exec: \"{program}\": executable file not found in $PATH"))?;
        let mut command = mortal(program);
        command.args(parts).env_clear().envs(env);
        command.env("PATH", path).env("HOSTNAME", name);
        if !env.contains_key("HOME") {
            command.env("HOME", &self.shared.config.logs);
        }
        let own = self
            .container
            .working_dir
            .as_ref()
            .map(PathBuf::from)
            .filter(|own| own.is_dir());
        let app = Some(folder.join("app")).filter(|app| app.is_dir());
        command.current_dir(own.or(app).unwrap_or_else(|| folder.into()));
        let log = format!(
            "{}_{name}_{}.log",
            meta.namespace.as_deref().unwrap_or_default(),
            self.container.name
        );
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.shared.config.logs.join(log));
        let log = log.map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        Ok(command)
    }
}

/// The code that a container runtime reports: that of the exit, or 128 and the signal.
fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}
