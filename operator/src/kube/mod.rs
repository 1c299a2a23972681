//! The only code that talks to Kubernetes: watches in, writes out. Decides nothing.

pub mod events;
pub mod execute;
pub mod index;
pub mod secrets;
pub mod status;

use std::time::Duration;

use kube::{Client, Config};

/// No byte for so long ends a watch: the API server ends each by itself within five minutes.
const WATCH_SILENCE: Duration = Duration::from_secs(330);
/// No byte for so long ends any other request: a connection that is open and dead must not hold a pool's turn.
const ANSWER_SILENCE: Duration = Duration::from_secs(10);

/// Clients of one API server.
#[derive(Clone)]
pub struct Clients {
    /// For watches, which may be silent for long.
    pub watch: Client,
    /// For everything else.
    pub ask: Client,
}

impl Clients {
    /// By the kubeconfig, or the pod's own account.
    ///
    /// # Errors
    /// Neither can be used.
    pub async fn infer() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let of = |config: &Config, silence: Duration| {
            let mut config = config.clone();
            config.read_timeout = Some(silence);
            Client::try_from(config)
        };
        let config = Config::infer().await?;
        Ok(Self {
            watch: of(&config, WATCH_SILENCE)?,
            ask: of(&config, ANSWER_SILENCE)?,
        })
    }
}
