//! Whether this sidecar wants traffic, and if not, why.
//!
//! [`Readiness`] is the end that is written to: the wiring says that it started and that it drains, the probe of the
//! backend says whether the backend answers. [`ReadinessReader`] is the end that the admin endpoints hold, and it
//! cannot write.

use std::fmt::Write as _;

use tokio::sync::watch;

/// What the last probe of the backend found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// No probe has ended yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not. The reason is one short line worded by us, never something that a backend or a client sent.
    Down(String),
}

/// The writing end. Clones write to the same state.
#[derive(Clone, Debug)]
pub struct Readiness(watch::Sender<State>);

/// The reading end.
#[derive(Clone, Debug)]
pub struct ReadinessReader(watch::Receiver<State>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    started: bool,
    draining: bool,
    backend: Backend,
}

// === impl Readiness ===

impl Readiness {
    /// Not ready yet: still starting, and nothing is known of the backend.
    #[must_use]
    pub fn new() -> Readiness {
        Readiness(watch::Sender::new(State { started: false, draining: false, backend: Backend::Unknown }))
    }

    /// The proxy accepts connections now.
    pub fn started(&self) {
        self.update(|state| state.started = true);
    }

    /// The proxy is on its way out, and stays not ready until the process ends.
    pub fn draining(&self) {
        self.update(|state| state.draining = true);
    }

    /// The result of a probe.
    pub fn backend(&self, backend: Backend) {
        self.update(|state| state.backend = backend);
    }

    /// A reading end of this state.
    #[must_use]
    pub fn reader(&self) -> ReadinessReader {
        ReadinessReader(self.0.subscribe())
    }

    /// Readers are woken only when something is different afterwards.
    fn update(&self, change: impl FnOnce(&mut State)) {
        self.0.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

// === impl ReadinessReader ===

impl ReadinessReader {
    /// One line per reason not to send traffic here; empty: ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        self.0.borrow().reasons()
    }

    /// Waits until the state is ready; at once if it is. False: the writing end is gone, so it never will be.
    pub async fn ready(&mut self) -> bool {
        self.0.wait_for(|state| state.reasons().is_empty()).await.is_ok()
    }

    /// Waits until the state is not ready; at once if it is not. False: the writing end is gone.
    pub async fn not_ready(&mut self) -> bool {
        self.0.wait_for(|state| !state.reasons().is_empty()).await.is_ok()
    }

    /// The body of `/readyz`: `ready`, or the reasons; each line ended.
    #[must_use]
    pub fn text(&self) -> (bool, String) {
        let reasons = self.reasons();
        if reasons.is_empty() {
            return (true, "ready\n".to_owned());
        }
        let mut text = String::new();
        for reason in &reasons {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{reason}");
        }
        (false, text)
    }
}

// === impl State ===

impl State {
    fn reasons(&self) -> Vec<String> {
        let State { started, draining, backend } = self;
        let mut reasons = Vec::new();
        if *draining {
            reasons.push("draining".to_owned());
        }
        if !started {
            reasons.push("starting".to_owned());
        }
        match backend {
            Backend::Up => {}
            Backend::Unknown => reasons.push("backend: not probed yet".to_owned()),
            Backend::Down(reason) => reasons.push(format!("backend: {reason}")),
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_line_and_no_reason_means_ready() {
        let readiness = Readiness::new();
        let reader = readiness.reader();
        assert_eq!(reader.text(), (false, "starting\nbackend: not probed yet\n".to_owned()));
        readiness.started();
        readiness.backend(Backend::Up);
        assert_eq!(reader.text(), (true, "ready\n".to_owned()));
        readiness.backend(Backend::Down("connect to 127.0.0.1:8080 refused".to_owned()));
        assert_eq!(reader.text(), (false, "backend: connect to 127.0.0.1:8080 refused\n".to_owned()));
        readiness.draining();
        readiness.backend(Backend::Up);
        assert_eq!(reader.text(), (false, "draining\n".to_owned()));
    }

    #[tokio::test]
    async fn waiting_for_a_state_ends_when_it_comes_and_when_it_cannot_come_any_more() {
        let readiness = Readiness::new();
        let mut reader = readiness.reader();
        assert!(reader.not_ready().await);
        let writer = readiness.clone();
        let (ready, ()) = tokio::join!(reader.ready(), async move {
            writer.started();
            writer.backend(Backend::Up);
        });
        assert!(ready);
        drop(readiness);
        assert!(!reader.not_ready().await);
    }
}
