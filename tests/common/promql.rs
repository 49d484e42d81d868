//! Queries as trees: what they select, what they call, and which labels their results can have.

use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, Mutex, PoisonError};

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, MatrixSelector, SubqueryExpr, VectorMatchCardinality,
    VectorSelector,
};

/// Names of labels.
pub type Names = BTreeSet<String>;

/// What Grafana puts for its variables in a query. What is not chosen is "All", whose value
/// is `.+`, and `.*` of a namespace.
#[derive(Clone, Debug)]
pub struct Substitution {
    /// Variable → value.
    pub variables: Vec<(String, String)>,
    /// `$__rate_interval`.
    pub rate_interval: String,
    /// `$__interval`.
    pub interval: String,
    /// `$__range`.
    pub range: String,
}

impl Default for Substitution {
    fn default() -> Substitution {
        Substitution {
            variables: Vec::new(),
            // Four scrapes of 15 s: what Grafana gives for the usual interval.
            rate_interval: "1m".into(),
            interval: "15s".into(),
            range: "1h".into(),
        }
    }
}

impl Substitution {
    /// The query as Prometheus gets it. A variable without a value becomes that of "All".
    #[must_use]
    pub fn apply(&self, query: &str) -> String {
        let mut out = String::new();
        let mut rest = query;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let (name, after) = match rest.strip_prefix('{') {
                Some(inner) => {
                    let end = inner.find('}').expect("a brace that is closed");
                    (inner[..end].split(':').next().unwrap_or_default(), &inner[end + 1..])
                }
                None => {
                    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                    (&rest[..end], &rest[end..])
                }
            };
            if name.is_empty() {
                // The end of a regular expression.
                out.push('$');
                continue;
            }
            out.push_str(match name {
                "__rate_interval" => &self.rate_interval,
                "__interval" => &self.interval,
                "__range" => &self.range,
                name => match self.variables.iter().find(|(known, _)| known == name) {
                    Some((_, value)) => value,
                    None if name == "namespace" => ".*",
                    None => ".+",
                },
            });
            rest = after;
        }
        out + rest
    }
}

/// The tree of a query whose variables are substituted. Many rules read the same queries, so each is parsed once.
pub fn parse(query: &str) -> Result<Expr, String> {
    static PARSED: LazyLock<Mutex<HashMap<String, Result<Expr, String>>>> = LazyLock::new(Mutex::default);
    let mut parsed = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
    parsed.entry(query.to_owned()).or_insert_with(|| promql_parser::parser::parse(query)).clone()
}

/// What is directly below.
#[must_use]
pub fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Aggregate(AggregateExpr { expr, param, .. }) => {
            [Some(expr), param.as_ref()].into_iter().flatten().map(|child| &**child).collect()
        }
        Expr::Unary(unary) => vec![&unary.expr],
        Expr::Paren(paren) => vec![&paren.expr],
        Expr::Binary(BinaryExpr { lhs, rhs, .. }) => vec![lhs, rhs],
        Expr::Subquery(SubqueryExpr { expr, .. }) => vec![expr],
        Expr::Call(Call { args, .. }) => args.args.iter().map(|arg| &**arg).collect(),
        Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_)
        | Expr::Extension(_) => Vec::new(),
    }
}

/// The tree and everything in it, each with what it stands in, nearest last.
#[must_use]
pub fn nodes(expr: &Expr) -> Vec<(Vec<&Expr>, &Expr)> {
    fn walk<'a>(expr: &'a Expr, above: &[&'a Expr], out: &mut Vec<(Vec<&'a Expr>, &'a Expr)>) {
        out.push((above.to_vec(), expr));
        let below: Vec<_> = above.iter().copied().chain([expr]).collect();
        children(expr).into_iter().for_each(|child| walk(child, &below, out));
    }
    let mut out = Vec::new();
    walk(expr, &[], &mut out);
    out
}

/// Without parentheses around it.
#[must_use]
pub fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Paren(paren) => bare(&paren.expr),
        expr => expr,
    }
}

/// The selector of a node that is one.
#[must_use]
pub fn selector(expr: &Expr) -> Option<&VectorSelector> {
    match expr {
        Expr::VectorSelector(selector) => Some(selector),
        Expr::MatrixSelector(MatrixSelector { vs, .. }) => Some(vs),
        _ => None,
    }
}

/// All selectors.
#[must_use]
pub fn selectors(expr: &Expr) -> Vec<&VectorSelector> {
    nodes(expr).into_iter().filter_map(|(_, node)| selector(node)).collect()
}

/// All matchers of a selector, also those of the form `{a="1" or b="2"}`.
pub fn matchers(selector: &VectorSelector) -> impl Iterator<Item = &Matcher> {
    selector.matchers.matchers.iter().chain(selector.matchers.or_matchers.iter().flatten())
}

