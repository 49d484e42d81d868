//! Errors by policy, through the front door: answers that say 200 and are errors by a rule of the configuration, and answers
//! that are errors because they took too long.

mod common;

use std::io::Write as _;
use std::time::Duration;

use common::{Backend, Gate, Outcome, Page, Sidecar, h2c, ok, response};

const DURATION: &str = "http_server_request_duration_seconds";
const IMPLICIT: &str = "golden_implicit_errors_total";
const ERRORS: &str = "golden_errors_total";

/// The first 64 KiB are looked at.
const LOOKED_AT: usize = 64 << 10;

/// What the rules have counted, in the order of these names, over all routes.
#[track_caller]
fn counts<const N: usize>(page: &Page, rules: [&str; N]) -> [f64; N] {
    rules.map(|rule| page.sum(IMPLICIT, &[("rule", rule)]))
}

/// Whatever counts errors agrees on how many implicit ones there are.
#[track_caller]
fn agree(page: &Page, expected: f64) {
    let implicit = &[("error_type", "implicit"), ("fault", "policy")];
    assert_eq!(page.sum(IMPLICIT, &[]), expected, "{}", page.lines_of(IMPLICIT));
    assert_eq!(page.sum(ERRORS, implicit), expected, "{}", page.lines_of(ERRORS));
    assert_eq!(page.sum(ERRORS, &[("error_type", "implicit")]), expected, "of nobody else's fault");
    assert_eq!(page.count(DURATION, &[("error_type", "implicit")]), expected);
    let slo = |result| page.get("golden_slo_requests_total", &[("slo", "all"), ("result", result)]);
    if let (Some(errors), Some(excluded)) = (slo("error"), slo("excluded")) {
        // One that is a probe is an error and excluded.
        assert!(errors <= page.sum(ERRORS, &[]) && errors + excluded >= expected, "{errors} {excluded}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

/// Whether this one answer to `GET /` is an error by this one rule, and in which phase. It goes to clients of both versions
/// of HTTP, which must see it as it came.
#[track_caller]
fn is_error(rule: &str, answer: &[u8]) -> Option<String> {
    let sent = answer.to_vec();
    let backend = Backend::answering(move |_| sent.clone());
    let sidecar = Sidecar::before(&backend)
        .yaml(format!("slos: [{{name: all, objective: 0.9}}]\nimplicit_errors:\n  - {{name: it, {rule}}}\n"))
        .start();
    let direct = common::Client::to(backend.url().trim_start_matches("http://").parse().expect("an address")).get("/");
    let through = sidecar.get("/");
    assert_eq!((through.status(), &through.body.content), (direct.status(), &direct.body.content), "{rule}");
    let address = sidecar.proxy;
    let (_, body, _) = h2c::run(async move {
        let client = h2c::connect(address).await;
        h2c::exchange(&client, h2c::request("GET", "/"), None).await
    });
    assert_eq!(body, direct.body.content, "{rule}");
    let page = sidecar.settled(2);
    let [found] = counts(&page, ["it"]);
    assert!(found == 0.0 || found == 2.0, "the two versions differ: {rule}");
    agree(&page, found);
    assert_eq!(page.value("golden_slo_requests_total", &[("slo", "all"), ("result", "error")]), found);
    // Origin and status are what they were.
    let status = direct.status().to_string();
    let labels = [("http_response_status_code", &*status), ("origin", "backend"), ("traffic", "user")];
    assert_eq!(page.sum("golden_requests_total", &labels), 2.0);
    (found > 0.0)
        .then(|| page.matching(ERRORS, &[("error_type", "implicit")]).next().expect("one").labels["phase"].clone())
}

fn json(body: &str) -> Vec<u8> {
    response(200, "Content-Type: application/json\r\n", body)
}

// === what holds and what does not ===

#[test]
fn a_json_pointer_that_leads_somewhere_is_an_error() {
    let rule = "json_pointer: /errors/0";
    let body = || Some("body".to_owned());
    assert_eq!(is_error(rule, &json(r#"{"data": null, "errors": [{"message": "no"}]}"#)), body());
    assert_eq!(is_error(rule, &json(r#"{"data": {}}"#)), None);
    assert_eq!(is_error(rule, &json(r#"{"errors": []}"#)), None);
    assert_eq!(is_error(rule, &json(r#"{"errors": [null]}"#)), None);
    assert_eq!(is_error(rule, &json("<html>")), None);
    assert_eq!(is_error(rule, &ok("")), None);
    // Whatever the type is called.
    assert_eq!(is_error(rule, &ok(r#"{"errors": ["no"]}"#)), body());
}

#[test]
fn a_field_is_an_error_by_its_presence_or_its_value() {
    let wait = || Some("wait".to_owned());
    assert_eq!(is_error("header: {name: X-Error}", &response(200, "x-error: \r\n", "")), wait());
    assert_eq!(is_error("header: {name: X-Error}", &response(200, "X-Errors: 1\r\n", "")), None);
    let rule = "header: {name: x-status, value: Failed}";
    assert_eq!(is_error(rule, &response(299, "X-Status: ok\r\nX-Status:  Failed \r\n", "a")), wait());
    assert_eq!(is_error(rule, &response(200, "X-Status: failed\r\n", "a")), None);
    assert_eq!(is_error(rule, &response(200, "X-Status: Failed, ok\r\n", "a")), None);
    // Without a body too.
    assert_eq!(is_error(rule, b"HTTP/1.1 204 No Content\r\nX-Status: Failed\r\n\r\n"), wait());
    assert_eq!(is_error(rule, &response(206, "X-Status: Failed\r\n", "a")), wait());
}

#[test]
fn a_body_of_another_type_is_an_error() {
    let rule = "content_type_not: application/json";
    let typed = |media: &str, body: &str| response(200, &format!("Content-Type: {media}\r\n"), body);
    assert_eq!(is_error(rule, &typed("text/html", "<html>")), Some("wait".to_owned()));
    assert_eq!(is_error(rule, &typed("application/json2", "a")), Some("wait".to_owned()));
    assert_eq!(is_error(rule, &ok("untyped")), Some("wait".to_owned()));
    assert_eq!(is_error(rule, &typed("Application/JSON; charset=utf-8", "{}")), None);
    assert_eq!(is_error(rule, &typed("text/html", "")), None, "nothing is of no type");
    assert_eq!(is_error(rule, b"HTTP/1.1 204 No Content\r\n\r\n"), None);
    assert_eq!(is_error(rule, &response(206, "Content-Type: multipart/byteranges; boundary=a\r\n", "a")), None);
}

#[test]
fn a_text_in_the_body_is_an_error_across_chunks_too() {
    let rule = "body_contains: 'all wrong'";
    assert_eq!(is_error(rule, &ok("it is all wrong.")), Some("body".to_owned()));
    assert_eq!(is_error(rule, &ok("it is All wrong.")), None);
    let chunked = |chunks: &[&str]| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        chunks.iter().for_each(|chunk| bytes.extend(format!("{:x}\r\n{chunk}\r\n", chunk.len()).into_bytes()));
        bytes.extend(b"0\r\nX-Trailer: all wrong\r\n\r\n");
        bytes
    };
    assert_eq!(is_error(rule, &chunked(&["it is al", "l", " wr", "ong."])), Some("body".to_owned()));
    assert_eq!(is_error(rule, &chunked(&["it is all", "_", "wrong"])), None, "neither framing nor trailers count");
}

#[test]
fn a_body_of_another_length_than_a_field_tells_is_an_error() {
    let rule = "length_mismatch: X-Length";
    let told = |told: &str, body: &str| response(200, &format!("X-Length: {told}\r\n"), body);
    assert_eq!(is_error(rule, &told("12", "twelve bytes")), None);
    assert_eq!(is_error(rule, &told("13", "twelve bytes")), Some("body".to_owned()));
    assert_eq!(is_error(rule, &told("1", "")), Some("body".to_owned()));
    assert_eq!(is_error(rule, &told("many", "twelve bytes")), None);
    assert_eq!(is_error(rule, &ok("twelve bytes")), None, "nothing was told");
    assert_eq!(is_error(rule, &told("0", &"x".repeat(3 * LOOKED_AT))), Some("body".to_owned()));
    assert_eq!(is_error(rule, &told(&(3 * LOOKED_AT).to_string(), &"x".repeat(3 * LOOKED_AT))), None);
    let chunked =
        b"HTTP/1.1 200 OK\r\nX-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n";
    assert_eq!(is_error(rule, chunked), None, "framing does not count");
}

#[test]
fn a_body_is_looked_into_up_to_64_kib() {
    let text = |before: usize| ok(format!("{}WRONG", "x".repeat(before)));
    assert_eq!(is_error("body_contains: WRONG", &text(LOOKED_AT - 5)), Some("body".to_owned()));
    assert_eq!(is_error("body_contains: WRONG", &text(LOOKED_AT - 4)), None);
    // The beginning of a value is enough to know that there is one.
    let document = |before: usize| json(&format!(r#"{{"a": "{}", "errors": [{{"m": 1}}]}}"#, "x".repeat(before)));
    let until_the_value = r#"{"a": "", "errors": [{"#.len();
    let rule = "json_pointer: /errors/0";
    assert_eq!(is_error(rule, &document(LOOKED_AT - until_the_value)), Some("body".to_owned()));
    assert_eq!(is_error(rule, &document(LOOKED_AT - until_the_value + 1)), None);
    assert_eq!(is_error(rule, &document(5 << 20)), None);
}

#[test]
fn gzip_is_undone_and_other_codings_are_not_judged() {
    let coded = |coding: &str, body: &[u8]| response(200, &format!("Content-Encoding: {coding}\r\n"), body);
    let wrong = format!(r#"{{"errors": ["no"], "padding": "{}"}}"#, "x".repeat(10 * LOOKED_AT));
    for rule in ["json_pointer: /errors/0", "body_contains: errors"] {
        assert_eq!(is_error(rule, &coded("gzip", &gzip(wrong.as_bytes()))), Some("body".to_owned()), "{rule}");
        assert_eq!(is_error(rule, &coded("gzip", &gzip(b"{\"data\": 1}"))), None, "{rule}");
        assert_eq!(is_error(rule, &coded("gzip", wrong.as_bytes())), None, "it is not what it says: {rule}");
        assert_eq!(is_error(rule, &coded("br", b"{\"errors\": [1]}")), None, "{rule}");
        assert_eq!(is_error(rule, &coded("identity", b"{\"errors\": [1]}")), Some("body".to_owned()), "{rule}");
    }
    // The bound is one of what comes out.
    let text = |before: usize| coded("gzip", &gzip(format!("{}WRONG", "x".repeat(before)).as_bytes()));
    assert_eq!(is_error("body_contains: WRONG", &text(LOOKED_AT - 5)), Some("body".to_owned()));
    assert_eq!(is_error("body_contains: WRONG", &text(LOOKED_AT - 4)), None);
    // A length is that of what was sent.
    let body = gzip(b"a long text, a long text, a long text");
    let told = response(200, &format!("Content-Encoding: gzip\r\nX-Length: {}\r\n", body.len()), &body);
    assert_eq!(is_error("length_mismatch: X-Length", &told), None);
}

// === what can be judged ===

#[test]
fn only_a_whole_2xx_of_the_backend_is_judged() {
    let backend = Backend::of_all_ends();
    let sidecar = Sidecar::before(&backend)
        .yaml(
            "slos: [{name: all, objective: 0.9}]\n\
             implicit_errors: [{name: any, header: {name: Content-Length}}, {name: typed, content_type_not: a/b}]\n\
             limits: {request_line_bytes: 100B}\nprobes: {paths: [/healthz]}\n",
        )
        .start();
    for path in ["/missing", "/error", "/cut", "/events", "/healthz", "/fine"] {
        sidecar.get(path);
    }
    assert_eq!(sidecar.get(&format!("/{}", "x".repeat(100))).status(), 414);
    let mut client = sidecar.client();
    client.send("GET /chat HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.read_head().status(), 101);
    drop(client);
    let page = sidecar.settled(8);
    assert_eq!(counts(&page, ["any", "typed"]), [2.0, 0.0], "a probe and an ordinary request");
    agree(&page, 2.0);
    let errors = |error_type| page.sum(ERRORS, &[("error_type", error_type)]);
    assert_eq!((errors("500"), errors("reset_after_head"), errors("header_limit")), (1.0, 1.0, 1.0));
    assert_eq!(page.sum(ERRORS, &[]), 5.0, "each is one error");
    let slo = ["good", "slow", "error", "excluded"]
        .map(|result| page.value("golden_slo_requests_total", &[("slo", "all"), ("result", result)]));
    assert_eq!(
        slo,
        [2.0, 0.0, 3.0, 3.0],
        "404 and 414; 500, the cut one and the implicit one; the probe, the stream, the tunnel"
    );
}

#[test]
fn an_answer_to_head_is_judged_by_its_fields_alone() {
    let backend =
        Backend::answering(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Length: 5\r\nX-Error: 1\r\n\r\n".to_vec());
    let sidecar = Sidecar::before(&backend)
        .yaml(
            "implicit_errors:\n  - {name: length, length_mismatch: X-Length}\n  - {name: typed, content_type_not: a/b}\n  \
             - {name: text, body_contains: a}\n  - {name: field, header: {name: X-Error}}\n",
        )
        .start();
    assert_eq!(sidecar.client().exchange("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").status(), 200);
    let address = sidecar.proxy;
    h2c::run(async move {
        let client = h2c::connect(address).await;
        h2c::exchange(&client, h2c::request("HEAD", "/"), None).await;
    });
    let page = sidecar.settled(2);
    assert_eq!(counts(&page, ["length", "typed", "text", "field"]), [0.0, 0.0, 0.0, 2.0]);
    agree(&page, 2.0);
}

#[test]
fn a_client_that_leaves_is_no_implicit_error() {
    let gate = Gate::new();
    let door = gate.clone();
    let backend = Backend::start(move |peer| {
        while peer.read_request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nX-Error: 1\r\nContent-Length: 10\r\n\r\nWRONG");
            door.wait();
            peer.send("WRONG");
        }
    });
    let rules = "implicit_errors: [{name: text, body_contains: WRONG}, {name: field, header: {name: X-Error}}]\n";
    let sidecar = Sidecar::before(&backend).yaml(rules).start();
    let mut client = sidecar.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    client.read_head();
    drop(client);
    let address = sidecar.proxy;
    h2c::run(async move {
        let client = h2c::connect(address).await;
        let (answer, mut stream) = h2c::send(&client, h2c::request("GET", "/"), true).await;
        let _head = answer.await.expect("a head");
        stream.send_reset(h2::Reason::CANCEL);
    });
    let page = sidecar.settled(2);
    gate.open();
    agree(&page, 0.0);
    assert_eq!(page.sum("golden_client_aborts_total", &[("phase", "during_body")]), 2.0);
}

#[test]
fn a_body_is_handed_on_before_it_is_whole() {
    let gate = Gate::new();
    let door = gate.clone();
    let backend = Backend::start(move |peer| {
        while peer.read_request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nWRONG");
            door.wait();
            peer.send("WRONG");
        }
    });
    let sidecar = Sidecar::before(&backend).yaml("implicit_errors: [{name: text, body_contains: WRONG}]\n").start();
    let mut client = sidecar.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.read_head();
    assert_eq!(client.peek_for(Duration::from_millis(200)), b"WRONG", "half of it is here while the rest is not there");
    gate.open();
    assert_eq!(client.read_body("GET", head).body.content, b"WRONGWRONG");
    agree(&sidecar.settled(1), 1.0);
}

// === which rule, which route ===

#[test]
fn the_first_rule_that_holds_counts_and_others_do_not() {
    let backend = Backend::answering(|request| match request.head.target() {
        "/both" => response(200, "X-Error: 1\r\n", "WRONG"),
        "/field" => response(200, "X-Error: 1\r\n", "right"),
        "/text" => ok("WRONG"),
        _ => ok("right"),
    });
    let sidecar = Sidecar::before(&backend)
        .yaml(
            "implicit_errors:\n  - {name: text, body_contains: WRONG}\n  - {name: field, header: {name: X-Error}}\n  \
             - {name: late, content_type_not: a/b}\n",
        )
        .start();
    let expect = |path: &str, sent: usize, expected: [f64; 3]| {
        sidecar.get(path);
        assert_eq!(counts(&sidecar.settled(sent), ["text", "field", "late"]), expected, "{path}");
    };
    expect("/both", 1, [1.0, 0.0, 0.0]);
    expect("/field", 2, [1.0, 1.0, 0.0]);
    expect("/text", 3, [2.0, 1.0, 0.0]);
    expect("/", 4, [2.0, 1.0, 1.0]);
    agree(&sidecar.scrape(), 4.0);
}

#[test]
fn a_rule_holds_for_its_routes_declared_or_learned_and_is_there_at_zero() {
    let backend = Backend::answering(|request| match request.head.target() {
        "/nothing" => response(404, "", "WRONG"),
        _ => ok("WRONG"),
    });
    let sidecar = Sidecar::before(&backend)
        .workers(2)
        .learning()
        .yaml(
            "routes: [{path: '/declared/{id}'}, {path: /plain}]\nimplicit_errors:\n  \
             - {name: some, routes: ['/declared/{id}', '/users/{id}'], body_contains: WRONG}\n  \
             - {name: all, header: {name: X-Error}}\n",
        )
        .start();
    let page = sidecar.scrape();
    let zeros: Vec<_> =
        page.matching(IMPLICIT, &[]).map(|s| (&*s.labels["http_route"], &*s.labels["rule"], s.value)).collect();
    assert_eq!(zeros, [("/declared/{id}", "some", 0.0), ("/declared/{id}", "all", 0.0), ("/plain", "all", 0.0)]);
    for path in ["/declared/1", "/plain", "/users/77", "/users/78", "/other", "/nothing"] {
        sidecar.get(path);
    }
    let page = sidecar.settled(6);
    let of = |route| page.value(IMPLICIT, &[("http_route", route), ("rule", "some")]);
    assert_eq!((of("/declared/{id}"), of("/users/{id}")), (1.0, 2.0), "the first answer of a learned route, too");
    agree(&page, 3.0);
    assert_eq!(
        page.value("golden_metric_series", &[("family", IMPLICIT)]),
        page.matching(IMPLICIT, &[]).count() as f64
    );
}

#[test]
fn at_the_series_cap_only_the_route_folds() {
    let backend = Backend::always("WRONG");
    let sidecar = Sidecar::before(&backend)
        .yaml("routes: [{path: /a}, {path: /b}, {path: /c}]\nlimits: {series: 2}\nimplicit_errors: [{name: r, body_contains: WRONG}]\n")
        .start();
    for path in ["/a", "/b", "/c", "/c"] {
        sidecar.get(path);
    }
    let page = sidecar.settled(4);
    agree(&page, 4.0);
    let of = |route| page.get(IMPLICIT, &[("http_route", route), ("rule", "r")]);
    assert_eq!((of("/a"), of("/b"), of("/c"), of("_other")), (Some(1.0), Some(1.0), None, Some(2.0)));
}

#[test]
fn a_reload_takes_the_rules_over_and_loses_no_count() {
    let backend = Backend::always("WRONG right");
    let sidecar = Sidecar::before(&backend)
        .workers(2)
        .yaml("implicit_errors: [{name: kept, body_contains: WRONG}, {name: gone, body_contains: right}]\n")
        .start();
    // One connection, so that one worker sees every list of rules.
    let mut client = sidecar.client();
    client.get("/");
    let page = sidecar.settled(1);
    assert_eq!(counts(&page, ["kept", "gone"]), [1.0, 0.0]);
    let reload = |yaml: &str| {
        let reloads = |page: &Page| page.sum("golden_config_reloads_total", &[("result", "success")]);
        let before = reloads(&sidecar.scrape());
        sidecar.rewrite(yaml);
        sidecar.signal(libc::SIGHUP);
        sidecar.page_when("the reload is counted", |page| reloads(page) == before + 1.0);
    };
    reload("implicit_errors: [{name: new, body_contains: right}, {name: kept, body_contains: WRONG}]\n");
    client.get("/");
    let page = sidecar.settled(2);
    assert_eq!(counts(&page, ["kept", "gone", "new"]), [1.0, 0.0, 1.0]);
    reload("");
    client.get("/");
    let page = sidecar.settled(3);
    assert_eq!(counts(&page, ["kept", "gone", "new"]), [1.0, 0.0, 1.0]);
    reload("implicit_errors: [{name: kept, body_contains: WRONG}]\n");
    client.get("/");
    let page = sidecar.settled(4);
    assert_eq!(counts(&page, ["kept", "gone", "new"]), [2.0, 0.0, 1.0], "it goes on where it was");
    agree(&page, 3.0);
}

#[test]
fn every_count_equals_what_was_sent() {
    let backend = Backend::answering(|request| match request.head.target() {
        "/graphql?bad" => json(r#"{"errors": [{}]}"#),
        "/graphql?404" => response(404, "", r#"{"errors": [{}]}"#),
        "/graphql?500" => response(500, "", r#"{"errors": [{}]}"#),
        _ => json(r#"{"data": 1}"#),
    });
    let sidecar = Sidecar::before(&backend)
        .workers(2)
        .yaml("routes: [{path: /graphql}]\nimplicit_errors: [{name: graphql, routes: [/graphql], json_pointer: /errors/0}]\n")
        .start();
    let mut outcomes = Vec::new();
    let plan = [
        ("good", "200", None, 7),
        ("bad", "200", Some(("implicit", "policy", "body")), 5),
        ("404", "404", None, 3),
        ("500", "500", Some(("500", "backend", "wait")), 2),
    ];
    for (query, status, error, times) in plan {
        for _ in 0..times {
            assert_eq!(sidecar.get(&format!("/graphql?{query}")).status().to_string(), status);
            outcomes.push(Outcome { route: "/graphql", error, ..Outcome::backend("GET", status) });
        }
    }
    let page = sidecar.expect(&outcomes);
    agree(&page, 5.0);
}

// === too slow ===

/// A request that takes long enough to be slow: its body keeps everybody waiting.
fn slow(sidecar: &Sidecar, path: &str) -> u16 {
    let mut client = sidecar.client();
    client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n"));
    assert!(client.peek_for(Duration::from_millis(20)).is_empty());
    client.send("x").read_response("POST").status()
}

#[test]
fn what_is_too_slow_is_an_error_where_that_was_asked_for() {
    let backend = Backend::answering(|request| match request.head.target() {
        "/asked/missing" => response(404, "", ""),
        "/asked/broken" => response(500, "", ""),
        _ => ok("at last"),
    });
    let sidecar = Sidecar::before(&backend)
        .yaml(
            "routes: [{path: '/asked/{x}'}, {path: /unasked}]\nprobes: {paths: [/asked/probe]}\nslos:\n  \
             - {name: unasked, objective: 0.9, latency: 1ms}\n  \
             - {name: asked, routes: ['/asked/{x}'], objective: 0.9, latency: 1ms, too_slow_is_error: true}\n  \
             - {name: patient, objective: 0.9, latency: 60m, too_slow_is_error: true}\n  \
             - {name: again, routes: ['/asked/{x}'], objective: 0.9, latency: 2ms, too_slow_is_error: true}\n",
        )
        .start();
    for path in ["/asked/a", "/asked/missing", "/asked/broken", "/asked/probe", "/unasked"] {
        slow(&sidecar, path);
    }
    let page = sidecar.settled(5);
    let labels = [("error_type", "too_slow"), ("fault", "policy"), ("phase", "body")];
    assert_eq!(page.value(ERRORS, &[&[("http_route", "/asked/{x}")], &labels[..]].concat()), 2.0, "once each");
    assert_eq!(page.sum(ERRORS, &[]), 3.0, "and the one that is broken anyway\n{}", page.lines_of(ERRORS));
    assert_eq!(page.count(DURATION, &[("error_type", "too_slow")]), 2.0);
    assert_eq!(page.count(DURATION, &[("error_type", "too_slow"), ("http_response_status_code", "404")]), 1.0);
    assert_eq!(page.sum("golden_requests_total", &[("origin", "backend")]), 5.0);
    let slo = |slo| {
        ["good", "slow", "error", "excluded"]
            .map(|result| page.value("golden_slo_requests_total", &[("slo", slo), ("result", result)]))
    };
    assert_eq!(slo("unasked"), [0.0, 3.0, 1.0, 1.0]);
    assert_eq!(slo("asked"), [0.0, 2.0, 1.0, 1.0]);
    assert_eq!(slo("again"), slo("asked"));
    assert_eq!(slo("patient"), [3.0, 0.0, 1.0, 1.0]);
}

#[test]
fn an_implicit_error_is_not_too_slow_as_well() {
    let backend = Backend::always("WRONG");
    let sidecar = Sidecar::before(&backend)
        .yaml(
            "slos: [{name: all, objective: 0.9, latency: 1ms, too_slow_is_error: true}]\n\
             implicit_errors: [{name: text, body_contains: WRONG}]\n",
        )
        .start();
    slow(&sidecar, "/");
    let page = sidecar.settled(1);
    agree(&page, 1.0);
    assert_eq!(
        (page.sum(ERRORS, &[]), page.value("golden_slo_requests_total", &[("slo", "all"), ("result", "error")])),
        (1.0, 1.0)
    );
}
