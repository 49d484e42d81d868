//! `golden-sidecar routes`: the question for a running sidecar, and its answer as a person reads it. Pure.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::config::Question;

/// What would end a value in a query, or a request line.
const VALUE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'<').add(b'>').add(b'\\');

/// Columns that a route may take before the others move to the right.
const ROUTE_COLUMNS_MAX: usize = 60;

/// The request target that asks it.
#[must_use]
pub fn target(question: &Question) -> String {
    match question {
        Question::List => "/api/v1/routes".to_owned(),
        Question::Explain { path, method } => {
            let path = utf8_percent_encode(path, VALUE);
            format!("/api/v1/routes?path={path}&method={}", utf8_percent_encode(method, VALUE))
        }
    }
}

/// The answer as text.
///
/// # Errors
/// When it is not the JSON that a sidecar gives.
pub fn report(question: &Question, answer: &str) -> Result<String, serde_json::Error> {
    let answer: Value = serde_json::from_str(answer)?;
    Ok(match question {
        Question::List => list(&answer),
        Question::Explain { .. } => explanation(&answer),
    })
}

fn list(answer: &Value) -> String {
    let empty = Vec::new();
    let mut routes: Vec<&Value> = answer["routes"].as_array().unwrap_or(&empty).iter().collect();
    // Whatever takes most requests is what one looks for first.
    routes.sort_by_key(|route| std::cmp::Reverse(route["requests"].as_u64()));
    let columns = routes.iter().map(|route| text(&route["route"]).chars().count()).max().unwrap_or(0);
    let columns = columns.clamp("ROUTE".len(), ROUTE_COLUMNS_MAX);
    let mut out = format!("{:columns$}  {:8}  {:>12}\n", "ROUTE", "SOURCE", "REQUESTS");
    for route in routes {
        let source = match &route["source"] {
            Value::String(source) => source,
            _ => "-",
        };
        let line =
            format!("{:columns$}  {source:8}  {:>12}  {}", text(&route["route"]), route["requests"], remark(route));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push('\n');
    out.push_str(&match (answer["learning"].as_bool(), answer["full"].as_bool()) {
        (Some(false), _) => "Nothing is learned (learn.enabled: false).\n".to_owned(),
        (_, Some(true)) => {
            "The limit of routes is reached (learn.limit): what would have a label falls under _other.\n".to_owned()
        }
        _ => format!("{} words wait for more evidence; {} places have folded.\n", answer["pending"], answer["folds"]),
    });
    out
}

/// What is peculiar about a route.
fn remark(route: &Value) -> String {
    match text(&route["route"]) {
        "_unmatched" => return "404, 405, no answer, or not learned yet".to_owned(),
        "_other" => return "beyond a limit".to_owned(),
        _ => {}
    }
    if let Some(into) = route["folded_into"].as_str() {
        return format!("folded into {into}; counts no more");
    }
    let why = text(&route["why"]);
    let examples: Vec<&str> = route["examples"].as_array().into_iter().flatten().map(text).collect();
    if examples.is_empty() { why.to_owned() } else { format!("{why}; such as {}", examples.join(", ")) }
}

fn explanation(answer: &Value) -> String {
    let mut out = format!("{} {}\n", text(&answer["method"]), text(&answer["path"]));
    let source = answer["source"].as_str().map(|source| format!(" ({source})")).unwrap_or_default();
    let requests = answer["requests"].as_u64().unwrap_or(0);
    let plural = if requests == 1 { "" } else { "s" };
    out.push_str(&format!(
        "falls under {}{source}, which has had {requests} request{plural}:\n",
        text(&answer["route"])
    ));
    out.push_str(&format!("{}.\n", text(&answer["why"])));
    let segments = answer["segments"].as_array().map(Vec::as_slice).unwrap_or_default();
    let columns = |key: &str| segments.iter().map(|segment| text(&segment[key]).chars().count()).max().unwrap_or(0);
    let (texts, parts) = (columns("text"), columns("part"));
    for segment in segments {
        let (text, part, why) = (text(&segment["text"]), text(&segment["part"]), text(&segment["why"]));
        out.push_str(&format!("  /{text:texts$}  {part:parts$}  {why}\n"));
    }
    out
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_the_question() {
        let question = Question::Explain { path: "/a b/c%20d?x&y=1+2#z/é".to_owned(), method: "GET".to_owned() };
        assert_eq!(target(&question), "/api/v1/routes?path=/a%20b/c%2520d?x%26y=1%2B2%23z/%C3%A9&method=GET");
    }

    #[test]
    fn an_answer_of_somebody_else_is_an_error_or_an_empty_list() {
        assert!(report(&Question::List, "<html>").is_err());
        assert!(report(&Question::List, "{}").is_ok_and(|text| text.starts_with("ROUTE")));
    }
}