/// The names that a selector may stand for: its own, or those that a matcher of `__name__` spells out.
#[must_use]
pub fn metric_names(selector: &VectorSelector) -> Vec<String> {
    if let Some(name) = &selector.name {
        return vec![name.clone()];
    }
    let named = matchers(selector).find(|matcher| matcher.name == "__name__");
    named.map(|matcher| alternatives(&matcher.value)).unwrap_or_default()
}

/// The alternatives of a regular expression, as far as they stand at its top.
#[must_use]
pub fn alternatives(pattern: &str) -> Vec<String> {
    let inner = pattern.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).filter(|rest| !rest.contains(')'));
    let (mut depth, mut out) = (0_i32, vec![String::new()]);
    for c in inner.unwrap_or(pattern).chars() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '|' if depth == 0 => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        out.last_mut().expect("one at least").push(c);
    }
    out
}

/// Whether a regular expression is nothing but a text.
#[must_use]
pub fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['.', '*', '+', '?', '|', '(', ')', '[', ']', '{', '}', '^', '$', '\\'])
}

/// What a regular expression, which is anchored on both sides, matches. One that is wrong matches nothing.
pub fn pattern(pattern: &str) -> impl Fn(&str) -> bool {
    let regex = promql_parser::parser::token::T_EQL_REGEX;
    let matcher = Matcher::new_matcher(regex, "x".into(), pattern.to_owned());
    move |value| matcher.as_ref().is_ok_and(|matcher| matcher.is_match(value))
}

/// The name of the called function, of an aggregation or an operator.
#[must_use]
pub fn name(expr: &Expr) -> String {
    match expr {
        Expr::Call(call) => call.func.name.to_owned(),
        Expr::Aggregate(aggregate) => aggregate.op.to_string(),
        Expr::Binary(binary) => binary.op.to_string(),
        _ => String::new(),
    }
}

/// Whether it is a number at any moment, and no vector.
#[must_use]
pub fn is_scalar(expr: &Expr) -> bool {
    expr.value_type() == promql_parser::parser::value::ValueType::Scalar
}

