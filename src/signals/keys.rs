//! Label sets as small numbers. On the request path a label set is one `u32` that is compared with a handful of
//! others; the texts are made from it when a page is built.

use std::sync::Arc;

use crate::labels::{
    AbortPhase, ErrorType, Fault, FirstByte, Method, Origin, Phase, RpcStatus, StreamEnd, Traffic, status_text,
};
use crate::signals::snapshot::Text;

/// `status` has 10 bits: three digits, or 0 for none.
const STATUS_BITS: u32 = 10;
/// `error_type` has 11 bits: statuses below 1000, then the named failures, gRPC statuses and policies.
const ERROR_BITS: u32 = 11;

/// A label set without the route.
pub trait Key: Copy {
    /// The number that stands for this label set.
    fn pack(self) -> u32;
    /// The inverse of `pack`.
    fn unpack(bits: u32) -> Self;
    /// Label values, in the order of the family's labels, around the route's name.
    fn values(self, route: &Arc<str>) -> impl IntoIterator<Item = Text>;
}

/// Labels of `golden_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The request's method.
    pub method: Method,
    /// The status sent, 0 for none.
    pub status: u16,
    /// Who made the status or the end.
    pub origin: Origin,
    /// User or probe.
    pub traffic: Traffic,
}

impl Key for RequestKey {
    fn pack(self) -> u32 {
        let Self { method, status, origin, traffic } = self;
        (((method as u32) << STATUS_BITS | u32::from(status)) << 2 | origin as u32) << 1 | traffic as u32
    }

    fn unpack(bits: u32) -> Self {
        Self {
            traffic: Traffic::from_index((bits & 1) as usize),
            origin: Origin::from_index((bits >> 1 & 3) as usize),
            status: (bits >> 3 & 0x3ff) as u16,
            method: Method::from_index((bits >> 13) as usize),
        }
    }

    fn values(self, route: &Arc<str>) -> impl IntoIterator<Item = Text> {
        let Self { method, status, origin, traffic } = self;
        [
            shared(route),
            method.as_str().into(),
            status_text(status).into(),
            origin.as_str().into(),
            traffic.as_str().into(),
        ]
    }
}

/// Labels of `http_server_request_duration_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationKey {
    /// The request's method.
    pub method: Method,
    /// The status sent, 0 for none.
    pub status: u16,
    /// What went wrong, if anything.
    pub error: ErrorType,
}

impl Key for DurationKey {
    fn pack(self) -> u32 {
        let Self { method, status, error } = self;
        ((method as u32) << STATUS_BITS | u32::from(status)) << ERROR_BITS | u32::from(error.to_bits())
    }

    fn unpack(bits: u32) -> Self {
        Self {
            error: ErrorType::from_bits((bits & 0x7ff) as u16),
            status: (bits >> ERROR_BITS & 0x3ff) as u16,
            method: Method::from_index((bits >> (ERROR_BITS + STATUS_BITS)) as usize),
        }
    }

    fn values(self, route: &Arc<str>) -> impl IntoIterator<Item = Text> {
        let Self { method, status, error } = self;
        [method.as_str().into(), shared(route), status_text(status).into(), error.text().into()]
    }
}

/// Labels of `rpc_server_call_duration_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcKey {
    /// The call's status.
    pub status: RpcStatus,
    /// What went wrong, if anything.
    pub error: ErrorType,
}

impl Key for RpcKey {
    fn pack(self) -> u32 {
        let Self { status, error } = self;
        (status as u32) << ERROR_BITS | u32::from(error.to_bits())
    }

    fn unpack(bits: u32) -> Self {
        Self {
            error: ErrorType::from_bits((bits & 0x7ff) as u16),
            status: RpcStatus::from_index((bits >> ERROR_BITS) as usize),
        }
    }

    fn values(self, route: &Arc<str>) -> impl IntoIterator<Item = Text> {
        let Self { status, error } = self;
        [rpc_method(route), status.as_str().into(), error.text().into()]
    }
}

