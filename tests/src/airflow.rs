//! Real Airflow: its database on a PostgreSQL of its own, its broker on a Redis of its own, its API server, scheduler and
//! whatever else its version needs. Its workers are what a test is about, so they are no part of it.

use crate::process::{Daemon, Frozen, find_program, free_port, install_crypto, mortal, temp_dir};
use crate::{Authority, Redis, RedisConfig, Result, plane, wait_until};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The image name under which a node knows the environment of one major version.
pub fn image(major: u32) -> String {
    format!("poolwright.test/airflow:{major}")
}

/// The one who may do everything, and the password.
pub const ADMIN: (&str, &str) = ("admin", "canary-secret");
/// The one who may change pools and no users, with the same password: what a Secret of a Pool should name.
pub const OP: &str = "op";
/// The one who may look and change nothing, with the same password.
pub const VIEWER: &str = "viewer";
/// Databases, servers and the first answer, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(180);

/// A running Airflow; all of it ends when this value is dropped.
#[derive(Debug)]
pub struct Airflow {
    /// The environment, which is also the image of its workers.
    pub folder: PathBuf,
    /// The broker.
    pub redis: Redis,
    major: u32,
    /// Root of its API.
    pub api: String,
    database: u16,
    /// Who vouches for the database.
    pub authority: Authority,
    bearer: Option<String>,
    variables: BTreeMap<String, String>,
    // Servers end before the folder that they write into goes.
    servers: Vec<Daemon>,
    dir: TempDir,
}

impl Airflow {
    /// Starts version 2 or 3 and waits until it can run a DAG.
    pub async fn start(major: u32) -> Result<Self> {
        Self::with(major, &[]).await
    }

    /// The same with more settings, such as `CORE__PARALLELISM`.
    pub async fn with(major: u32, settings: &[(&str, &str)]) -> Result<Self> {
        install_crypto();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("airflow/build.sh");
        let folder = plane::build_with(&script, &[&major.to_string()])?;
        let dir = temp_dir("airflow")?;
        // The database's user is another.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        let redis = Redis::start(RedisConfig::default()).await?;
        let authority = Authority::create(dir.path())?;
        let (database, port) = database(dir.path(), &authority).await?;
        let api = free_port()?;
        let mut airflow = Self {
            variables: variables(major, &folder, &redis.url(0), port, api),
            api: format!("http://127.0.0.1:{api}"),
            bearer: None,
            database: port,
            authority,
            servers: vec![database],
            major,
            folder,
            redis,
            dir,
        };
        let settings = settings
            .iter()
            .map(|(name, value)| (format!("AIRFLOW__{name}"), (*value).to_owned()));
        airflow.variables.extend(settings);
        airflow.serve(api).await?;
        Ok(airflow)
    }

    /// What a worker must know of it, as `spec.worker.env`; each pod has a home of its own.
    pub fn worker_env(&self) -> Vec<Value> {
        let variables = self.variables.iter();
        let mut all = vec![self.worker_home()];
        all.extend(variables.map(|(name, value)| json!({"name": name, "value": value})));
        all
    }

    /// The same but for the home, for a Secret.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The home of a pod, for `spec.worker.env`.
    pub fn worker_home(&self) -> Value {
        json!({"name": "AIRFLOW_HOME", "value": self.dir.path().join("$(POD_NAME)")})
    }

    /// Its version: 2 or 3.
    pub const fn major(&self) -> u32 {
        self.major
    }

    /// A token of the one who may do everything; version 2 has none.
    pub fn token(&self) -> Option<&str> {
        self.bearer.as_deref()
    }

    /// Stops its API until what is returned is dropped.
    pub fn freeze(&self) -> Frozen {
        Frozen::new(self.servers[1].pid())
    }

    /// Stops its scheduler, the last of its servers, until what is returned is dropped.
    pub fn freeze_scheduler(&self) -> Option<Frozen> {
        self.servers.last().map(|scheduler| Frozen::new(scheduler.pid()))
    }

    /// The database's address for somebody who may read two tables and nothing else. Without an option its connections have
    /// TLS, by the authority of [`Airflow::authority`].
    pub fn reader_url(&self) -> Result<String> {
        let statements = "DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
                          GRANT SELECT ON slot_pool, task_instance TO reader";
        self.sql(statements)?;
        Ok(format!("postgresql://reader@127.0.0.1:{}/airflow", self.database))
    }

    /// Runs statements in its database.
    pub fn sql(&self, statements: &str) -> Result<()> {
        let place = format!(
            "-h 127.0.0.1 -p {} -U airflow -d airflow -v ON_ERROR_STOP=1 -q",
            self.database
        );
        let mut psql = Command::new(postgres()?.join("psql"));
        done(psql.args(place.split(' ')).args(["-c", statements]))
    }

