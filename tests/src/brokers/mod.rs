//! Real brokers as processes on loopback ports, each with a temporary folder.
//!
//! Redis starts in milliseconds, so that each test has its own. RabbitMQ takes
//! ten seconds and much memory: one serves a process, and each test has its
//! own virtual host and user in it.

mod authority;
mod rabbitmq;
mod redis;

pub use authority::Authority;
pub use rabbitmq::{RabbitMq, RabbitMqConfig, Vhost};
pub use redis::{Redis, RedisConfig, Sentinel, connect};
