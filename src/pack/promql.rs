//! Pieces of PromQL that rules and panels share.

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
