//! Redis servers, sentinels and certificates for one test, on free ports and in a directory of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use poolwright_core::broker::{BrokerConfig, BrokerOptions};
use redis::aio::MultiplexedConnection;

/// A server process; it ends with this value.
pub struct Server {
    child: Child,
    pub port: u16,
    /// Where it writes; removed with this value.
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A plain server.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with further settings, as on its command line.
    pub fn with(settings: &[&str]) -> Self {
        let port = free_port();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut arguments: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]
            .map(str::to_owned)
            .to_vec();
        if !settings.contains(&"--port") {
            arguments.extend(["--port".to_owned(), port.to_string()]);
        }
        // A setting of several words is several arguments.
        let words = settings.iter().flat_map(|s| s.split(' '));
        arguments.extend(words.map(|s| s.replace("PORT", &port.to_string())));
        let child = spawn("redis-server", &arguments, dir.path());
        wait_for(port);
        Self {
            child,
            port,
            _dir: dir,
        }
    }

    /// A sentinel that watches one master under the name `mymaster`, with further lines in its file.
    pub fn sentinel(master: &Server, extra: &str) -> Self {
        let port = free_port();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 3000\n{}\n",
            master.port,
            extra.replace("PORT", &port.to_string()),
        );
        std::fs::write(&config, text).expect("a configuration");
        let arguments = [config.display().to_string(), "--sentinel".to_owned()];
        let child = spawn("redis-server", &arguments, dir.path());
        wait_for(port);
        Self {
            child,
            port,
            _dir: dir,
        }
    }

    /// Sends a signal to the process.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args([name, &pid])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// A connection to fill the server with.
    pub async fn raw(&self, database: u32) -> MultiplexedConnection {
        let client =
            redis::Client::open(format!("redis://127.0.0.1:{}/{database}", self.port)).expect("a client");
        client
            .get_multiplexed_async_connection()
            .await
            .expect("a connection")
    }

    /// How many bytes it sends while something is done, beside its answers to this question.
    pub async fn sent_during<T>(&self, done: impl Future<Output = T>) -> u64 {
        let mut raw = self.raw(0).await;
        let mut sent = async || {
            let stats: String = redis::cmd("INFO")
                .arg("stats")
                .query_async(&mut raw)
                .await
                .expect("stats");
            let line = stats
                .lines()
                .find_map(|line| line.strip_prefix("total_net_output_bytes:"));
            line.and_then(|number| number.parse::<u64>().ok())
                .expect("a number")
        };
        let (first, second) = (sent().await, sent().await);
        done.await;
        (sent().await - second).saturating_sub(second - first)
    }

    /// The address with this user information (`""` or `user:password@`).
    pub fn url(&self, user: &str, database: u32) -> String {
        format!("redis://{user}127.0.0.1:{}/{database}", self.port)
    }

    /// The configuration of a plain connection.
    pub fn config(&self) -> BrokerConfig {
        BrokerConfig::parse(&self.url("", 0), &BrokerOptions::default()).expect("an address")
    }
}

/// Self-signed authority, and a certificate of it for 127.0.0.1 that serves both ends.
pub struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    pub fn make() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path();
        std::fs::write(at.join("san"), "subjectAltName=IP:127.0.0.1\n").expect("written");
        let new_key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        let ca = [
            "req",
            "-x509",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=Test CA",
            "-days",
            "2",
        ];
        openssl(at, &[&ca[..], &new_key[..]].concat());
        let request = [
            "req", "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=test",
        ];
        openssl(at, &[&request[..], &new_key[..]].concat());
        openssl(
            at,
            &[
                "x509",
                "-req",
                "-in",
                "tls.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-out",
                "tls.pem",
                "-days",
                "2",
                "-extfile",
                "san",
            ],
        );
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn pem(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a PEM file")
    }
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(dir).args(arguments).output();
    let output = output.expect("openssl is not installed: apt-get install openssl");
    assert!(
        output.status.success(),
        "openssl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn spawn(program: &str, arguments: &[String], dir: &Path) -> Child {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .spawn()
        .unwrap_or_else(|_| panic!("{program} is not installed: apt-get install redis-server"))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn wait_for(port: u16) {
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "the server did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}
