//! Between one operator and the API server: every request passes here, is counted, and some of a run go wrong.
//!
//! It decides which these are, by their number among those of their kind, and how they go wrong. All others are passed on
//! as they came, answers as they come, so that a watch is one. It speaks HTTP to the operator, for what is tried is not TLS,
//! and asks the API server as the operator, so it can do nothing that the operator may not.

use crate::{Result, process};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// What can change something, and what only asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// POST, PUT, PATCH and DELETE, but for Leases, events, and questions that are posted.
    Write,
    /// GET: of an object, of a list, and the begin of a watch.
    Read,
}

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not done, and answered with 500.
    Refused,
    /// Not done, and the connection ends without an answer.
    Closed,
    /// Done, and the connection ends without an answer.
    Unanswered,
    /// Not done, and answered with 409.
    Conflict,
    /// Not done, and answered with 429 and a second to wait.
    Busy,
    /// Done, and answered with 504.
    Overdue,
}

impl Fault {
    /// All that a write can meet.
    pub const OF_WRITES: [Self; 6] = [
        Self::Refused,
        Self::Closed,
        Self::Unanswered,
        Self::Conflict,
        Self::Busy,
        Self::Overdue,
    ];
    /// All that a read can meet: it changes nothing, so whether it was done makes no difference.
    pub const OF_READS: [Self; 3] = [Self::Refused, Self::Closed, Self::Busy];

    fn is_done(self) -> bool {
        matches!(self, Self::Unanswered | Self::Overdue)
    }

    /// The answer in the API server's words; none where the connection ends.
    fn answer(self) -> Option<(StatusCode, &'static str)> {
        match self {
            Self::Closed | Self::Unanswered => None,
            Self::Refused => Some((StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
            Self::Conflict => Some((StatusCode::CONFLICT, "Conflict")),
            Self::Busy => Some((StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")),
            Self::Overdue => Some((StatusCode::GATEWAY_TIMEOUT, "Timeout")),
        }
    }
}

/// A request of a run that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Of which kind it is.
    pub kind: Kind,
    /// Its number among those, from zero.
    pub index: usize,
    /// What becomes of it.
    pub fault: Fault,
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?} {}", self.fault, self.kind, self.index)
    }
}

/// A request that the operator has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of which kind it is.
    pub kind: Kind,
    /// Its verb.
    pub method: Method,
    /// Its path, and for a watch its query.
    pub path: String,
    /// What became of it, where it went wrong.
    pub fault: Option<Fault>,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// The front; it ends with this value.
#[derive(Debug)]
pub struct ApiFront {
    address: SocketAddr,
    kubeconfig: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for ApiFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ApiFront {
    /// Starts one before the server that a kubeconfig names, whose user it is.
    pub async fn start(kubeconfig: &Path, aims: &[Aim]) -> Result<Self> {
        Self::start_slow(kubeconfig, aims, Duration::ZERO).await
    }

    /// The same, where each write takes so much longer.
    pub async fn start_slow(kubeconfig: &Path, aims: &[Aim], write: Duration) -> Result<Self> {
        process::install_crypto();
        let file = Kubeconfig::read_from(kubeconfig)?;
        let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        // What is refused is the operator's to ask again.
        config.default_retry = false;
        let server = Client::try_from(config)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let desk = Desk {
            server,
            aims: aims.into(),
            write,
            asked: Arc::clone(&asked),
        };
        let task = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let desk = desk.clone();
                connections.spawn(async move {
                    let serve = service_fn(|request| desk.serve(request));
                    // It ends with an error where a connection is to end without an answer.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(client), serve)
                        .await;
                });
            }
        });
        Ok(Self {
            address,
            kubeconfig: kubeconfig.to_owned(),
            asked,
            task,
        })
    }

    /// Writes a kubeconfig of the same user that comes through here.
    pub fn write_kubeconfig(&self, file: &Path) -> Result<()> {
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&self.kubeconfig)?)?;
        config["clusters"][0]["cluster"] = json!({"server": format!("http://{}", self.address)});
        Ok(std::fs::write(file, config.to_string())?)
    }

    /// Everything that was asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// What a connection needs to know.
#[derive(Clone)]
struct Desk {
    server: Client,
    aims: Arc<[Aim]>,
    /// How much longer a write takes.
    write: Duration,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Desk {
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let fault = self.note(&request);
        if kind_of(request.method(), request.uri().path()) == Some(Kind::Write) {
            tokio::time::sleep(self.write).await;
        }
        if fault.is_none_or(Fault::is_done) {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let request = Request::from_parts(head, Body::from(body.to_vec()));
            let answer = self.server.send(request).await?;
            if fault.is_none() {
                return Ok(answer);
            }
            // Done is what is stored, and so what is answered to the end.
            answer.into_body().collect().await?;
        }
        let told = fault.and_then(Fault::answer);
        let (code, reason) = told.ok_or("the connection is to end here")?;
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "metadata": {},
            "code": code.as_u16(), "reason": reason, "message": "a fault that a test has made",
        });
        let mut answer = Response::builder()
            .status(code)
            .header("content-type", "application/json");
        if code == StatusCode::TOO_MANY_REQUESTS {
            answer = answer.header("retry-after", "1");
        }
        Ok(answer.body(Body::from(status.to_string().into_bytes()))?)
    }

    /// Counts a request, and says what is to become of it.
    fn note(&self, request: &Request<Incoming>) -> Option<Fault> {
        let (method, uri) = (request.method(), request.uri());
        let kind = kind_of(method, uri.path())?;
        let mut asked = self.asked.lock().unwrap();
        let index = asked.iter().filter(|one| one.kind == kind).count();
        let hit = self
            .aims
            .iter()
            .find(|aim| aim.kind == kind && aim.index == index);
        let fault = hit.map(|aim| aim.fault);
        let watch = uri.query().is_some_and(|query| query.contains("watch=true"));
        asked.push(Asked {
            kind,
            method: method.clone(),
            path: format!("{}{}", uri.path(), if watch { "?watch" } else { "" }),
            fault,
        });
        fault
    }
}

/// Nothing for what is not of the run: whose number is a matter of time, as a Lease's, or that decides nothing.
fn kind_of(method: &Method, path: &str) -> Option<Kind> {
    let is_part = |name: &str| path.split('/').any(|part| part == name);
    let others = [
        "leases",
        "events",
        "selfsubjectaccessreviews",
        "selfsubjectrulesreviews",
    ];
    if others.into_iter().any(is_part) {
        return None;
    }
    match *method {
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE => Some(Kind::Write),
        Method::GET => Some(Kind::Read),
        _ => None,
    }
}
