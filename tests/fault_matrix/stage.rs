//! Where the peers of a scenario meet: a party says that it has come to a point, others wait for that. Nobody sleeps.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};

use crate::common::PATIENCE;

/// The middle of a scenario: here a signal may come.
const MIDDLE: &str = "the middle";
/// What the party that came to the middle waits for.
const BEYOND: &str = "beyond the middle";

/// The points that have been reached.
#[derive(Clone, Default)]
pub struct Stage(Arc<(Mutex<Reached>, Condvar)>);

#[derive(Default)]
struct Reached {
    points: BTreeSet<&'static str>,
    /// A party has failed: nobody needs to wait any more.
    abandoned: bool,
}

/// Abandons the stage when a party panics, so that the others fail at once and not after their patience.
pub struct Presence<'a>(&'a Stage);

impl Stage {
    /// This point has been reached.
    pub fn mark(&self, point: &'static str) {
        self.0.0.lock().unwrap().points.insert(point);
        self.0.1.notify_all();
    }

    /// Waits until somebody has reached the point.
    #[track_caller]
    pub fn wait(&self, point: &'static str) {
        let missing = |reached: &mut Reached| !reached.points.contains(point) && !reached.abandoned;
        let guard = self.0.0.lock().unwrap();
        let (reached, _) = self.0.1.wait_timeout_while(guard, PATIENCE, missing).unwrap();
        let (there, abandoned) = (reached.points.contains(point), reached.abandoned);
        // A panic must not poison what the others look at.
        drop(reached);
        assert!(there, "nobody came to {point:?}{}", if abandoned { ": another party has failed" } else { "" });
    }

    /// Whether the point has been reached.
    pub fn has(&self, point: &'static str) -> bool {
        self.0.0.lock().unwrap().points.contains(point)
    }

    /// A party comes to the middle and stays until the signal of the day has taken effect.
    #[track_caller]
    pub fn middle(&self) {
        self.mark(MIDDLE);
        self.wait(BEYOND);
    }

    /// Waits until a party is in the middle.
    #[track_caller]
    pub fn wait_for_middle(&self) {
        self.wait(MIDDLE);
    }

    /// Lets the party in the middle go on.
    pub fn go_beyond(&self) {
        self.mark(BEYOND);
    }

    /// Whether the middle is over.
    pub fn is_beyond(&self) -> bool {
        self.has(BEYOND)
    }

    /// To be held by each party while it plays.
    pub fn enter(&self) -> Presence<'_> {
        Presence(self)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.0.lock().unwrap().abandoned = true;
            self.0.0.1.notify_all();
        }
    }
}
