//! What became of a request, decided in one place. Metrics, and later access log, traces and flight records, all take
//! their view from [`classify`], so their totals agree. Pure: facts in, outcome out.

use crate::labels::{AbortPhase, ErrorType, Failure, Fault, Origin, Phase, Policy, SloResult, StreamEnd, Traffic};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The whole response was handed to the client.
    Complete,
    /// The client left.
    ClientLeft,
    /// Something went wrong there.
    Failed(Failure, Phase),
}

/// All that is known of a request at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Status that was sent to the client, 0 for none.
    pub status: u16,
    /// Whether that status was the backend's.
    pub from_backend: bool,
    /// How it ended.
    pub end: End,
    /// A rule says that the answer is an error: in which phase it was given away.
    pub implicit: Option<Phase>,
}

/// What the numbers say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Status sent, 0 for none.
    pub status: u16,
    /// Who made the status or the end.
    pub origin: Origin,
    /// Empty unless it failed.
    pub error: ErrorType,
    /// Who is to blame and where, if it failed.
    pub blame: Option<(Fault, Phase)>,
    /// When the client left, if it did.
    pub abort: Option<AbortPhase>,
    /// Whether a status was sent whose body stayed incomplete although the client had not left.
    pub truncated: bool,
    /// How it ended, if it was an event stream.
    pub stream_end: StreamEnd,
}

