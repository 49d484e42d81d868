//! What became of a request, decided in one place. Metrics, and later access log, traces and flight records, all take
//! their view from [`classify`], so their totals agree. Pure: facts in, outcome out.

use crate::labels::{
    AbortPhase, ErrorType, Failure, Fault, FirstByte, Origin, Phase, Policy, RpcStatus, SloResult, StreamEnd, Traffic,
};

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

/// What is known of a gRPC call, beside what is known of it as a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The status that the backend told of it.
    pub told: Option<RpcStatus>,
    /// It stood in the head of the answer, and not in its trailers.
    pub by_head: bool,
    /// The call ended no earlier than its deadline.
    pub deadline_passed: bool,
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
    /// It is a gRPC call.
    pub rpc: Option<Call>,
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
    /// How it ended, if it was a stream.
    pub stream_end: StreamEnd,
    /// How it ended, if it was a gRPC call.
    pub rpc: Option<RpcStatus>,
}

/// The one classification.
#[must_use]
pub fn classify(facts: Facts) -> Outcome {
    let Facts { status, from_backend, end, implicit, rpc } = facts;
    let head_sent = status != 0;
    let plain = Outcome {
        status,
        origin: if from_backend { Origin::Backend } else { Origin::Proxy },
        error: ErrorType::NONE,
        blame: None,
        abort: None,
        truncated: false,
        stream_end: StreamEnd::Complete,
        rpc: rpc.map(|call| call.status(status, end)),
    };
    match end {
        End::Complete if from_backend && status >= 500 => Outcome {
            error: ErrorType::from_backend_status(status),
            blame: Some((Fault::Backend, Phase::Wait)),
            ..plain
        },
        End::Complete if from_backend && plain.rpc.is_some_and(RpcStatus::is_server_error) => Outcome {
            error: plain.rpc.map_or(ErrorType::NONE, ErrorType::from_rpc),
            blame: rpc.map(|call| (Fault::Backend, call.told_in(status))),
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
        // It was the backend that took too long; clients hang up at their deadline.
        End::ClientLeft if rpc.is_some_and(|call| call.deadline_passed) => Outcome {
            origin: Origin::Backend,
            error: ErrorType::from_rpc(RpcStatus::DeadlineExceeded),
            blame: Some((Fault::Backend, if head_sent { Phase::Body } else { Phase::Wait })),
            stream_end: StreamEnd::Timeout,
            ..plain
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

// === impl Call ===

impl Call {
    /// How the call ended, which had this HTTP status.
    fn status(self, http_status: u16, end: End) -> RpcStatus {
        match end {
            End::Complete => self.told.unwrap_or(RpcStatus::from_http(http_status)),
            End::ClientLeft if self.deadline_passed => RpcStatus::DeadlineExceeded,
            End::ClientLeft => RpcStatus::Cancelled,
            End::Failed(failure, _) => RpcStatus::from_failure(failure),
        }
    }

    /// In which phase the status became known: a 200 leaves it to the trailers, whether they tell it or not.
    fn told_in(self, http_status: u16) -> Phase {
        match self.told {
            Some(_) if self.by_head => Phase::Wait,
            None if http_status != 200 => Phase::Wait,
            _ => Phase::Body,
        }
    }
}

// === impl Facts ===

impl Facts {
    /// How the wait for the first byte ended, as far as the head tells.
    #[must_use]
    pub fn first_byte(&self) -> FirstByte {
        let by_status = FirstByte::from_status(self.status);
        let Some(call) = self.rpc else { return by_status };
        let rpc = match self.end {
            End::Failed(failure, _) => Some(RpcStatus::from_failure(failure)),
            _ => call.told,
        };
        rpc.map_or(by_status, |rpc| by_status.max(FirstByte::from_rpc(rpc)))
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
/// stream or a gRPC stream.
///
/// A 4xx is an answer like any other, and so is what this sidecar tells a gRPC client. What the client cut short without
/// one tells nothing of the service, as an abort does.
#[must_use]
pub fn slo_result(outcome: &Outcome, traffic: Traffic, stream: bool, took: u64, threshold: Option<u64>) -> SloResult {
    let tunnel = outcome.status == 101;
    if traffic == Traffic::Probe || stream || tunnel || outcome.abort.is_some() {
        return SloResult::Excluded;
    }
    let told_by_rpc = outcome.rpc.is_some() && outcome.status != 0 && !outcome.truncated;
    match outcome.blame {
        Some((Fault::Client, _)) if !(400..500).contains(&outcome.status) && !told_by_rpc => SloResult::Excluded,
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
        let status = prop_oneof![Just(0u16), Just(200), 100u16..600];
        (status, any::<bool>(), end, implicit, prop::option::of(call())).prop_map(
            |(status, from_backend, end, implicit, rpc)| Facts {
                status,
                from_backend: from_backend && status != 0,
                end,
                implicit,
                rpc,
            },
        )
    }

    fn call() -> impl Strategy<Value = Call> {
        let told = prop::option::of((0..RpcStatus::COUNT).prop_map(RpcStatus::from_index));
        (told, any::<bool>(), any::<bool>()).prop_map(|(told, by_head, deadline_passed)| Call {
            told,
            by_head,
            deadline_passed,
        })
    }

    /// A 200 of the backend that ended like this.
    fn call_of(end: End, call: Call) -> Facts {
        Facts { status: 200, from_backend: true, end, implicit: None, rpc: Some(call) }
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
            // A call that told its failure needs no rule.
            let failed = without.rpc.is_some_and(RpcStatus::is_server_error);
            let judged = facts.end == End::Complete && facts.from_backend && facts.status / 100 == 2 && !failed;
            match facts.implicit.filter(|_| judged) {
                None => prop_assert_eq!(outcome, without),
                Some(phase) => {
                    let error = ErrorType::from_policy(Policy::Implicit);
                    prop_assert_eq!(outcome, Outcome { error, blame: Some((Fault::Policy, phase)), ..without });
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_call_is_an_error_by_its_status_whatever_else_ends_it_by_its_failure(facts in facts(), call in call()) {
            let request = classify(Facts { rpc: None, ..facts });
            let outcome = classify(Facts { rpc: Some(call), ..facts });
            prop_assert_eq!(request.rpc, None);
            let status = outcome.rpc.unwrap();
            let by_status = ErrorType::from_rpc(status);
            match facts.end {
                End::Failed(failure, _) => {
                    // A failure of the way there stays what it is.
                    prop_assert_eq!(outcome, Outcome { rpc: outcome.rpc, ..request });
                    prop_assert_eq!(status, RpcStatus::from_failure(failure));
                }
                End::ClientLeft if call.deadline_passed => {
                    prop_assert_eq!((status, outcome.error), (RpcStatus::DeadlineExceeded, by_status));
                    prop_assert_eq!(outcome.blame.map(|(fault, _)| fault), Some(Fault::Backend));
                    prop_assert_eq!((outcome.origin, outcome.stream_end), (Origin::Backend, StreamEnd::Timeout));
                }
                End::ClientLeft => {
                    prop_assert_eq!(status, RpcStatus::Cancelled);
                    prop_assert_eq!(outcome, Outcome { rpc: outcome.rpc, ..request });
                }
                End::Complete => {
                    prop_assert_eq!(status, call.told.unwrap_or(RpcStatus::from_http(facts.status)));
                    if request.error != ErrorType::NONE && facts.status >= 500 {
                        prop_assert_eq!(outcome.error, ErrorType::from_backend_status(facts.status));
                    } else if facts.from_backend && status.is_server_error() {
                        prop_assert_eq!(outcome.error, by_status);
                        let by_head = if call.told.is_some() { call.by_head } else { facts.status != 200 };
                        let phase = if by_head { Phase::Wait } else { Phase::Body };
                        prop_assert_eq!(outcome.blame, Some((Fault::Backend, phase)));
                    } else {
                        prop_assert_eq!(outcome, Outcome { rpc: outcome.rpc, ..request });
                    }
                }
            }
        }

        #[test]
        fn the_first_byte_of_what_is_no_call_is_told_by_its_status(facts in facts()) {
            let facts = Facts { rpc: None, ..facts };
            prop_assert_eq!(facts.first_byte(), FirstByte::from_status(facts.status));
        }
    }

    #[test]
    fn a_200_hides_no_failure_of_a_call() {
        let told = |status, by_head| Call { told: Some(status), by_head, deadline_passed: false };
        for (call, error, phase, first_byte) in [
            (told(RpcStatus::Unavailable, false), "UNAVAILABLE", Some(Phase::Body), FirstByte::ServerError),
            (told(RpcStatus::Internal, true), "INTERNAL", Some(Phase::Wait), FirstByte::ServerError),
            (Call::default(), "UNKNOWN", Some(Phase::Body), FirstByte::Success),
            (told(RpcStatus::NotFound, true), "", None, FirstByte::ClientError),
            (told(RpcStatus::Cancelled, false), "", None, FirstByte::ClientError),
            (told(RpcStatus::Other, false), "", None, FirstByte::ClientError),
            (told(RpcStatus::Ok, false), "", None, FirstByte::Success),
        ] {
            let facts = call_of(End::Complete, call);
            let outcome = classify(facts);
            assert_eq!((outcome.error.text(), outcome.blame.map(|(_, phase)| phase)), (error, phase), "{call:?}");
            let expected = if error.is_empty() { SloResult::Good } else { SloResult::Error };
            assert_eq!(slo_result(&outcome, Traffic::User, false, 1, None), expected, "{call:?}");
            assert_eq!(facts.first_byte(), first_byte, "{call:?}");
        }
        // The answer of a server, or of a proxy, that does not speak gRPC.
        let facts = Facts { status: 404, ..call_of(End::Complete, Call::default()) };
        assert_eq!(classify(facts).error.text(), "UNIMPLEMENTED");
    }

    #[test]
    fn a_call_that_its_client_gave_up_is_the_backends_error_from_its_deadline_on() {
        let left = |status, deadline_passed| {
            let call = Call { deadline_passed, ..Call::default() };
            let outcome = classify(Facts { status, from_backend: status != 0, ..call_of(End::ClientLeft, call) });
            (outcome.error.text(), outcome.blame, outcome.abort)
        };
        assert_eq!(left(0, false), ("", None, Some(AbortPhase::BeforeHead)));
        assert_eq!(left(0, true), ("DEADLINE_EXCEEDED", Some((Fault::Backend, Phase::Wait)), None));
        assert_eq!(left(200, true), ("DEADLINE_EXCEEDED", Some((Fault::Backend, Phase::Body)), None));
    }

    #[test]
    fn what_this_sidecar_tells_a_client_of_its_own_call_is_an_answer() {
        let of = |status, from_backend, failure, rpc| {
            let end = End::Failed(failure, Phase::Head);
            let facts = Facts { status, from_backend, end, implicit: None, rpc };
            slo_result(&classify(facts), Traffic::User, false, 1, None)
        };
        let call = Some(Call::default());
        assert_eq!(of(200, false, Failure::RequestTooLarge, call), SloResult::Good);
        assert_eq!(of(200, false, Failure::ConnectRefused, call), SloResult::Error);
        // Cut off in the middle of the backend's answer, or before there was any.
        assert_eq!(of(200, true, Failure::ClientTimeout, call), SloResult::Excluded);
        assert_eq!(of(0, false, Failure::ClientTimeout, call), SloResult::Excluded);
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
            let answered = facts.end == End::Complete
                && facts.status != 0
                && facts.status < 500
                && facts.implicit.is_none()
                && !outcome.rpc.is_some_and(RpcStatus::is_server_error);
            if answered && !excluded {
                let expected = if threshold.is_some_and(|t| took > t) { SloResult::Slow } else { SloResult::Good };
                prop_assert_eq!(result, expected);
            }
        }
    }

    #[test]
    fn the_threshold_itself_is_good_and_a_nanosecond_more_is_slow() {
        let of = |status, end, took, threshold| {
            let outcome = classify(Facts { status, from_backend: true, end, implicit: None, rpc: None });
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
            let outcome = classify(Facts {
                status,
                from_backend,
                end: End::Failed(failure, Phase::Head),
                implicit: None,
                rpc: None,
            });
            slo_result(&outcome, Traffic::User, false, 1, Some(1))
        };
        assert_eq!(of(431, false, Failure::HeaderLimit), SloResult::Good);
        assert_eq!(of(200, true, Failure::ClientTimeout), SloResult::Excluded);
        assert_eq!(of(0, false, Failure::ClientTimeout), SloResult::Excluded);
        assert_eq!(of(503, false, Failure::Shed), SloResult::Error);
    }

    #[test]
    fn a_client_that_left_is_not_an_error() {
        let outcome =
            classify(Facts { status: 200, from_backend: true, end: End::ClientLeft, implicit: None, rpc: None });
        assert_eq!((outcome.origin, outcome.blame, outcome.truncated), (Origin::Client, None, false));
        assert_eq!(outcome.abort, Some(AbortPhase::DuringBody));
        let outcome =
            classify(Facts { status: 0, from_backend: false, end: End::ClientLeft, implicit: None, rpc: None });
        assert_eq!(outcome.abort, Some(AbortPhase::BeforeHead));
    }

    #[test]
    fn a_cut_answer_is_truncated_and_belongs_to_who_cut_it() {
        let cut = |failure| {
            classify(Facts {
                status: 200,
                from_backend: true,
                end: End::Failed(failure, Phase::Body),
                implicit: None,
                rpc: None,
            })
        };
        assert_eq!(cut(Failure::ResetAfterHead).origin, Origin::Backend);
        assert_eq!(cut(Failure::DrainDeadline).origin, Origin::Proxy);
        assert!(cut(Failure::ResetAfterHead).truncated && cut(Failure::DrainDeadline).truncated);
    }
}
