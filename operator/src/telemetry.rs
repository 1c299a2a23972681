//! Logs: one subscriber, JSON or text, whose filter can be changed while the process runs.
//!
//! May not decide what is logged where; that is the `tracing` calls' business. Libraries that log every request are
//! held at `warn` unless a directive names them, because at `debug` they bury what Poolwright says, and some of them
//! print addresses. Those that speak to brokers stay there whoever asks: above that they print whole messages, task
//! arguments among them. lapin is off, because its errors do so too, and every failure it meets reaches us as a value
//! anyway. Span filters are refused: their cost has no bound, and a level for a target is all that is needed.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

/// Longest list of directives that is accepted, in bytes.
pub const DIRECTIVES_BYTES_MAX: usize = 256;

/// What stands before every list of directives; a directive that names one of these targets wins over it.
const QUIET: &str = "info,amq_protocol=warn,async_rs=warn,axum=warn,h2=warn,hyper=warn,hyper_util=warn,kube=warn,\
                     kube_client=error,lapin=off,redis=warn,reqwest=warn,rustls=warn,tcp_stream=warn,tower=warn";
/// What no directive may raise: the crates that speak to brokers, and the one that repeats whole objects which it cannot
/// read, each with its most. A directive means every target that begins as it does, so these are beginnings, too.
const HELD: [(&str, LevelFilter); 6] = [
    ("amq_protocol", LevelFilter::WARN),
    ("async_rs", LevelFilter::WARN),
    ("kube_client", LevelFilter::ERROR),
    ("lapin", LevelFilter::OFF),
    ("redis", LevelFilter::WARN),
    ("tcp_stream", LevelFilter::WARN),
];

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// One line of text, for people.
    Text,
}

/// Why a filter or a subscriber was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The directives are too long.
    #[error("has {0} bytes; allowed are at most {DIRECTIVES_BYTES_MAX}")]
    TooLong(usize),
    /// A directive is not of the accepted form.
    #[error(
        "directive {0} is not LEVEL, TARGET=LEVEL or a list of them with commas; levels are error, warn, info, debug, \
         trace and off"
    )]
    Malformed(usize),
    /// A directive raises what may show messages.
    #[error("directive {0} would log {1} above {2}: it prints whole messages, task arguments among them")]
    Revealing(usize, &'static str, LevelFilter),
    /// The subscriber of the process is set already, or gone.
    #[error("the log subscriber is set already or gone")]
    Subscriber,
}

/// Changes the filter of the running process. Clones change the same filter.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    directives: Arc<Mutex<String>>,
}

impl LogHandle {
    /// Filters by `directives` from now on, such as `debug` or `poolwright=debug,hyper=info`.
    ///
    /// # Errors
    ///
    /// The directives cannot be used; the filter stays as it was.
    pub fn set(&self, directives: &str) -> Result<(), LogError> {
        let directives = directives.trim();
        let filter = filter(directives)?;
        let mut current = self.directives.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(filter).map_err(|_| LogError::Subscriber)?;
        directives.clone_into(&mut current);
        Ok(())
    }

    /// The directives in force, as they were given.
    #[must_use]
    pub fn current(&self) -> String {
        self.directives
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Sets the subscriber of the process, which writes to standard error: standard output belongs to commands.
///
/// # Errors
///
/// The directives cannot be used, or a subscriber is set already.
pub fn init(format: LogFormat, directives: &str) -> Result<LogHandle, LogError> {
    let colours = format == LogFormat::Text && std::io::stderr().is_terminal();
    let (subscriber, handle) = subscriber(format, colours, directives, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Subscriber)?;
    Ok(handle)
}

/// A subscriber that writes to `writer`, and the handle of its filter.
///
/// # Errors
///
/// The directives cannot be used.
pub fn subscriber<W>(
    format: LogFormat,
    colours: bool,
    directives: &str,
    writer: W,
) -> Result<(impl tracing::Subscriber + Send + Sync + 'static, LogHandle), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let directives = directives.trim();
    let (filter, handle) = reload::Layer::new(filter(directives)?);
    let lines = match format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(writer)
            .boxed(),
        LogFormat::Text => fmt::layer()
            .compact()
            .with_ansi(colours)
            .with_writer(writer)
            .boxed(),
    };
    let handle = LogHandle {
        filter: handle,
        directives: Arc::new(Mutex::new(directives.to_owned())),
    };
    Ok((tracing_subscriber::registry().with(filter).with(lines), handle))
}

/// The same text, if it can be used as directives.
///
/// # Errors
///
/// It cannot.
pub fn directives(text: &str) -> Result<String, LogError> {
    filter(text.trim()).map(|_| text.to_owned())
}

fn filter(directives: &str) -> Result<EnvFilter, LogError> {
    if directives.len() > DIRECTIVES_BYTES_MAX {
        return Err(LogError::TooLong(directives.len()));
    }
    for (position, directive) in directives.split(',').enumerate() {
        if !well_formed(directive) {
            return Err(LogError::Malformed(position + 1));
        }
        if let Some((name, most)) = revealed(directive) {
            return Err(LogError::Revealing(position + 1, name, most));
        }
    }
    // Else what only a few targets are given for would silence all the rest.
    let bare = directives.split(',').any(|directive| !directive.contains('='));
    let default = if bare { "" } else { "info," };
    EnvFilter::try_new(format!("{QUIET},{default}{directives}")).map_err(|_| LogError::Malformed(1))
}

/// `LEVEL` or `TARGET=LEVEL`. The filter itself would take a misspelt level for a target and log all of it.
fn well_formed(directive: &str) -> bool {
    let level = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphabetic())
            && text.parse::<LevelFilter>().is_ok()
    };
    match directive.split_once('=') {
        None => level(directive),
        Some((target, of_target)) => {
            let target_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
            !target.is_empty() && target.chars().all(target_char) && level(of_target)
        }
    }
}