    /// Asks its API, below `/api/v1` or `/api/v2`; anything but success is an error with its words.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let version = self.major - 1;
        let mut request =
            reqwest::Client::new().request(method, format!("{}/api/v{version}/{path}", self.api));
        request = match &self.bearer {
            Some(token) => request.bearer_auth(token),
            None => request.basic_auth(ADMIN.0, Some(ADMIN.1)),
        };
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            return Err(format!("{path}: {status}: {text}").into());
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Runs a DAG, which may be paused, and returns the path of the run.
    pub async fn trigger(&self, dag: &str, conf: &Value) -> Result<String> {
        let path = format!("dags/{dag}");
        let on = json!({"is_paused": false});
        let known = || async { Ok(self.ask(Method::PATCH, &path, Some(&on)).await.is_ok()) };
        wait_until("the DAG to be known", LIMIT, known).await?;
        let mut body = json!({ "conf": conf });
        if self.major == 3 {
            body["logical_date"] = Value::Null;
        }
        let runs = format!("{path}/dagRuns");
        let run = self.ask(Method::POST, &runs, Some(&body)).await?;
        let id = run["dag_run_id"].as_str().ok_or("a run without an id")?;
        Ok(format!("{runs}/{}", id.replace('+', "%2B")))
    }

    /// All task instances of a run.
    pub async fn tasks(&self, run: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        loop {
            let page = format!("{run}/taskInstances?limit=100&offset={}", all.len());
            let mut answer = self.ask(Method::GET, &page, None).await?;
            match answer["task_instances"].take() {
                Value::Array(rows) if !rows.is_empty() => all.extend(rows),
                _ => return Ok(all),
            }
        }
    }

    async fn serve(&mut self, port: u16) -> Result<()> {
        self.run(&["db", "migrate"])?;
        let port = port.to_string();
        let api = ["--workers", "1", "--port", &port];
        if self.major == 3 {
            let passwords = self.dir.path().join("passwords.json");
            std::fs::write(
                passwords,
                json!({ADMIN.0: ADMIN.1, OP: ADMIN.1, VIEWER: ADMIN.1}).to_string(),
            )?;
            self.daemon("api-server", &[&["--host", "127.0.0.1"][..], &api].concat())?;
            self.daemon("dag-processor", &[])?;
        } else {
            // Roles are there once permissions were written.
            self.run(&["sync-perm"])?;
            for (role, name) in [("Admin", ADMIN.0), ("Op", OP), ("Viewer", VIEWER)] {
                let email = format!("{name}@example.com");
                let user = ["users", "create", "-f", "a", "-l", "b", "-p", ADMIN.1];
                self.run(&[&user[..], &["-r", role, "-e", &email, "-u", name]].concat())?;
            }
            self.daemon("webserver", &[&["--hostname", "127.0.0.1"][..], &api].concat())?;
        }
        self.daemon("scheduler", &["--skip-serve-logs"])?;
        let health = if self.major == 3 {
            "execution/health"
        } else {
            "health"
        };
        let (url, token) = (
            format!("{}/{health}", self.api),
            format!("{}/auth/token", self.api),
        );
        // In version 3 its first answer to a worker takes seconds.
        let serves = || async { Ok(reqwest::get(&url).await?.status().is_success()) };
        self.servers[1]
            .wait_serving("Airflow's API", LIMIT, serves)
            .await?;
        if self.major == 3 {
            let login = json!({"username": ADMIN.0, "password": ADMIN.1}).to_string();
            let login = reqwest::Client::new()
                .post(token)
                .header("content-type", "application/json")
                .body(login);
            let answer: Value = serde_json::from_str(&login.send().await?.error_for_status()?.text().await?)?;
            self.bearer = answer["access_token"].as_str().map(str::to_owned);
        }
        Ok(())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = mortal(self.folder.join("bin/airflow"));
        command.args(args).current_dir(self.dir.path());
        let path = format!("{}:/usr/bin:/bin", self.folder.join("bin").display());
        command
            .env("PATH", path)
            .env("LANG", "C.UTF-8")
            .env("HOME", self.dir.path());
        command.envs(&self.variables).env("AIRFLOW_HOME", self.dir.path());
        let passwords = self.dir.path().join("passwords.json");
        command.env("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", passwords);
        command
    }

