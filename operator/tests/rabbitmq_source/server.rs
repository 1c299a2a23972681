//! A RabbitMQ server as a process of its own, on free loopback ports, gone with the test process.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use poolwright_core::broker::{BrokerConfig, BrokerOptions};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// Runs epmd and the server until its standard input is closed, then removes the folder.
const KEEPER: &str = r#"
setsid epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null >/dev/null 2>&1 & epmd=$!
setsid "$SERVER" </dev/null >"$DIR/out" 2>&1 & server=$!
cat >/dev/null
kill -KILL -"$server"; kill -KILL -"$epmd"
wait
rm -rf "$DIR"
"#;

/// A running server.
pub struct Server {
    keeper: Child,
    pub amqp: u16,
    pub amqps: u16,
    pub management: u16,
    pub metrics: u16,
    /// The management API and the Prometheus endpoint over HTTPS.
    pub https: [u16; 2],
    folder: PathBuf,
}

impl Server {
    /// Starts one and waits until its management API answers.
    pub async fn start() -> Self {
        assert!(
            Path::new(SERVER).exists(),
            "these tests need RabbitMQ: apt-get install rabbitmq-server"
        );
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder").keep();
        certificates(&folder);
        let [
            amqp,
            amqps,
            management,
            metrics,
            dist,
            epmd,
            managements,
            metricss,
        ] = free_ports();
        let at = |name: &str| folder.join(name).display().to_string();
        // Whoever comes must show a certificate, whatever they come for.
        let tls = |section: &str| {
            format!(
                "{section}.cacertfile = {}\n{section}.certfile = {}\n{section}.keyfile = {}\n\
                 {section}.verify = verify_peer\n{section}.fail_if_no_peer_cert = true\n",
                at("ca.pem"),
                at("server.pem"),
                at("server.key"),
            )
        };
        let conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\nlisteners.ssl.1 = 127.0.0.1:{amqps}\n{}{}{}\
             management.ssl.ip = 127.0.0.1\nmanagement.ssl.port = {managements}\n\
             prometheus.ssl.ip = 127.0.0.1\nprometheus.ssl.port = {metricss}\n\
             management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {metrics}\n\
             collect_statistics_interval = 1000\nlog.console = false\n",
            tls("ssl_options"),
            tls("management.ssl"),
            tls("prometheus.ssl"),
        );
        fs::write(folder.join("rabbitmq.conf"), conf).expect("written");
        fs::write(
            folder.join("plugins"),
            "[rabbitmq_management,rabbitmq_prometheus].",
        )
        .expect("written");
        let keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .env("SERVER", SERVER)
            .env("DIR", &folder)
            .env("HOME", &folder)
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("poolwright{amqp}@localhost"))
            .env("RABBITMQ_DIST_PORT", dist.to_string())
            .env("RABBITMQ_MNESIA_BASE", at("data"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group_of_its_own()
            .spawn()
            .expect("sh runs");
        let server = Self {
            keeper,
            amqp,
            amqps,
            management,
            metrics,
            https: [managements, metricss],
            folder,
        };
        server.ready().await;
        server
    }

    async fn ready(&self) {
        let begun = Instant::now();
        // The management API is there a moment before the listeners are.
        while self.http("GET", "overview", None).await.is_none()
            || Connection::connect(&self.url("%2F"), ConnectionProperties::default())
                .await
                .is_err()
        {
            let output = fs::read_to_string(self.folder.join("out")).unwrap_or_default();
            assert!(
                begun.elapsed() < Duration::from_secs(90),
                "RabbitMQ does not start: {output}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Kills the server, as a lost node would.
    pub fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("the keeper ends");
    }

    /// One request to the management API; `None` unless it succeeded.
    pub async fn http(&self, method: &str, path: &str, body: Option<&str>) -> Option<String> {
        let url = format!("http://127.0.0.1:{}/api/{path}", self.management);
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = reqwest::Client::new()
            .request(method, url)
            .basic_auth("guest", Some("guest"));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
        }
        let answer = request.send().await.ok()?;
        if answer.status().is_success() {
            answer.text().await.ok()
        } else {
            None
        }
    }

    /// A virtual host of its own; the name as it is in a URL.
    pub async fn vhost(&self, encoded: &str) {
        self.http("PUT", &format!("vhosts/{encoded}"), None)
            .await
            .expect("made");
        self.permit("guest", encoded, ".*").await;
    }

    /// Lets a user configure, write and read what matches.
    pub async fn permit(&self, user: &str, vhost: &str, pattern: &str) {
        self.permit_each(user, vhost, [pattern; 3]).await;
    }

    /// Lets a user configure, write and read what matches each.
    pub async fn permit_each(&self, user: &str, vhost: &str, [configure, write, read]: [&str; 3]) {
        let body = serde_json::json!({"configure": configure, "write": write, "read": read});
        let path = format!("permissions/{vhost}/{user}");
        self.http("PUT", &path, Some(&body.to_string()))
            .await
            .expect("permitted");
    }

    pub fn url(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", self.amqp)
    }

    pub fn config(&self, vhost: &str) -> BrokerConfig {
        BrokerConfig::parse(&self.url(vhost), &BrokerOptions::default()).expect("an address")
    }

    pub fn pem(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).expect("a PEM file")
    }

    /// A program that is not ours: an open connection and a channel.
    pub async fn client(&self, vhost: &str) -> (Connection, Channel) {
        let connection = Connection::connect(&self.url(vhost), ConnectionProperties::default())
            .await
            .expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        (connection, channel)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Declares a durable queue and puts messages into it.
pub async fn fill(channel: &Channel, queue: &str, messages: usize) {
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.into(), durable, FieldTable::default())
        .await
        .expect("declared");
    for _ in 0..messages {
        publish(channel, "", queue, b"{}", BasicProperties::default()).await;
    }
}

pub async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
    let options = BasicPublishOptions::default();
    channel
        .basic_publish(exchange.into(), key.into(), options, body, properties)
        .await
        .expect("published");
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    /// So that an interrupt at the terminal does not end the keeper before it has cleaned up.
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let held: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    std::array::from_fn(|i| held[i].local_addr().expect("bound").port())
}

/// An authority, a certificate for the server's address, and one for a client.
fn certificates(folder: &Path) {
    fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1").expect("written");
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
                  -keyout ca.key -out ca.pem && for who in server client; do \
                  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$who \
                  -keyout $who.key -out $who.csr && \
                  openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                  -extfile san -out $who.pem || exit 1; done";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder)
        .output()
        .expect("sh runs");
    assert!(
        made.status.success(),
        "these tests need OpenSSL: apt-get install openssl"
    );
}
