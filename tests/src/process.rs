//! Child processes that cannot outlive this one.
//!
//! Every child is started through `setpriv --pdeathsig KILL`, so that the
//! kernel ends it even when a test run is killed. The kernel watches the
//! *thread* that started the child, not the process, and test threads come
//! and go: one thread that never ends starts all of them.

use crate::Result;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;

type Job = Box<dyn FnOnce() + Send>;

static KEEPER: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || jobs.into_iter().for_each(|job| job()))
        .expect("a thread can be started");
    Mutex::new(sender)
});

/// Chooses the TLS implementation of this process: more than one may be linked.
pub fn install_crypto() {
    // An error means that it has been chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Runs a short job (starting a process) on the thread that never ends.
pub fn on_keeper<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    let runtime = tokio::runtime::Handle::try_current().ok();
    let (sender, answer) = mpsc::sync_channel(1);
    let job = Box::new(move || {
        let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
        let _ = sender.send(job());
    });
    KEEPER
        .lock()
        .expect("no job panics with the lock")
        .send(job)
        .expect("the keeper never ends");
    answer.recv().expect("the keeper answers each job")
}

/// A command whose process is killed by the kernel when this process ends.
pub fn mortal(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(find_program("setpriv", None).unwrap_or_else(|| "setpriv".into()));
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    command
}

/// Looks a program up along a search path, by default this process' own.
pub fn find_program(name: &str, path: Option<&str>) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|file| file.is_file());
    }
    let own = std::env::var("PATH").unwrap_or_default();
    let path = path.map_or_else(|| format!("{own}:/usr/sbin:/sbin"), ToOwned::to_owned);
    path.split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|file| file.is_file())
}

/// Sends a signal to one process; a process that is gone is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends a signal to a process group; a group that is gone is no error.
pub fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = raw(pid) {
        let _ = kill_process_group(pid, signal);
    }
}

/// A process group that stands still until this value is dropped.
#[derive(Debug)]
pub struct Frozen(u32);

impl Frozen {
    /// Stops the group.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        signal_group(pid, Signal::STOP);
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal_group(self.0, Signal::CONT);
    }
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Makes a temporary folder, and removes those that dead processes left: what a
/// whole process shares is never dropped.
pub fn temp_dir(kind: &str) -> Result<TempDir> {
    for entry in std::fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("poolwright-")?.split('-').nth(1)?.parse().ok());
        if owner.is_some_and(|pid: u32| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(tempfile::Builder::new()
        .prefix(&format!("poolwright-{kind}-{}-", std::process::id()))
        .tempdir()?)
}

/// Finds a port that was free a moment ago.
///
/// Ports are taken below the range from which the kernel picks ports for
/// outgoing connections, so that no client takes it before the server does.
pub fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port on the loopback interface".into())
}

/// A server in a process group of its own, killed when this value is dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts it with its output in a file.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        let child = on_keeper(move || command.spawn())
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        Ok(Self {
            name: name.into(),
            log: log.into(),
            child,
        })
    }

    /// The process id, which is also the id of its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails with the end of its log when it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(format!(
                "{} ended with {status}; its log ends:\n{}",
                self.name,
                tail(&self.log)
            )
            .into()),
        }
    }

    /// Waits until it serves; ends at once when the process has ended.
    pub async fn wait_serving<F, Fut>(&mut self, what: &str, limit: Duration, mut ask: F) -> Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<bool>>,
    {
        let since = Instant::now();
        loop {
            self.check()?;
            match ask().await {
                Ok(true) => return Ok(()),
                Err(error) if since.elapsed() > limit => return Err(error),
                Ok(false) if since.elapsed() > limit => {
                    return Err(format!("waited in vain for {what}").into());
                }
                Ok(false) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, kind: Signal) {
        signal(self.pid(), kind);
    }

    /// Stops the whole group from running, as a hung machine would.
    pub fn freeze(&self) {
        signal_group(self.pid(), Signal::STOP);
    }

    /// Lets a frozen group run on.
    pub fn thaw(&self) {
        signal_group(self.pid(), Signal::CONT);
    }

    /// Asks it to end, and kills the group after `patience`.
    pub fn stop(&mut self, patience: Duration) {
        self.thaw();
        self.signal(Signal::TERM);
        let since = Instant::now();
        while self.ended().is_none() && since.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }

    /// Kills the group at once and waits until it is gone.
    pub fn kill(&mut self) {
        signal_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last part of a log file, for an error message.
pub fn tail(log: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let _ = file.read_to_end(&mut text);
    }
    let start = text.len().saturating_sub(2000);
    String::from_utf8_lossy(&text[start..]).into_owned()
}

/// Waits for SIGINT, SIGTERM, the end of the process that started this one, and
/// where it is wanted for the end of the input.
pub async fn until_told_to_stop(at_end_of_input: bool) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let parent = std::os::unix::process::parent_id();
    let orphaned = async {
        while std::os::unix::process::parent_id() == parent {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    // A thread of its own: the runtime would wait for a read that it cannot cancel.
    let (ended, input_ended) = tokio::sync::oneshot::channel();
    if at_end_of_input {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = ended.send(());
        });
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = orphaned => {}
        _ = input_ended, if at_end_of_input => {}
    }
    Ok(())
}