/// The value of what is a number as it stands.
#[must_use]
pub fn constant(expr: &Expr) -> Option<f64> {
    match bare(expr) {
        Expr::NumberLiteral(number) => Some(number.val),
        Expr::Unary(unary) => constant(&unary.expr).map(|value| -value),
        Expr::Binary(binary) => {
            let (lhs, rhs) = (constant(&binary.lhs)?, constant(&binary.rhs)?);
            match binary.op.to_string().as_str() {
                "+" => Some(lhs + rhs),
                "-" => Some(lhs - rhs),
                "*" => Some(lhs * rhs),
                "/" => Some(lhs / rhs),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Names of labels that the result may have, and what of the matching can never work. `of` gives the labels of a series by
/// its name.
pub struct Typing<'a> {
    /// Labels of the series of this name; `None` when there is no such series.
    pub of: &'a dyn Fn(&str) -> Option<Names>,
    /// What cannot be: joins that never match, labels that no series has.
    pub faults: Vec<String>,
}

impl Typing<'_> {
    /// Labels of the result, without `__name__`.
    pub fn labels(&mut self, expr: &Expr) -> Names {
        match expr {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Names::new(),
            Expr::VectorSelector(_) | Expr::MatrixSelector(_) => {
                let selector = selector(expr).expect("it is one");
                let names = metric_names(selector);
                let mut labels = Names::new();
                for name in &names {
                    match (self.of)(name) {
                        Some(found) => labels.extend(found),
                        None => self.faults.push(format!("there is no series {name}")),
                    }
                }
                if names.is_empty() {
                    self.faults.push(format!("{selector}: a selector without a name"));
                }
                for matcher in matchers(selector).filter(|matcher| matcher.name != "__name__") {
                    if !labels.contains(&matcher.name) {
                        self.faults.push(format!("{}: there is no label {}", names.join("|"), matcher.name));
                    }
                }
                labels
            }
            Expr::Paren(paren) => self.labels(&paren.expr),
            Expr::Unary(unary) => self.labels(&unary.expr),
            Expr::Subquery(subquery) => self.labels(&subquery.expr),
            Expr::Aggregate(aggregate) => {
                if let Some(param) = &aggregate.param {
                    self.labels(param);
                }
                let inner = self.labels(&aggregate.expr);
                let keeps = ["topk", "bottomk", "limitk"].contains(&aggregate.op.to_string().as_str());
                match &aggregate.modifier {
                    _ if keeps => inner,
                    None => Names::new(),
                    Some(LabelModifier::Include(by)) => {
                        for label in by.labels.iter().filter(|label| !inner.contains(*label)) {
                            self.faults.push(format!("by ({label}): {} has no such label", aggregate.expr));
                        }
                        by.labels.iter().filter(|label| inner.contains(*label)).cloned().collect()
                    }
                    Some(LabelModifier::Exclude(without)) => {
                        for label in without.labels.iter().filter(|label| !inner.contains(*label)) {
                            self.faults.push(format!("without ({label}): {} has no such label", aggregate.expr));
                        }
                        inner.into_iter().filter(|label| !without.labels.contains(label)).collect()
                    }
                }
            }
            Expr::Call(call) => self.call(call),
            Expr::Binary(binary) => self.binary(binary),
        }
    }

    fn call(&mut self, call: &Call) -> Names {
        let args: Vec<Names> = call.args.args.iter().map(|arg| self.labels(arg)).collect();
        let text = |at: usize| match call.args.args.get(at).map(|arg| &**arg) {
            Some(Expr::StringLiteral(text)) => text.val.clone(),
            _ => String::new(),
        };
        match call.func.name {
            "vector" | "scalar" | "time" | "pi" => Names::new(),
            "absent" | "absent_over_time" => {
                let equal = |selector: &VectorSelector| -> Names {
                    let equal = matchers(selector).filter(|matcher| matches!(matcher.op, MatchOp::Equal));
                    equal.map(|matcher| matcher.name.clone()).filter(|name| name != "__name__").collect()
                };
                call.args.args.first().and_then(|arg| selector(bare(arg))).map(equal).unwrap_or_default()
            }
            "label_replace" | "label_join" => {
                let mut labels = args.into_iter().next().unwrap_or_default();
                let sources = if call.func.name == "label_replace" {
                    vec![text(3)]
                } else {
                    (3..call.args.args.len()).map(text).collect()
                };
                for source in sources.iter().filter(|source| !source.is_empty() && !labels.contains(*source)) {
                    self.faults.push(format!("{}: there is no label {source}", call.func.name));
                }
                labels.insert(text(1));
                labels
            }
            "histogram_quantile" => {
                let mut labels = args.into_iter().nth(1).unwrap_or_default();
                labels.remove("le");
                labels
            }
            "histogram_fraction" => args.into_iter().nth(2).unwrap_or_default(),
            _ => args.into_iter().find(|labels| !labels.is_empty()).unwrap_or_default(),
        }
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Names {
        let (lhs, rhs) = (self.labels(&binary.lhs), self.labels(&binary.rhs));
        let (left_scalar, right_scalar) = (is_scalar(&binary.lhs), is_scalar(&binary.rhs));
        if left_scalar || right_scalar {
            return if left_scalar { rhs } else { lhs };
        }
        let op = binary.op.to_string();
        if op == "or" {
            return lhs.union(&rhs).cloned().collect();
        }
        let modifier = binary.modifier.as_ref();
        let matching = modifier.and_then(|modifier| modifier.matching.as_ref());
        match matching {
            Some(LabelModifier::Include(on)) => {
                for label in &on.labels {
                    for (side, labels) in [("left", &lhs), ("right", &rhs)] {
                        if !labels.contains(label) {
                            self.faults.push(format!("{op} on ({label}): nothing on the {side} has it"));
                        }
                    }
                }
            }
            other => {
                let ignored: &[String] = match other {
                    Some(LabelModifier::Exclude(ignoring)) => &ignoring.labels,
                    _ => &[],
                };
                let rest = |labels: &Names| -> Names {
                    labels.iter().filter(|label| !ignored.contains(label)).cloned().collect()
                };
                let (left, right) = (rest(&lhs), rest(&rhs));
                if left != right {
                    let only: Vec<_> = left.symmetric_difference(&right).cloned().collect();
                    self.faults.push(format!("{op}: only one side has {}, so nothing matches", only.join(", ")));
                }
            }
        }
        if op == "and" || op == "unless" {
            return lhs;
        }
        let card = modifier.map(|modifier| &modifier.card);
        match card {
            Some(VectorMatchCardinality::ManyToOne(extra)) => lhs.into_iter().chain(extra.labels.clone()).collect(),
            Some(VectorMatchCardinality::OneToMany(extra)) => rhs.into_iter().chain(extra.labels.clone()).collect(),
            _ => match matching {
                Some(LabelModifier::Include(on)) => lhs.into_iter().filter(|l| on.labels.contains(l)).collect(),
                Some(LabelModifier::Exclude(ignoring)) => {
                    lhs.into_iter().filter(|l| !ignoring.labels.contains(l)).collect()
                }
                None => lhs,
            },
        }
    }
}