/// The method of the calls on this route: `package.Service/Method` of `/package.Service/Method`. A route that would be
/// taken for one of those that are none (`/_other`) keeps its slash, or the page would have a label set twice.
fn rpc_method(route: &Arc<str>) -> Text {
    match route.strip_prefix('/') {
        None | Some("" | "_other" | "_unmatched") => shared(route),
        Some(method) => Text::Shared(method.into()),
    }
}

/// Labels of `golden_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorKey {
    /// What went wrong.
    pub error: ErrorType,
    /// Who is to blame.
    pub fault: Fault,
    /// Where it went wrong.
    pub phase: Phase,
}

impl Key for ErrorKey {
    fn pack(self) -> u32 {
        let Self { error, fault, phase } = self;
        (u32::from(error.to_bits()) << 3 | fault as u32) << 3 | phase as u32
    }

    fn unpack(bits: u32) -> Self {
        Self {
            phase: Phase::from_index((bits & 7) as usize),
            fault: Fault::from_index((bits >> 3 & 7) as usize),
            error: ErrorType::from_bits((bits >> 6) as u16),
        }
    }

    fn values(self, route: &Arc<str>) -> impl IntoIterator<Item = Text> {
        let Self { error, fault, phase } = self;
        [shared(route), error.text().into(), fault.as_str().into(), phase.as_str().into()]
    }
}

/// Families whose only label beside the route is one closed set.
macro_rules! single {
    ($($set:ident),+) => { $(impl Key for $set {
        fn pack(self) -> u32 {
            self as u32
        }

        fn unpack(bits: u32) -> Self {
            Self::from_index(bits as usize)
        }

        fn values(self, route: &Arc<str>) -> impl IntoIterator<Item = Text> {
            [shared(route), self.as_str().into()]
        }
    })+ };
}
single!(FirstByte, AbortPhase, StreamEnd);

/// No label but the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteOnly;

impl Key for RouteOnly {
    fn pack(self) -> u32 {
        0
    }

    fn unpack(_bits: u32) -> Self {
        RouteOnly
    }

    fn values(self, route: &Arc<str>) -> impl IntoIterator<Item = Text> {
        [shared(route)]
    }
}

fn shared(route: &Arc<str>) -> Text {
    Text::Shared(Arc::clone(route))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{Failure, Policy};

    #[test]
    fn a_method_is_its_route_without_the_slash_and_no_two_routes_share_one() {
        let of = |route: &str| rpc_method(&route.into()).as_str().to_owned();
        assert_eq!(of("/shop.v1.Cart/Add"), "shop.v1.Cart/Add");
        for route in ["_other", "_unmatched", "/_other", "/_unmatched", "/"] {
            assert_eq!(of(route), route);
        }
        assert_eq!(of("//a"), "/a");
    }

    #[test]
    fn every_label_set_survives_packing() {
        let errors = (500..600)
            .map(ErrorType::from_backend_status)
            .chain(Failure::ALL.iter().map(|f| ErrorType::from_failure(*f)))
            .chain(RpcStatus::ALL.iter().map(|s| ErrorType::from_rpc(*s)))
            .chain(Policy::ALL.iter().map(|p| ErrorType::from_policy(*p)))
            .chain([ErrorType::NONE]);
        for error in errors {
            for method in Method::ALL {
                for status in [0, 100, 200, 404, 599, 999] {
                    let key = DurationKey { method: *method, status, error };
                    assert_eq!(DurationKey::unpack(key.pack()), key);
                }
            }
            for status in RpcStatus::ALL {
                let key = RpcKey { status: *status, error };
                assert_eq!(RpcKey::unpack(key.pack()), key);
            }
            for fault in Fault::ALL {
                for phase in Phase::ALL {
                    let key = ErrorKey { error, fault: *fault, phase: *phase };
                    assert_eq!(ErrorKey::unpack(key.pack()), key);
                }
            }
        }
        for method in Method::ALL {
            for status in [0, 100, 200, 404, 599, 999] {
                for origin in Origin::ALL {
                    for traffic in Traffic::ALL {
                        let key = RequestKey { method: *method, status, origin: *origin, traffic: *traffic };
                        assert_eq!(RequestKey::unpack(key.pack()), key);
                    }
                }
            }
        }
    }
}
