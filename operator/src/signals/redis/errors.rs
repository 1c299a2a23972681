//! What went wrong with Redis, in words of ours.
//!
//! Decides the class of a failure. It may not repeat a server's text: that can hold keys, user names or the
//! arguments of a command. Only the error's code, from a closed list, reaches a message.

use std::error::Error;
use std::io;
use std::sync::Arc;

use poolwright_core::sample::FaultKind;
use redis::{ErrorKind, RedisError, ServerError, Value};

use crate::signals::{SignalError, tls};

/// Codes that concern the server as a whole, not the command that met them.
const WHOLE: [&str; 8] = [
    "NOAUTH",
    "LOADING",
    "MASTERDOWN",
    "BUSY",
    "MOVED",
    "CLUSTERDOWN",
    "DENIED",
    "WRONGPASS",
];

/// What is said of whoever does not speak as Redis does.
const ODD: &str = "the answer is not Redis's protocol; does another service (or TLS) listen at this address?";

/// The error behind a failed command or connection; `what` names the act ("read the queue \"q\"").
pub(super) fn of(error: &RedisError, what: &str) -> SignalError {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return server("WRONGPASS", what);
    }
    if error.is_timeout() {
        return unreachable(format!("Redis did not answer in time ({what})"));
    }
    if error.is_connection_refusal() {
        return unreachable("Redis refuses the connection: nothing listens at this address");
    }
    if let Some(code) = error.code() {
        return server(code, what);
    }
    match error.kind() {
        ErrorKind::Io => network(error),
        ErrorKind::Parse => SignalError::new(FaultKind::Implausible, ODD),
        ErrorKind::InvalidClientConfig => SignalError::new(
            FaultKind::InvalidAddress,
            "the address or its TLS settings cannot be used",
        ),
        _ => unreachable(format!("Redis answered with something unexpected ({what})")),
    }
}

/// What became of the connection: also of TLS, which with its newest version tells a wrong certificate of ours after it
/// has begun; and what the sieve does not let through.
fn network(error: &RedisError) -> SignalError {
    let inner = error.source();
    let shared = inner.and_then(|error| error.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let io = shared.and_then(|error| error.downcast_ref::<io::Error>());
    if let Some(tls) = io.and_then(|io| tls::behind(io)) {
        return unreachable(tls::words(tls, "Redis"));
    }
    if io.is_some_and(|io| io.kind() == io::ErrorKind::InvalidData) {
        return SignalError::new(FaultKind::Implausible, ODD);
    }
    unreachable(format!("the connection to Redis failed: {}", io_words(error)))
}

/// True if the server will not run this command for us: no permission, renamed or unknown. All else may pass.
pub(super) fn forbids(error: &ServerError) -> bool {
    matches!(error.code(), "NOPERM" | "ERR")
}

/// The error that the server answered with this code.
pub(super) fn server(code: &str, what: &str) -> SignalError {
    let (kind, message) = match code {
        "WRONGTYPE" => (
            FaultKind::Implausible,
            format!("a key has the wrong type; could not {what}"),
        ),
        "NOAUTH" => (
            FaultKind::Refused,
            "Redis asks for a password, and the address has none".to_owned(),
        ),
        "WRONGPASS" => (
            FaultKind::Refused,
            "Redis refuses the user name or password".to_owned(),
        ),
        "NOPERM" => (FaultKind::Refused, format!("the Redis user may not {what}")),
        "DENIED" => (
            FaultKind::Refused,
            "Redis is in protected mode and refuses other hosts".to_owned(),
        ),
        "LOADING" => (
            FaultKind::Unreachable,
            "Redis is loading its data into memory".to_owned(),
        ),
        "MASTERDOWN" => (
            FaultKind::Unreachable,
            "this is a Redis replica that has lost its master".to_owned(),
        ),
        "READONLY" => (
            FaultKind::Unreachable,
            "this is a read-only Redis replica; use the master's address".to_owned(),
        ),
        "BUSY" => (
            FaultKind::Unreachable,
            "Redis is busy with a long script".to_owned(),
        ),
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" => (
            FaultKind::InvalidAddress,
            "this is Redis Cluster, which Celery cannot use".to_owned(),
        ),
        _ => (
            FaultKind::Unreachable,
            format!("Redis answered with an error; could not {what}"),
        ),
    };
    SignalError::new(kind, message)
}