/// What a directive would raise above its most. A level without a target raises nothing: the longer target wins.
fn revealed(directive: &str) -> Option<(&'static str, LevelFilter)> {
    let (target, level) = directive.split_once('=')?;
    let level: LevelFilter = level.parse().ok()?;
    let mut held = HELD.into_iter();
    held.find(|(name, most)| target.starts_with(name) && level > *most)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut lines = self.0.lock().map_err(|_| std::io::Error::other("poisoned"))?;
            lines.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn with_logs(format: LogFormat, directives: &str, act: impl FnOnce(&LogHandle)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, handle) = subscriber(format, false, directives, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || act(&handle));
        lines.text()
    }

    #[test]
    fn json_lines_hold_the_fields_at_the_top() {
        let text = with_logs(LogFormat::Json, "info", |_| {
            tracing::info!(target: "poolwright", name = "mail", "scaled");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "scaled");
        assert_eq!(line["name"], "mail");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn text_lines_are_plain() {
        let text = with_logs(
            LogFormat::Text,
            "info",
            |_| tracing::info!(target: "poolwright", "scaled"),
        );
        assert!(text.contains("INFO poolwright: scaled"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn the_filter_changes_while_it_runs_and_a_bad_one_changes_nothing() {
        let text = with_logs(LogFormat::Text, "info", |handle| {
            tracing::debug!(target: "poolwright", "hidden");
            handle.set(" poolwright=debug\n").unwrap();
            assert_eq!(handle.current(), "poolwright=debug");
            tracing::debug!(target: "poolwright", "shown");
            assert_eq!(handle.set("verbose"), Err(LogError::Malformed(1)));
            assert_eq!(handle.current(), "poolwright=debug");
            tracing::debug!(target: "poolwright", "still shown");
            tracing::debug!(target: "other", "not named");
        });
        assert!(text.contains("shown") && text.contains("still shown"), "{text}");
        assert!(!text.contains("hidden") && !text.contains("not named"), "{text}");
    }

    #[test]
    fn libraries_are_quiet_until_they_are_named() {
        let text = with_logs(LogFormat::Text, "debug", |handle| {
            tracing::info!(target: "hyper::proto", "quiet");
            handle.set("debug,hyper=debug").unwrap();
            tracing::debug!(target: "hyper::proto", "named");
        });
        assert!(text.contains("named") && !text.contains("quiet"), "{text}");
    }

    #[test]
    fn the_texts_of_brokers_are_never_logged() {
        let text = with_logs(LogFormat::Text, "trace", |handle| {
            let speak = || {
                tracing::error!(target: "lapin::channel", "a message");
                tracing::trace!(target: "amq_protocol_tcp", "a message");
                tracing::info!(target: "redis::aio", "a message");
                tracing::info!(target: "tcp_stream", "a message");
            };
            speak();
            tracing::warn!(target: "redis", "reconnects");
            handle
                .set("trace,lapi=trace,r=trace,lapin=off,redis=error")
                .unwrap();
            speak();
        });
        assert!(text.contains("reconnects"), "{text}");
        assert!(!text.contains("a message"), "{text}");
    }

    #[test]
    fn what_shows_messages_cannot_be_raised() {
        for (directives, position, name) in [
            ("lapin=error", 1, "lapin"),
            ("info,lapin::channel=TRACE", 2, "lapin"),
            ("redis=trace", 1, "redis"),
            ("warn,redis::aio=info", 2, "redis"),
            ("amq_protocol_tcp=trace", 1, "amq_protocol"),
            ("async_rs=debug", 1, "async_rs"),
            ("tcp_stream=info", 1, "tcp_stream"),
        ] {
            let found = filter(directives).err();
            assert!(
                matches!(found, Some(LogError::Revealing(at, what, _)) if at == position && what == name),
                "{directives}: {found:?}"
            );
        }
        let words = filter("redis=trace").unwrap_err().to_string();
        assert!(
            words.starts_with("directive 1 would log redis above warn"),
            "{words}"
        );
        for directives in ["redis=warn", "lapin=off,tcp_stream=error", "rediscover=off"] {
            assert!(filter(directives).is_ok(), "{directives}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for directives in [
            "",
            "poolwright=",
            "=debug",
            "info,[span]=debug",
            "poolwright=loud",
            "info,,debug",
            "3",
        ] {
            assert!(filter(directives).is_err(), "{directives:?}");
        }
        assert_eq!(filter(&"a".repeat(257)).err(), Some(LogError::TooLong(257)));
        for directives in ["off", "INFO", "poolwright::signals=trace,warn"] {
            assert!(filter(directives).is_ok(), "{directives:?}");
        }
    }
}
