//! `golden-sidecar routes`: the question for a running sidecar, and its answer as a person reads it. Pure.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::config::Question;

/// What would end a value in a query, or a request line.
const VALUE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'<').add(b'>').add(b'\\');

/// Columns that a text may take beside others: with source and requests, and a few words behind, that fills a screen.
const COLUMNS_MAX: usize = 60;

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

/// A text without anything that a terminal obeys: what cannot be seen is escaped, such as `\u{1b}`. Whoever answers may
/// not be a sidecar, and a sidecar tells what clients sent.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Visible, though Rust escapes them.
            '"' | '\'' | '\\' => seen.push(c),
            // Covers what reorders or hides text as well as control characters.
            _ => seen.extend(c.escape_debug()),
        }
    }
    seen
}

fn list(answer: &Value) -> String {
    let mut routes: Vec<&Value> = answer["routes"].as_array().into_iter().flatten().collect();
    // Whatever takes most requests is what one looks for first.
    routes.sort_by_key(|route| std::cmp::Reverse(route["requests"].as_u64()));
    let rows: Vec<[String; 4]> = routes
        .into_iter()
        .map(|route| {
            let source = route["source"].as_str().map_or_else(|| "-".to_owned(), visible);
            let requests = route["requests"].as_u64().map_or_else(|| "-".to_owned(), |requests| requests.to_string());
            [text(&route["route"]), source, requests, remark(route)]
        })
        .collect();
    let columns = width(rows.iter().map(|[route, ..]| route.as_str()).chain(["ROUTE"]));
    let mut out = String::new();
    let header = ["ROUTE", "SOURCE", "REQUESTS", ""].map(str::to_owned);
    for [route, source, requests, remark] in std::iter::once(header).chain(rows) {
        let line = format!("{route:columns$}  {source:8}  {requests:>12}  {remark}");
        // What is wider than its column has a line to itself, so that the other columns stay in theirs.
        let line = match route.chars().count() > columns {
            true => format!("{route}\n{:columns$}  {source:8}  {requests:>12}  {remark}", ""),
            false => line,
        };
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push('\n');
    out.push_str(&match (answer["learning"].as_bool(), answer["full"].as_bool()) {
        (Some(false), _) => "Nothing is learned (learn.enabled: false).\n".to_owned(),
        (_, Some(true)) => {
            "The limit of routes is reached (learn.limit): what would have a label falls under _other.\n".to_owned()
        }
        _ => {
            let pending = match answer["pending"].as_u64().unwrap_or(0) {
                1 => "1 word waits".to_owned(),
                words => format!("{words} words wait"),
            };
            let folds = match answer["folds"].as_u64().unwrap_or(0) {
                1 => "1 place has".to_owned(),
                places => format!("{places} places have"),
            };
            format!("{pending} for more evidence; {folds} folded.\n")
        }
    });
    out
}

/// What is peculiar about a route.
fn remark(route: &Value) -> String {
    match text(&route["route"]).as_str() {
        "_unmatched" => return "404, 405, no answer, or not learned yet".to_owned(),
        "_other" => return "beyond a limit".to_owned(),
        _ => {}
    }
    if route["counts_under"].is_string() {
        return format!("the limit was reached; counts under {}", text(&route["counts_under"]));
    }
    if route["folded_into"].is_string() {
        return format!("folded into {}; counts no more", text(&route["folded_into"]));
    }
    let why = text(&route["why"]);
    let examples: Vec<String> = route["examples"].as_array().into_iter().flatten().map(text).collect();
    if examples.is_empty() { why } else { format!("{why}; such as {}", examples.join(", ")) }
}

fn explanation(answer: &Value) -> String {
    let mut out = format!("{} {}\n", text(&answer["method"]), text(&answer["path"]));
    let source = match &answer["source"] {
        Value::String(source) => format!(" ({})", visible(source)),
        _ => String::new(),
    };
    let requests = answer["requests"].as_u64().unwrap_or(0);
    let plural = if requests == 1 { "" } else { "s" };
    out.push_str(&format!(
        "falls under {}{source}, which has had {requests} request{plural}:\n",
        text(&answer["route"])
    ));
    out.push_str(&format!("{}.\n", text(&answer["why"])));
    let rows: Vec<[String; 3]> = answer["segments"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|segment| ["text", "part", "why"].map(|key| text(&segment[key])))
        .collect();
    let texts = width(rows.iter().map(|[text, ..]| text.as_str()));
    let parts = width(rows.iter().map(|[_, part, _]| part.as_str()));
    for [text, part, why] in &rows {
        out.push_str(&format!("  /{text:texts$}  {part:parts$}  {why}\n"));
    }
    out
}

/// Columns that these texts take; what is wider than a column may be does not count.
fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).filter(|columns| *columns <= COLUMNS_MAX).max().unwrap_or(0)
}

