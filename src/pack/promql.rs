//! Pieces of PromQL that rules and panels share.

use crate::labels::{Policy, RpcStatus};

/// A quantile of a histogram of ours per `by` (label names with commas, may be empty), over `window`. `selector` is empty or
/// has its braces.
///
/// Prometheus keeps either the classic buckets or the native histogram: the one that is missing adds nothing. With both, the
/// classic ones count, as before the change. In parentheses, so that it can be part of anything.
#[must_use]
pub fn quantile(quantile: &str, by: &str, family: &str, selector: &str, window: &str) -> String {
    let (with_edges, without) = match by {
        "" => ("le".to_owned(), String::new()),
        by => (format!("{by}, le"), format!(" by ({by})")),
    };
    format!(
        "(\n  histogram_quantile({quantile}, sum by ({with_edges}) (rate({family}_bucket{selector}[{window}])))\n  or\n  \
         histogram_quantile({quantile}, sum{without} (rate({family}{selector}[{window}])))\n)"
    )
}

/// Matches, in `golden_errors_total`, what the status of an answer does not tell: errors by a rule of the configuration, and
/// gRPC calls that failed by the server's fault.
#[must_use]
pub fn behind_the_status() -> String {
    let of_calls = RpcStatus::ALL.iter().filter(|status| status.is_server_error()).map(|status| status.as_str());
    let all: Vec<&str> = [Policy::Implicit.as_str()].into_iter().chain(of_calls).collect();
    format!(r#"error_type=~"{}""#, all.join("|"))
}

/// Matches, in `golden_requests_total`, answers that a sidecar made to gRPC calls: their failure, too, is told by another
/// status than that of the request.
pub const OWN_TO_CALLS: &str = r#"origin="proxy",http_response_status_code="200""#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_asked_of_either_form() {
        assert_eq!(
            quantile("0.99", "job", "x_seconds", r#"{phase="queue"}"#, "5m"),
            "(\n  histogram_quantile(0.99, sum by (job, le) (rate(x_seconds_bucket{phase=\"queue\"}[5m])))\n  or\n  \
             histogram_quantile(0.99, sum by (job) (rate(x_seconds{phase=\"queue\"}[5m])))\n)"
        );
        assert!(quantile("0.5", "", "x", "", "5m").contains("sum (rate(x[5m]))"));
    }
}