/// A failure that concerns the whole reading, if any of these answers shows one.
pub(super) fn whole(answers: &[Value]) -> Option<SignalError> {
    let code = answers.iter().find_map(|value| match value {
        Value::ServerError(error) if WHOLE.contains(&error.code()) => Some(error.code()),
        _ => None,
    })?;
    Some(server(code, "read"))
}

/// The error of one command's answer.
pub(super) fn of_answer(error: &ServerError, what: &str) -> SignalError {
    server(error.code(), what)
}

/// An answer of another shape than the command has.
pub(super) fn shape(what: &str) -> SignalError {
    SignalError::new(
        FaultKind::Implausible,
        format!("Redis's answer has the wrong shape; could not {what}"),
    )
}

pub(super) fn unreachable(message: impl Into<String>) -> SignalError {
    SignalError::new(FaultKind::Unreachable, message)
}

/// The operating system's or the TLS library's words; neither sees credentials.
fn io_words(error: &RedisError) -> String {
    if error.is_connection_dropped() {
        return "it was closed; if that lasts, another service (or TLS) may listen at this address"
            .to_owned();
    }
    poolwright_core::text::bounded(&error.to_string(), 120)
}

#[cfg(test)]
mod tests {
    use poolwright_core::sample::FaultKind::{Implausible, InvalidAddress, Refused, Unreachable};

    use super::{forbids, io, of, server};
    use redis::Value;

    #[test]
    fn who_does_not_speak_as_redis_does_is_told_from_who_is_away() {
        let told = |error: io::Error| of(&error.into(), "connect");
        assert_eq!(told(io::ErrorKind::InvalidData.into()).kind, Implausible);
        assert_eq!(told(io::ErrorKind::BrokenPipe.into()).kind, Unreachable);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let tls = told(io::Error::new(io::ErrorKind::InvalidData, alert));
        assert_eq!(tls.kind, Unreachable);
        assert!(tls.message.contains("set tls.clientCertSecretRef"), "{tls}");
    }

    /// A command that is refused for now is tried again, one that is forbidden is done without.
    #[test]
    fn only_what_is_forbidden_is_forbidden() {
        let answered = |line: &str| match redis::parse_redis_value(line.as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{other:?}"),
        };
        for line in [
            "-NOPERM this user has no permissions\r\n",
            "-ERR unknown command 'EVAL'\r\n",
        ] {
            assert!(forbids(&answered(line)), "{line}");
        }
        for line in [
            "-OOM command not allowed\r\n",
            "-MISCONF disk\r\n",
            "-READONLY x\r\n",
            "-BUSY x\r\n",
        ] {
            assert!(!forbids(&answered(line)), "{line}");
        }
    }

    #[test]
    fn codes_have_their_class_and_the_servers_words_are_not_repeated() {
        for (code, kind) in [
            ("WRONGTYPE", Implausible),
            ("NOAUTH", Refused),
            ("WRONGPASS", Refused),
            ("NOPERM", Refused),
            ("DENIED", Refused),
            ("LOADING", Unreachable),
            ("MASTERDOWN", Unreachable),
            ("READONLY", Unreachable),
            ("BUSY", Unreachable),
            ("MOVED", InvalidAddress),
            ("hunter2", Unreachable),
        ] {
            let error = server(code, "read");
            assert_eq!(error.kind, kind, "{code}");
            assert!(!error.message.contains(code) && error.message.len() < 200);
        }
    }
}
