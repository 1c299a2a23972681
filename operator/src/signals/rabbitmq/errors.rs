//! Words for what RabbitMQ and the network refuse.
//!
//! Decides the class of a failure and says it in words of our own. The broker's reply texts are never passed on:
//! they name the user, and a reply's bytes belong in no status.

use std::io;

use lapin::ErrorKind;
use poolwright_core::sample::FaultKind;

use crate::signals::{MAX_COUNT, SignalError, tls};

/// AMQP: the queue or exchange does not exist.
pub(super) const NOT_FOUND: u16 = 404;
/// AMQP: no permission, or a wrong password.
pub(super) const ACCESS_REFUSED: u16 = 403;
/// AMQP: the queue is exclusive to another connection.
pub(super) const RESOURCE_LOCKED: u16 = 405;
/// AMQP: declared before with other properties.
pub(super) const PRECONDITION_FAILED: u16 = 406;
/// AMQP: the virtual host is missing or closed to this user.
const NOT_ALLOWED: u16 = 530;
/// AMQP: an operator closed the connection, or the broker shuts down.
const CONNECTION_FORCED: u16 = 320;

/// The AMQP reply code, if the broker itself said no.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => Some(refusal.get_id()),
        _ => None,
    }
}

/// A refusal that closed one channel and leaves the connection as it is.
pub(super) fn closes_channel_only(error: &lapin::Error) -> bool {
    matches!(
        code(error),
        Some(NOT_FOUND | ACCESS_REFUSED | RESOURCE_LOCKED | PRECONDITION_FAILED)
    )
}

pub(super) fn unreachable(message: impl Into<String>) -> SignalError {
    SignalError::new(FaultKind::Unreachable, message)
}

pub(super) fn refused(message: impl Into<String>) -> SignalError {
    SignalError::new(FaultKind::Refused, message)
}

/// The count, if it can be true.
pub(super) fn believed(count: u64) -> Result<u64, SignalError> {
    if count <= MAX_COUNT {
        return Ok(count);
    }
    let words =
        format!("RabbitMQ counts {count} messages in the queue, more than the {MAX_COUNT} that are believed");
    Err(SignalError::new(FaultKind::Implausible, words))
}

/// What is said of whoever does not speak as RabbitMQ does.
const ODD: &str = "the port does not speak AMQP 0-9-1; is it the broker's AMQP port?";

/// Why no connection came about.
pub(super) fn connecting(error: &lapin::Error) -> SignalError {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => login(refusal.get_id(), refusal.get_message().as_str()),
        ErrorKind::IOError(error) => network(error),
        ErrorKind::InvalidProtocolVersion(_) | ErrorKind::ParsingError(_) => unreachable(ODD),
        _ => unreachable("the connection to RabbitMQ could not be opened"),
    }
}

fn login(code: u16, text: &str) -> SignalError {
    match code {
        ACCESS_REFUSED => refused(
            "RabbitMQ refused the user name or password (the user guest may connect from the broker's own host only)",
        ),
        NOT_ALLOWED if text.contains("not found") => {
            refused("the virtual host does not exist on this broker")
        }
        NOT_ALLOWED => {
            refused("RabbitMQ refuses this user the virtual host; grant it with rabbitmqctl set_permissions")
        }
        CONNECTION_FORCED => unreachable("RabbitMQ is shutting down or closed the connection"),
        other => unreachable(format!("RabbitMQ closed the connection with code {other}")),
    }
}

fn network(error: &io::Error) -> SignalError {
    if let Some(tls) = tls::behind(error) {
        return unreachable(tls::words(tls, "the broker"));
    }
    let words = match error.kind() {
        io::ErrorKind::InvalidData => ODD,
        io::ErrorKind::TimedOut => "no answer from RabbitMQ in time",
        io::ErrorKind::ConnectionRefused => {
            "the connection was refused: nothing listens at this host and port"
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
            "the connection was closed before RabbitMQ answered; is it the right port, and does it expect TLS?"
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "there is no route to the host",
        _ => "the connection to RabbitMQ failed",
    };
    unreachable(words)
}

/// A connection that stood and is gone, or an operation that failed on it.
pub(super) fn lost(error: &lapin::Error) -> SignalError {
    match error.kind() {
        ErrorKind::ChannelsLimitReached => unreachable("RabbitMQ allows this user too few channels"),
        ErrorKind::MissingHeartbeatError => unreachable("RabbitMQ stopped answering"),
        _ => match code(error) {
            Some(CONNECTION_FORCED) => unreachable("RabbitMQ is shutting down or closed the connection"),
            Some(other) => unreachable(format!("RabbitMQ closed the connection with code {other}")),
            None => unreachable("the connection to RabbitMQ was lost"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_texts_and_user_names_stay_out() {
        let refusals = [
            login(
                ACCESS_REFUSED,
                "ACCESS_REFUSED - Login was refused for user 'maria'",
            ),
            login(
                NOT_ALLOWED,
                "NOT_ALLOWED - access to vhost 'v' refused for user 'maria'",
            ),
            login(NOT_ALLOWED, "NOT_ALLOWED - vhost v not found"),
        ];
        assert!(
            refusals
                .iter()
                .all(|e| e.kind == FaultKind::Refused && !e.message.contains("maria"))
        );
        assert!(refusals.iter().all(|e| e.message.len() <= 256));
        assert_ne!(refusals[1].message, refusals[2].message);
    }

    #[test]
    fn the_network_is_never_a_refusal() {
        for kind in [
            io::ErrorKind::TimedOut,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::Other,
        ] {
            assert_eq!(network(&io::Error::from(kind)).kind, FaultKind::Unreachable);
        }
    }
}
