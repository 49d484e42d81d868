//! What a rule file is made of: groups of recording and alerting rules, written down for Prometheus and, from the same
//! model, for its operator.

use super::objective::Severity;
use super::yaml::{Yaml, text};

/// Rules that are evaluated together, one after the other.
#[derive(Clone, Debug)]
pub struct Group {
    /// Unique in the file.
    pub name: &'static str,
    /// Time between evaluations.
    pub interval: &'static str,
    /// In the order of evaluation.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Keeps the result under a name.
    Record(Record),
    /// Tells somebody.
    Alert(Alert),
}

/// A recording rule.
#[derive(Clone, Debug)]
pub struct Record {
    /// `level:metric:operations`.
    pub name: String,
    /// PromQL.
    pub expr: String,
}

/// An alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// CamelCase, with our prefix. Its runbook has this name.
    pub name: &'static str,
    /// PromQL.
    pub expr: String,
    /// How long it must hold; empty: at once.
    pub hold: &'static str,
    /// How long it goes on after the last time; empty: it does not.
    pub keep: &'static str,
    /// How urgent.
    pub severity: Severity,
    /// More labels, never with values in them.
    pub labels: Vec<(&'static str, String)>,
    /// What happens, without numbers: the line of a page.
    pub summary: String,
    /// With the labels, the number, and what it means.
    pub description: String,
}

/// Where runbooks are read.
pub const RUNBOOKS_URL: &str = "https://github.com/golden-sidecar/golden-sidecar/blob/main/docs/runbooks";

/// What a series of a service has in common; absent labels count as empty.
pub const JOB: &str = "cluster, namespace, job";

/// Which service, in a description: its job, and namespace and cluster where there are such labels.
pub const WHERE: &str = "{{ $labels.job }}{{ with $labels.namespace }} in namespace {{ . }}{{ end }}\
    {{ with $labels.cluster }} of cluster {{ . }}{{ end }}";
/// What the series of one sidecar, and so of one instance of a service, have in common.
pub const INSTANCE: &str = "cluster, namespace, job, instance";

// === impl Alert ===

impl Alert {
    /// The address of its runbook.
    #[must_use]
    pub fn runbook(&self) -> String {
        format!("{RUNBOOKS_URL}/{}.md", self.name)
    }
}

impl Rule {
    fn yaml(&self) -> Yaml {
        match self {
            Rule::Record(rule) => Yaml::Map(vec![("record", text(&rule.name)), ("expr", text(&rule.expr))]),
            Rule::Alert(alert) => {
                let mut map = vec![("alert", text(alert.name)), ("expr", text(&alert.expr))];
                if !alert.hold.is_empty() {
                    map.push(("for", text(alert.hold)));
                }
                if !alert.keep.is_empty() {
                    map.push(("keep_firing_for", text(alert.keep)));
                }
                let labels = std::iter::once(("severity", text(alert.severity.as_str())));
                let more = alert.labels.iter().map(|(name, value)| (*name, text(value)));
                map.push(("labels", Yaml::Map(labels.chain(more).collect())));
                let annotations = vec![
                    ("summary", text(&alert.summary)),
                    ("description", text(&alert.description)),
                    ("runbook_url", text(alert.runbook())),
                ];
                map.push(("annotations", Yaml::Map(annotations)));
                Yaml::Map(map)
            }
        }
    }
}

/// `groups:`, as Prometheus and its operator both read it.
#[must_use]
pub fn groups_yaml(groups: &[Group]) -> Yaml {
    let groups = groups.iter().map(|group| {
        Yaml::Map(vec![
            ("name", text(group.name)),
            ("interval", text(group.interval)),
            ("rules", Yaml::List(group.rules.iter().map(Rule::yaml).collect())),
        ])
    });
    Yaml::Map(vec![("groups", Yaml::List(groups.collect()))])
}

/// The same groups as the resource that the Prometheus Operator reads.
#[must_use]
pub fn prometheus_rule(groups: &[Group]) -> String {
    let name = "golden-sidecar";
    let labels = Yaml::Map(vec![("app.kubernetes.io/name", text(name))]);
    Yaml::Map(vec![
        ("apiVersion", text("monitoring.coreos.com/v1")),
        ("kind", text("PrometheusRule")),
        ("metadata", Yaml::Map(vec![("name", text(name)), ("labels", labels)])),
        ("spec", groups_yaml(groups)),
    ])
    .document(&[
        "The rules of golden-sidecar for the Prometheus Operator; generated, do not edit.",
        "",
        "The operator loads only what the ruleSelector of its Prometheus selects. Look what that is, and add the label \
         it asks for:",
        "  kubectl get prometheus -A -o jsonpath='{.items[*].spec.ruleSelector}'",
        "In kube-prometheus-stack it is usually the label release with the name of the Helm release.",
    ])
}

/// All alerts of these groups.
pub fn alerts(groups: &[Group]) -> impl Iterator<Item = &Alert> {
    groups.iter().flat_map(|group| &group.rules).filter_map(|rule| match rule {
        Rule::Alert(alert) => Some(alert),
        Rule::Record(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::alerts;
    use serde_json::Value;

    #[test]
    fn the_operator_gets_the_groups_of_the_rule_file() {
        let groups = alerts::groups();
        let file: Value = serde_saphyr::from_str(&groups_yaml(&groups).document(&["x"])).unwrap();
        let resource: Value = serde_saphyr::from_str(&prometheus_rule(&groups)).unwrap();
        assert_eq!(resource["spec"]["groups"], file["groups"]);
        assert!(file["groups"].as_array().is_some_and(|groups| !groups.is_empty()));
        assert_eq!(resource["apiVersion"], "monitoring.coreos.com/v1");
        assert_eq!(resource["metadata"]["labels"]["app.kubernetes.io/name"], "golden-sidecar");
    }
}