/// The text of a value, safe to print.
fn text(value: &Value) -> String {
    visible(value.as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

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

    #[test]
    fn columns_line_up_and_a_long_route_has_a_line_to_itself() {
        let long = format!("/{}", "a-long-word/".repeat(6));
        let answer = json!({
            "routes": [
                {"route": "/users/{id}", "source": "learned", "requests": 7, "why": "{id}: values by their look",
                    "examples": []},
                {"route": long, "source": "declared", "requests": 123_456, "why": null},
                {"route": "/pets", "source": "openapi", "requests": 0, "counts_under": "_other"},
                {"route": "/old", "source": "learned", "requests": 3, "folded_into": "/{name}"},
                {"route": "_unmatched", "source": null, "requests": 1},
            ],
            "pending": 1, "folds": 1, "full": false, "learning": true,
        });
        let expected = format!(
            "ROUTE        SOURCE        REQUESTS\n\
             {long}\n\
             \u{20}            declared        123456\n\
             /users/{{id}}  learned              7  {{id}}: values by their look\n\
             /old         learned              3  folded into /{{name}}; counts no more\n\
             _unmatched   -                    1  404, 405, no answer, or not learned yet\n\
             /pets        openapi              0  the limit was reached; counts under _other\n\
             \n\
             1 word waits for more evidence; 1 place has folded.\n"
        );
        assert_eq!(report(&Question::List, &answer.to_string()).unwrap(), expected);
        let end = |pending, folds| {
            let answer = json!({"pending": pending, "folds": folds, "learning": true, "full": false});
            report(&Question::List, &answer.to_string()).unwrap().lines().last().unwrap().to_owned()
        };
        assert_eq!(end(0, 2), "0 words wait for more evidence; 2 places have folded.");
    }

    /// Whether a terminal would show nothing but these characters, in this order.
    fn is_plain(text: &str) -> bool {
        let hides = ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{2069}'];
        text.chars().all(|c| c == '\n' || (!c.is_control() && hides.iter().all(|range| !range.contains(&c))))
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let evil = "/\u{1b}[31mred\u{9b}2J\u{7}\r\n\u{202e}\u{7f}\u{0}\"\\é日";
        assert_eq!(visible(evil), "/\\u{1b}[31mred\\u{9b}2J\\u{7}\\r\\n\\u{202e}\\u{7f}\\0\"\\é日");
        let route = json!({"route": evil, "source": evil, "requests": evil, "why": evil, "examples": [evil, evil],
            "folded_into": null});
        let folded = json!({"route": "/a", "source": "learned", "requests": 1, "folded_into": evil});
        let other = json!({"route": "/b", "source": "openapi", "requests": 1, "counts_under": evil});
        let list = json!({"routes": [route, folded, other], "pending": evil, "folds": evil});
        let segment = json!({"text": evil, "part": evil, "why": evil});
        let explained = json!({"path": evil, "method": evil, "route": evil, "source": evil, "requests": evil,
            "why": evil, "segments": [segment]});
        let question = Question::Explain { path: String::new(), method: String::new() };
        for (question, answer) in [(&Question::List, list), (&question, explained)] {
            let text = report(question, &answer.to_string()).unwrap();
            assert!(is_plain(&text) && text.contains("\\u{1b}[31m"), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_printed_plainly_or_refused(
            texts in prop::collection::vec(any::<String>(), 6),
            body in ".{0,60}",
        ) {
            let [route, source, why, example, folds, part] = texts.as_slice() else { unreachable!() };
            let routes = json!([{"route": route, "source": source, "requests": 3, "why": why, "examples": [example, 5]},
                part, {"route": {"a": part}}]);
            let answer = json!({"routes": routes, "folds": folds, "segments": [{"text": part}, why], "path": route});
            let explain = Question::Explain { path: String::new(), method: String::new() };
            for question in [&Question::List, &explain] {
                prop_assert!(is_plain(&report(question, &answer.to_string()).unwrap()));
                match report(question, &body) {
                    Ok(text) => prop_assert!(is_plain(&text)),
                    Err(error) => prop_assert!(is_plain(&visible(&error.to_string()))),
                }
            }
        }
    }
}
