//! One pod: the order of its containers, its status, its end.
//!
//! Init containers run one after the other; native sidecars among them stay.
//! Then the main containers run. Deletion stops the main ones, then the
//! sidecars from the last to the first, and at last the object is deleted
//! without grace, which frees its place.

use super::container::{Change, Role, State, Stop, Supervisor};
use super::{Image, Shared};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

/// A sidecar gets at least this long, as the kubelet grants it.
const SIDECAR_GRACE: Duration = Duration::from_secs(2);
/// How often a status is sent again that the API server did not take.
const ATTEMPTS: u32 = 20;

struct Slot {
    container: Container,
    role: Role,
    stop: watch::Sender<Stop>,
    started: bool,
    done: bool,
    state: State,
    last: Option<State>,
    restarts: u32,
}

struct PodTask {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    slots: Vec<Slot>,
    changes: mpsc::UnboundedSender<Change>,
    started: Timestamp,
    deadline: Option<Instant>,
    ready: Option<(bool, Timestamp)>,
}

/// Runs a pod until its object is gone.
pub(super) async fn run(shared: Arc<Shared>, pod: Arc<Pod>, mut updates: watch::Receiver<Arc<Pod>>) {
    let (sender, mut changes) = mpsc::unbounded_channel();
    let mut task = PodTask {
        slots: slots(&pod),
        shared,
        pod,
        changes: sender,
        started: Timestamp::now(),
        deadline: None,
        ready: None,
    };
    let phase = task
        .pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if task.pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")) {
        return task.end(updates).await;
    }
    if task.is_fake() {
        let shared = task.shared.clone();
        let permit = shared.fake_requests.acquire().await;
        task.publish_fake().await;
        drop(permit);
        return task.end(updates).await;
    }
    loop {
        task.advance();
        if task.deadline.is_some() && task.is_finished() {
            task.publish().await;
            return task.delete().await;
        }
        tokio::select! {
            Some(change) = changes.recv() => {
                task.apply(change);
                while let Ok(change) = changes.try_recv() {
                    task.apply(change);
                }
                task.advance();
                task.publish().await;
            }
            update = updates.changed() => {
                if update.is_err() {
                    return task.abandon(changes).await;
                }
                task.pod = updates.borrow_and_update().clone();
                task.note_deletion();
            }
        }
    }
}

fn slots(pod: &Pod) -> Vec<Slot> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (if sidecar { Role::Sidecar } else { Role::Init }, container)
    });
    let main = spec.containers.iter().map(|container| (Role::Main, container));
    let creating = State::Waiting {
        reason: "ContainerCreating",
        message: String::new(),
    };
    init.chain(main)
        .map(|(role, container)| Slot {
            container: container.clone(),
            role,
            stop: watch::Sender::new(Stop::No),
            started: false,
            done: false,
            state: creating.clone(),
            last: None,
            restarts: 0,
        })
        .collect()
}

impl Slot {
    fn runs(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn succeeded(&self) -> bool {
        self.done && matches!(self.state, State::Ended { code: 0, .. })
    }

    fn status(&self) -> Value {
        let image = self.container.image.as_deref().unwrap_or_default();
        let ready = if self.role == Role::Init {
            self.succeeded()
        } else {
            self.runs()
        };
        json!({
            "name": self.container.name, "image": image, "imageID": image, "ready": ready,
            "started": self.runs(), "restartCount": self.restarts, "state": state(&self.state),
            "lastState": self.last.as_ref().map_or_else(|| json!({}), state),
        })
    }
}

fn state(state: &State) -> Value {
    match state {
        State::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        State::Running { started } => json!({"running": {"startedAt": started}}),
        State::Ended {
            code,
            reason,
            message,
            started,
            ended,
        } => json!({"terminated": {
            "exitCode": code, "reason": reason, "message": message, "startedAt": started, "finishedAt": ended}}),
    }
}

impl PodTask {
    fn is_fake(&self) -> bool {
        self.pod
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .all(|container| self.shared.config.image(container.image.as_ref()) == Some(&Image::Fake))
    }

    fn apply(&mut self, change: Change) {
        let slot = &mut self.slots[change.index];
        slot.done |= change.done;
        let Some(new) = change.state else { return };
        if matches!(new, State::Running { .. }) && slot.last.is_some() {
            slot.restarts += 1;
        }
        let old = std::mem::replace(&mut slot.state, new);
        if matches!(old, State::Ended { .. }) {
            slot.last = Some(old);
        }
    }

    fn note_deletion(&mut self) {
        if self.pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let grace = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
        let deadline = Instant::now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
    }

    /// Every container that was started is done, and no other will start.
    fn is_finished(&self) -> bool {
        self.slots.iter().all(|slot| slot.done || !slot.started)
    }

    fn all(&self, role: Role, test: impl Fn(&Slot) -> bool) -> bool {
        self.slots.iter().filter(|slot| slot.role == role).all(test)
    }

    /// Starts or stops what is due.
    fn advance(&mut self) {
        let failed_init = self
            .slots
            .iter()
            .any(|slot| slot.role == Role::Init && slot.done && !slot.succeeded());
        if self.deadline.is_none() && !failed_init && !self.all(Role::Main, |slot| slot.done) {
            return self.start_next();
        }
        if let Some(deadline) = self.deadline {
            for slot in self.slots.iter().filter(|slot| slot.role != Role::Sidecar) {
                stop_at(slot, deadline);
            }
        }
        let blocking = |slot: &Slot| slot.role != Role::Sidecar && slot.started && !slot.done;
        if self.slots.iter().any(blocking) {
            return;
        }
        let sidecar = self
            .slots
            .iter()
            .rev()
            .find(|slot| slot.role == Role::Sidecar && slot.started && !slot.done);
        if let Some(sidecar) = sidecar {
            let deadline = self
                .deadline
                .unwrap_or_else(|| Instant::now() + Duration::from_secs(30));
            if *sidecar.stop.borrow() == Stop::No || self.deadline.is_some() {
                stop_at(sidecar, deadline.max(Instant::now() + SIDECAR_GRACE));
            }
        }
    }

