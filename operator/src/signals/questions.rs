//! The inquiries to one broker's workers: which may be under way at the same time, and for how long.
//!
//! An inquiry lasts as long as its slowest worker, so workers that are slow or silent are asked apart from the others,
//! which get their answers in milliseconds and are waited for only so long. Inquiries go on beside the polls, because
//! a gap in these is a gap in what decisions go by. How many there are is bounded, and so are the bytes of answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use poolwright_core::constants::COMMAND_DEADLINE;
use poolwright_core::time::Moment;
use tokio::time::timeout;

use super::poller::late;
use super::{INQUIRIES_MAX, NodeAnswer, SignalError, SignalSource};

/// How long answers of workers that are asked together are waited for. No longer than the time between two requested
/// questions to a worker, so that one that hangs delays no other's next.
pub(super) const TOGETHER: Duration = Duration::from_millis(500);

/// Whom to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// By node name, at most 200.
    pub nodes: Vec<String>,
    /// When it was put.
    pub put: Moment,
    /// To workers that are slow, silent or not heard: they get the whole deadline, and nobody else waits for them.
    pub apart: bool,
    /// For the size of their execution pools, too.
    pub sizes: bool,
    /// What they had started by their last heartbeat before it, and how many of these ran.
    pub processed: BTreeMap<String, (u64, u64)>,
}

impl Question {
    /// How long answers are waited for.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        if self.apart { COMMAND_DEADLINE } else { TOGETHER }
    }
}

/// Which kinds of inquiry may begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// To workers that answer at once. Several: each lasts up to [`TOGETHER`], and none waits for another.
    pub together: bool,
    /// To the others.
    pub apart: bool,
}

type Asking = BoxFuture<'static, (Question, Result<Vec<NodeAnswer>, SignalError>)>;

/// The inquiries that are under way.
#[derive(Default)]
pub(super) struct Inquiries {
    asking: FuturesUnordered<Asking>,
    apart: bool,
}

impl Inquiries {
    pub(super) fn free(&self) -> Free {
        let together = self.asking.len() - usize::from(self.apart);
        Free {
            together: together < INQUIRIES_MAX - 1,
            apart: !self.apart,
        }
    }

    pub(super) fn begin(&mut self, source: &Arc<dyn SignalSource>, question: Question) {
        self.apart |= question.apart;
        let source = Arc::clone(source);
        let asking = async move {
            let answers = source.inquire(&question.nodes, question.sizes, question.deadline());
            let answers = timeout(COMMAND_DEADLINE * 2, answers).await;
            let answers = answers.unwrap_or_else(|_| Err(late("asking the workers")));
            (question, answers)
        };
        self.asking.push(asking.boxed());
    }

    /// The next one that ends; `None` if none is under way.
    pub(super) async fn ended(&mut self) -> Option<(Question, Result<Vec<NodeAnswer>, SignalError>)> {
        let ended = self.asking.next().await?;
        if ended.0.apart {
            self.apart = false;
        }
        Some(ended)
    }
}
