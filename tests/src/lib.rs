//! Real parts to test Poolwright against, as processes of this machine: a
//! Kubernetes control plane, a node whose pods are processes, Redis, RabbitMQ
//! and Celery workers.
//!
//! A fake is right about what its author knew. The rules that this operator
//! lives by (which pod a ReplicaSet removes, what a draining Celery worker
//! says, when a message comes back) are rules of others, so the tests ask the
//! others. One control plane serves a whole run; each test has its own
//! namespace and its own broker or virtual host.
//!
//! This crate is support for tests: a failed expectation may end the test.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, clippy::panic)]
#![allow(
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::must_use_candidate
)]

pub mod airflow;
pub mod api_front;
pub mod attempts;
pub mod audit;
pub mod bench;
pub mod brokers;
pub mod celery;
pub mod charges;
pub mod chart;
pub mod demo;
pub mod evidence;
pub mod history;
pub mod kubectl;
pub mod leaks;
pub mod look;
pub mod manifests;
pub mod moves;
pub mod namespace;
pub mod node;
pub mod operator;
pub mod plane;
pub mod process;
pub mod proxy;
pub mod rights;
pub mod scale;
pub mod scenario;
pub mod stage;
pub mod tls_front;
pub mod told;
pub mod victims;
pub mod wait;
pub mod wire;

/// What goes wrong while parts are started or asked: told to a person, never matched on.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub use airflow::Airflow;
pub use api_front::{Aim, ApiFront, Asked, Fault, Kind};
pub use audit::{AuditEntry, AuditTail, audit_entries};
pub use brokers::{Authority, RabbitMq, RabbitMqConfig, Redis, RedisConfig, Sentinel, Vhost};
pub use celery::{Batch, CELERY_IMAGE, Celery, Publisher, TaskEvent, read_task_events};
pub use charges::Charges;
pub use evidence::Footprint;
pub use history::{History, Step};
pub use kubectl::Kubectl;
pub use moves::{Act, Move, Moves, is_parked};
pub use namespace::{TestNamespace, apply_crds, apply_policies, apply_rights};
pub use node::{Image, Node, NodeConfig, NodeHandle, RESERVED, Record, read_records};
pub use operator::Operator;
pub use plane::{FAKE_IMAGE, Plane, PlaneConfig, User};
pub use proxy::Proxy;
pub use stage::Stage;
pub use tls_front::TlsFront;
pub use told::Told;
pub use wait::{poll, wait_for, wait_until};
pub use wire::Wire;