    fn start_next(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if !slot.started {
                self.start(index);
            }
            let slot = &self.slots[index];
            let passed = match slot.role {
                Role::Init => slot.succeeded(),
                Role::Sidecar => slot.runs() || slot.last.is_some(),
                Role::Main => true,
            };
            if !passed {
                return;
            }
        }
    }

    fn start(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.started = true;
        let supervisor = Supervisor {
            shared: self.shared.clone(),
            pod: self.pod.clone(),
            container: slot.container.clone(),
            role: slot.role,
            index,
            changes: self.changes.clone(),
            stop: slot.stop.subscribe(),
        };
        tokio::spawn(supervisor.run());
    }

    fn phase(&self) -> &'static str {
        let main = |test: &dyn Fn(&Slot) -> bool| {
            self.slots
                .iter()
                .any(|slot| slot.role == Role::Main && test(slot))
        };
        let failed_init = self
            .slots
            .iter()
            .any(|slot| slot.role == Role::Init && slot.done && !slot.succeeded());
        if self.is_finished() && (failed_init || self.all(Role::Main, |slot| slot.done)) {
            let failed = failed_init || main(&|slot| !slot.succeeded());
            return if failed { "Failed" } else { "Succeeded" };
        }
        let begun =
            main(&|slot| slot.runs() || slot.last.is_some() || matches!(slot.state, State::Ended { .. }));
        if begun { "Running" } else { "Pending" }
    }

    fn status(&mut self) -> Value {
        let now = Timestamp::now();
        let ready = self.slots.iter().all(|slot| match slot.role {
            Role::Init => slot.succeeded(),
            Role::Sidecar | Role::Main => slot.runs(),
        });
        let initialized =
            self.all(Role::Init, Slot::succeeded) && self.all(Role::Sidecar, |slot| slot.started);
        let since = match self.ready {
            Some((known, since)) if known == ready => since,
            _ => now,
        };
        self.ready = Some((ready, since));
        let condition = |kind: &str, holds: bool, since: Timestamp| {
            let (status, reason) = if holds {
                ("True", "")
            } else {
                ("False", "ContainersNotReady")
            };
            json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": since})
        };
        let statuses = |main: bool| -> Vec<Value> {
            let slots = self.slots.iter().filter(|slot| (slot.role == Role::Main) == main);
            slots.map(Slot::status).collect()
        };
        json!({
            "phase": self.phase(), "startTime": self.started, "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
            "initContainerStatuses": statuses(false), "containerStatuses": statuses(true),
            "conditions": [condition("Initialized", initialized, self.started),
                condition("ContainersReady", ready, since), condition("Ready", ready, since)],
        })
    }

    async fn publish(&mut self) {
        let status = self.status();
        self.patch(status).await;
    }

    /// Reports a pod without a process as one that runs.
    async fn publish_fake(&mut self) {
        for slot in &mut self.slots {
            slot.started = true;
            slot.done = slot.role == Role::Init;
            slot.state = match slot.role {
                Role::Init => State::Ended {
                    code: 0,
                    reason: "Completed",
                    message: String::new(),
                    started: self.started,
                    ended: self.started,
                },
                Role::Sidecar | Role::Main => State::Running {
                    started: self.started,
                },
            };
        }
        self.publish().await;
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(
            self.shared.client.clone(),
            self.pod.metadata.namespace.as_deref().unwrap_or_default(),
        )
    }

    fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    async fn patch(&self, status: Value) {
        // The uid makes it an error to write to a successor of the same name.
        let patch = Patch::Strategic(json!({"metadata": {"uid": self.pod.metadata.uid}, "status": status}));
        for _ in 0..ATTEMPTS {
            match self
                .api()
                .patch_status(self.name(), &PatchParams::default(), &patch)
                .await
            {
                Ok(_) => return,
                Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return,
                Err(error) => {
                    eprintln!("node: cannot report pod {}: {error}", self.name());
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn delete(&self) {
        let preconditions = Preconditions {
            uid: self.pod.metadata.uid.clone(),
            resource_version: None,
        };
        let parameters = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        }
        .grace_period(0);
        for _ in 0..ATTEMPTS {
            match self.api().delete(self.name(), &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return,
                Err(error) => {
                    eprintln!("node: cannot delete pod {}: {error}", self.name());
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Waits for the deletion of a pod that has no process, and carries it out.
    async fn end(self, mut updates: watch::Receiver<Arc<Pod>>) {
        while updates.borrow_and_update().metadata.deletion_timestamp.is_none() {
            if updates.changed().await.is_err() {
                return;
            }
        }
        let permit = self.shared.fake_requests.acquire().await;
        self.delete().await;
        drop(permit);
    }

    /// The object is gone: nothing is left to report.
    async fn abandon(mut self, mut changes: mpsc::UnboundedReceiver<Change>) {
        for slot in &self.slots {
            slot.stop.send_replace(Stop::Kill);
        }
        while !self.is_finished() {
            match changes.recv().await {
                Some(change) => self.apply(change),
                None => return,
            }
        }
    }
}

/// Asks a container to end, unless it was asked to end no later.
fn stop_at(slot: &Slot, deadline: Instant) {
    slot.stop.send_if_modified(|stop| {
        let sooner = match stop {
            Stop::No => true,
            Stop::Term(known) => deadline < *known,
            Stop::Kill => false,
        };
        if sooner {
            *stop = Stop::Term(deadline);
        }
        sooner
    });
}