/// The one classification.
#[must_use]
pub fn classify(facts: Facts) -> Outcome {
    let Facts { status, from_backend, end, implicit } = facts;
    let head_sent = status != 0;
    let plain = Outcome {
        status,
        origin: if from_backend { Origin::Backend } else { Origin::Proxy },
        error: ErrorType::NONE,
        blame: None,
        abort: None,
        truncated: false,
        stream_end: StreamEnd::Complete,
    };
    match end {
        End::Complete if from_backend && status >= 500 => Outcome {
            error: ErrorType::from_backend_status(status),
            blame: Some((Fault::Backend, Phase::Wait)),
            ..plain
        },
        End::Complete => match implicit.filter(|_| from_backend && (200..300).contains(&status)) {
            // The status and who made it stay as they are.
            Some(phase) => Outcome {
                error: ErrorType::from_policy(Policy::Implicit),
                blame: Some((Fault::Policy, phase)),
                ..plain
            },
            None => plain,
        },
        End::ClientLeft => Outcome {
            origin: Origin::Client,
            abort: Some(if head_sent { AbortPhase::DuringBody } else { AbortPhase::BeforeHead }),
            stream_end: StreamEnd::ClientAbort,
            ..plain
        },
        End::Failed(failure, phase) => {
            let fault = failure.fault();
            // An answer that the backend cut is the backend's; one that this sidecar cut is the sidecar's.
            let cut_by_backend = from_backend && fault == Fault::Backend;
            Outcome {
                origin: if cut_by_backend { Origin::Backend } else { Origin::Proxy },
                error: ErrorType::from_failure(failure),
                blame: Some((fault, phase)),
                // A proxy-made status goes out whole; only the backend's can be left incomplete.
                truncated: from_backend,
                stream_end: match failure {
                    Failure::BodyTimeout | Failure::DrainDeadline | Failure::ClientTimeout => StreamEnd::Timeout,
                    _ => StreamEnd::BackendReset,
                },
                ..plain
            }
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The same request when an objective says that it took so long that this is an error. What failed or was left by its
    /// client stays what it is. Its phase is the last one: only the end tells how long it took.
    #[must_use]
    pub fn too_slow(self) -> Outcome {
        if self.blame.is_some() || self.abort.is_some() {
            return self;
        }
        let error = ErrorType::from_policy(Policy::TooSlow);
        Outcome { error, blame: Some((Fault::Policy, Phase::Body)), ..self }
    }
}

/// What a request that `took` so many nanoseconds is to an objective with this threshold. `stream`: it was an event
/// stream.
///
/// A 4xx is an answer like any other. What the client cut short without one tells nothing of the service, as an abort
/// does.
#[must_use]
pub fn slo_result(outcome: &Outcome, traffic: Traffic, stream: bool, took: u64, threshold: Option<u64>) -> SloResult {
    let tunnel = outcome.status == 101;
    if traffic == Traffic::Probe || stream || tunnel || outcome.abort.is_some() {
        return SloResult::Excluded;
    }
    match outcome.blame {
        Some((Fault::Client, _)) if !(400..500).contains(&outcome.status) => SloResult::Excluded,
        Some((Fault::Client, _)) | None if threshold.is_some_and(|threshold| took > threshold) => SloResult::Slow,
        Some((Fault::Client, _)) | None => SloResult::Good,
        Some(_) => SloResult::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts() -> impl Strategy<Value = Facts> {
        let end = prop_oneof![
            Just(End::Complete),
            Just(End::ClientLeft),
            (0..Failure::COUNT, 0..Phase::COUNT)
                .prop_map(|(f, p)| End::Failed(Failure::from_index(f), Phase::from_index(p))),
        ];
        let implicit = prop::option::of((0..Phase::COUNT).prop_map(Phase::from_index));
        (prop_oneof![Just(0u16), 100u16..600], any::<bool>(), end, implicit).prop_map(
            |(status, from_backend, end, implicit)| Facts {
                status,
                from_backend: from_backend && status != 0,
                end,
                implicit,
            },
        )
    }

    proptest! {
        #[test]
        fn a_request_is_never_both_an_error_and_an_abort(facts in facts()) {
            let outcome = classify(facts);
            prop_assert!(outcome.blame.is_none() || outcome.abort.is_none());
            prop_assert_eq!(outcome.blame.is_some(), outcome.error != ErrorType::NONE);
            let slow = outcome.too_slow();
            prop_assert!(slow.blame.is_some() != slow.abort.is_some());
            prop_assert_eq!(slow.blame.is_some(), slow.error != ErrorType::NONE);
        }

        #[test]
        fn the_status_is_never_changed(facts in facts()) {
            prop_assert_eq!(classify(facts).status, facts.status);
        }

        #[test]
        fn a_rule_makes_an_error_of_a_whole_2xx_of_the_backend_and_of_nothing_else(facts in facts()) {
            let without = classify(Facts { implicit: None, ..facts });
            let outcome = classify(facts);
            let judged = facts.end == End::Complete && facts.from_backend && facts.status / 100 == 2;
            match facts.implicit.filter(|_| judged) {
                None => prop_assert_eq!(outcome, without),
                Some(phase) => {
                    let error = ErrorType::from_policy(Policy::Implicit);
                    prop_assert_eq!(outcome, Outcome { error, blame: Some((Fault::Policy, phase)), ..without });
                }
            }
        }
    }

    fn traffic() -> impl Strategy<Value = Traffic> {
        (0..Traffic::COUNT).prop_map(Traffic::from_index)
    }

    proptest! {
        #[test]
        fn an_objective_misses_what_golden_errors_total_blames_on_others_than_the_client(
            facts in facts(), traffic in traffic(), stream in any::<bool>(), took in any::<u64>(),
            threshold in prop::option::of(any::<u64>()),
        ) {
            let outcome = classify(facts);
            let result = slo_result(&outcome, traffic, stream, took, threshold);
            let excluded = traffic == Traffic::Probe || stream || facts.status == 101 || outcome.abort.is_some();
            let failed = outcome.blame.is_some_and(|(fault, _)| fault != Fault::Client);
            if excluded {
                prop_assert_eq!(result, SloResult::Excluded);
            } else {
                prop_assert_eq!(result == SloResult::Error, failed);
            }
            // A status that the client got tells the rest.
            let answered =
                facts.end == End::Complete && facts.status != 0 && facts.status < 500 && facts.implicit.is_none();
            if answered && !excluded {
                let expected = if threshold.is_some_and(|t| took > t) { SloResult::Slow } else { SloResult::Good };
                prop_assert_eq!(result, expected);
            }
        }
    }

    #[test]
    fn the_threshold_itself_is_good_and_a_nanosecond_more_is_slow() {
        let of = |status, end, took, threshold| {
            let outcome = classify(Facts { status, from_backend: true, end, implicit: None });
            slo_result(&outcome, Traffic::User, false, took, threshold)
        };
        for status in [200, 302, 404, 499] {
            assert_eq!(of(status, End::Complete, 300_000_000, Some(300_000_000)), SloResult::Good);
            assert_eq!(of(status, End::Complete, 300_000_001, Some(300_000_000)), SloResult::Slow);
            assert_eq!(of(status, End::Complete, u64::MAX, None), SloResult::Good);
        }
        // However fast.
        assert_eq!(of(500, End::Complete, 1, Some(300_000_000)), SloResult::Error);
        let cut = End::Failed(Failure::ResetAfterHead, Phase::Body);
        assert_eq!(of(404, cut, 1, None), SloResult::Error, "half an answer is none");
    }

    #[test]
    fn a_4xx_of_the_sidecar_is_an_answer_and_a_client_that_stalls_is_none() {
        let of = |status, from_backend, failure| {
            let outcome =
                classify(Facts { status, from_backend, end: End::Failed(failure, Phase::Head), implicit: None });
            slo_result(&outcome, Traffic::User, false, 1, Some(1))
        };
        assert_eq!(of(431, false, Failure::HeaderLimit), SloResult::Good);
        assert_eq!(of(200, true, Failure::ClientTimeout), SloResult::Excluded);
        assert_eq!(of(0, false, Failure::ClientTimeout), SloResult::Excluded);
        assert_eq!(of(503, false, Failure::Shed), SloResult::Error);
    }

    #[test]
    fn a_client_that_left_is_not_an_error() {
        let outcome = classify(Facts { status: 200, from_backend: true, end: End::ClientLeft, implicit: None });
        assert_eq!((outcome.origin, outcome.blame, outcome.truncated), (Origin::Client, None, false));
        assert_eq!(outcome.abort, Some(AbortPhase::DuringBody));
        let outcome = classify(Facts { status: 0, from_backend: false, end: End::ClientLeft, implicit: None });
        assert_eq!(outcome.abort, Some(AbortPhase::BeforeHead));
    }

    #[test]
    fn a_cut_answer_is_truncated_and_belongs_to_who_cut_it() {
        let cut = |failure| {
            classify(Facts { status: 200, from_backend: true, end: End::Failed(failure, Phase::Body), implicit: None })
        };
        assert_eq!(cut(Failure::ResetAfterHead).origin, Origin::Backend);
        assert_eq!(cut(Failure::DrainDeadline).origin, Origin::Proxy);
        assert!(cut(Failure::ResetAfterHead).truncated && cut(Failure::DrainDeadline).truncated);
    }
}