    /// Runs a command of Airflow's.
    pub fn run(&self, args: &[&str]) -> Result<()> {
        let output = self.command(args).output()?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("airflow {}: {words}", args.join(" ")).into())
    }

    fn daemon(&mut self, name: &str, args: &[&str]) -> Result<()> {
        let log = self.dir.path().join(format!("{name}.log"));
        let command = self.command(&[&[name], args].concat());
        self.servers.push(Daemon::start(name, command, &log)?);
        Ok(())
    }
}

/// What all of its processes are told.
fn variables(major: u32, folder: &Path, broker: &str, database: u16, api: u16) -> BTreeMap<String, String> {
    let secret = || BASE64_URL_SAFE.encode(std::array::from_fn::<u8, 32, _>(|_| fastrand::u8(..)));
    let place = format!("//airflow@127.0.0.1:{database}/airflow?sslmode=disable");
    let mut all = vec![
        ("CORE__EXECUTOR", "CeleryExecutor".to_owned()),
        ("CORE__DAGS_FOLDER", folder.join("app/dags").display().to_string()),
        ("CORE__LOAD_EXAMPLES", "False".to_owned()),
        ("CORE__FERNET_KEY", secret()),
        (
            "DATABASE__SQL_ALCHEMY_CONN",
            format!("postgresql+psycopg2:{place}"),
        ),
        ("CELERY__RESULT_BACKEND", format!("db+postgresql:{place}")),
        ("CELERY__BROKER_URL", broker.to_owned()),
    ];
    if major == 3 {
        all.extend([
            ("API_AUTH__JWT_SECRET", secret()),
            ("API__SECRET_KEY", secret()),
            (
                "CORE__EXECUTION_API_SERVER_URL",
                format!("http://127.0.0.1:{api}/execution/"),
            ),
            (
                "CORE__SIMPLE_AUTH_MANAGER_USERS",
                format!("{}:admin,{OP}:op,{VIEWER}:viewer", ADMIN.0),
            ),
        ]);
    } else {
        let basic = "airflow.api.auth.backend.basic_auth".to_owned();
        all.extend([("WEBSERVER__SECRET_KEY", secret()), ("API__AUTH_BACKENDS", basic)]);
    }
    let names = all
        .into_iter()
        .map(|(name, value)| (format!("AIRFLOW__{name}"), value));
    names.collect()
}

/// A PostgreSQL with an empty database, and its port. It refuses to run as root, and runs as the user of its package then.
async fn database(dir: &Path, authority: &Authority) -> Result<(Daemon, u16)> {
    let bin = postgres()?;
    let (data, port) = (dir.join("database"), free_port()?);
    std::fs::create_dir(&data)?;
    let is_root = rustix::process::getuid().is_root();
    let owned = |program: &str| {
        if !is_root {
            return mortal(bin.join(program));
        }
        let mut command = Command::new(find_program("setpriv", None).unwrap_or_else(|| "setpriv".into()));
        command.args("--reuid postgres --regid postgres --clear-groups --pdeathsig KILL --".split(' '));
        command.arg(bin.join(program)).current_dir("/");
        command
    };
    if is_root {
        done(Command::new("chown").arg("postgres").arg(&data))?;
    }
    let data = data.as_path();
    done(
        owned("initdb")
            .arg("-D")
            .arg(data)
            .args("-U airflow -A trust -E UTF8 --locale=C.UTF-8 --no-sync".split(' ')),
    )?;
    // It takes no key that others may read.
    let key = data.join("tls.key");
    std::fs::copy(&authority.key, &key)?;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    if is_root {
        done(Command::new("chown").arg("postgres").arg(&key))?;
    }
    let tls = [
        "ssl=on".to_owned(),
        format!("ssl_key_file={}", key.display()),
        format!("ssl_cert_file={}", authority.certificate.display()),
    ];
    let mut server = owned("postgres");
    let address = format!("-h 127.0.0.1 -p {port} -F");
    server
        .arg("-D")
        .arg(data)
        .args(address.split(' '))
        .args(["-k", ""])
        .args(tls.iter().flat_map(|setting| ["-c", setting]));
    let mut server = Daemon::start("postgres", server, &dir.join("postgres.log"))?;
    let create = || async {
        let address = format!("-h 127.0.0.1 -p {port} -U airflow airflow");
        Ok(Command::new(bin.join("createdb"))
            .args(address.split(' '))
            .output()?
            .status
            .success())
    };
    server.wait_serving("PostgreSQL", LIMIT, create).await?;
    Ok((server, port))
}

/// The programs of PostgreSQL.
fn postgres() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")?.flatten();
    let bin = versions.map(|version| version.path().join("bin")).max();
    Ok(bin.ok_or("there is no PostgreSQL in /usr/lib/postgresql: install the package postgresql")?)
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{}: {words}", command.get_program().display()).into())
}
