//! What is learned from which requests.

use std::cell::RefCell;

use proptest::prelude::*;

use super::path::parse;
use super::state::LONGEST_STATE;
use super::*;

/// A learner, and the registry of labels beside it.
struct School {
    learned: Learned,
    labels: RefCell<Vec<String>>,
}

impl School {
    fn new(limit: usize) -> School {
        School { learned: Learned::new(limit), labels: RefCell::default() }
    }

    fn give(&self, template: &str) -> Option<RouteId> {
        let mut labels = self.labels.borrow_mut();
        labels.push(template.to_owned());
        u16::try_from(labels.len() + 1).ok().map(RouteId)
    }

    fn label(&self, id: RouteId) -> String {
        self.labels.borrow()[id.index() - 2].clone()
    }

    /// One request with an answer: what it was counted under.
    fn request(&self, path: impl AsRef<[u8]>) -> String {
        let path = path.as_ref();
        let verdict = match self.learned.find(path) {
            Some(id) => Verdict::Label(id),
            None => self.learned.learn(path, &|template| self.give(template)),
        };
        match verdict {
            Verdict::Label(id) => self.label(id),
            Verdict::Wait => "_unmatched".to_owned(),
            Verdict::Full => "_other".to_owned(),
        }
    }

    fn found(&self, path: &str) -> Option<String> {
        self.learned.find(path.as_bytes()).map(|id| self.label(id))
    }
}

/// A name nobody has had before.
fn name(number: usize) -> String {
    const SYLLABLES: [&str; 16] =
        ["ka", "lo", "mi", "ter", "ra", "su", "ben", "di", "fo", "gar", "hel", "jo", "na", "pe", "vi", "wen"];
    (0..4).map(|at| SYLLABLES[(number >> (4 * at)) % 16]).collect()
}

#[test]
fn values_by_their_look_fall_under_a_parameter_at_once() {
    let school = School::new(100);
    assert_eq!(school.request("/users/7"), "/users/{id}");
    assert_eq!(school.request("/users/8/"), "/users/{id}");
    assert_eq!(school.request("/users/9?page=2"), "/users/{id}");
    assert_eq!(school.request("/users/123e4567-e89b-12d3-a456-426614174000"), "/users/{id}");
    assert_eq!(school.request("/"), "/");
    assert_eq!(school.request(""), "_unmatched");
    assert_eq!(school.request("*"), "_unmatched");
    assert_eq!(school.labels.borrow().len(), 2);
}

#[test]
fn words_of_the_interface_are_labels_at_first_sight_where_interfaces_go_on() {
    let school = School::new(100);
    for path in ["/health", "/v1/orders", "/api/api.users.list", "/api/v2beta1/orders", "/orders/search", "/users/me"] {
        assert_eq!(school.request(path), path);
    }
    assert_eq!(school.request("/orders/5/cancel"), "/orders/{id}/cancel");
}

#[test]
fn a_word_below_a_collection_has_to_come_three_times() {
    let school = School::new(100);
    assert_eq!(school.request("/reports/quarterly"), "_unmatched");
    assert_eq!(school.learned.pending(), 1);
    assert_eq!(school.request("/reports/quarterly"), "_unmatched");
    assert_eq!(school.request("/reports/quarterly"), "/reports/quarterly");
    assert_eq!(school.learned.pending(), 0);
}

#[test]
fn a_popular_name_folds_with_the_others_where_it_goes_on_as_they_do() {
    let school = School::new(100);
    for _ in 0..5 {
        school.request("/authors/barbara/books");
        school.request("/authors/archive/years");
    }
    assert_eq!(school.request("/authors/barbara/books"), "/authors/barbara/books");
    for number in 0..20 {
        school.request(format!("/authors/{}/books", name(number)));
    }
    assert_eq!(school.request("/authors/barbara/books"), "/authors/{name}/books");
    assert_eq!(school.request("/authors/archive/years"), "/authors/archive/years");
}

#[test]
fn a_number_near_the_root_is_a_version_until_a_second_one_comes() {
    let school = School::new(100);
    for _ in 0..5 {
        assert_eq!(school.request("/1.0/boards"), "/1.0/boards");
    }
    assert_eq!(school.request("/2.0/boards"), "/2.0/boards");
    let other = School::new(100);
    assert_eq!(other.request("/1"), "/1");
    assert_eq!(other.request("/2"), "/{id}");
    assert_eq!(other.request("/3"), "/{id}");
}

#[test]
fn names_fold_and_what_came_often_stays() {
    let school = School::new(100);
    for _ in 0..8 {
        school.request("/users/dashboard");
    }
    for number in 0..40 {
        school.request(format!("/users/{}/repos", name(number)));
    }
    assert_eq!(school.request("/users/somebody/repos"), "/users/{name}/repos");
    assert_eq!(school.request("/users/dashboard"), "/users/dashboard");
    assert_eq!(school.learned.folded(), 1);
    assert_eq!(*school.labels.borrow(), ["/users/dashboard", "/users/{name}/repos"]);
}

#[test]
fn two_names_in_a_row_fold_both() {
    let school = School::new(100);
    for number in 0..80 {
        school.request(format!("/repos/{}/{}/issues", name(number), name(1000 + number)));
    }
    assert_eq!(school.request("/repos/somebody/something/issues"), "/repos/{name}/{name}/issues");
    assert_eq!(school.request("/repos/somebody/something/issues/5"), "/repos/{name}/{name}/issues/{id}");
}

#[test]
fn a_label_given_before_a_fold_keeps_its_index_and_gets_no_more_requests() {
    let school = School::new(100);
    assert_eq!(school.request("/blue-heron"), "/blue-heron");
    let id = school.learned.find(b"/blue-heron").unwrap();
    for number in 0..200 {
        school.request(format!("/{}", name(number)));
    }
    assert_eq!(school.found("/blue-heron").as_deref(), Some("/{name}"));
    let list = school.learned.list();
    let old = list.iter().find(|route| route.template == "/blue-heron").unwrap();
    assert_eq!((old.id, old.retired.as_deref()), (id, Some("/{name}")));
    let new = list.iter().find(|route| route.template == "/{name}").unwrap();
    assert!(new.retired.is_none() && new.why.contains("siblings folded below /"), "{}", new.why);
    assert_eq!(new.examples.len(), MOST_EXAMPLES);
    assert_eq!(list.len(), school.labels.borrow().len());
}

#[test]
fn a_part_of_the_interface_that_comes_late_is_no_name() {
    let school = School::new(100);
    for number in 0..100 {
        school.request(format!("/api/{}/members", name(number)));
    }
    assert_eq!(school.request("/api/anybody/members"), "/api/{name}/members");
    for _ in 0..3 {
        school.request("/api/sites/17");
    }
    assert_eq!(school.request("/api/sites/18"), "/api/sites/{id}");
    // But another way on after names is just that.
    school.request("/api/first/billing");
    assert_eq!(school.request("/api/second/billing"), "/api/{name}/billing");
}

#[test]
fn the_limit_ends_the_learning_and_a_higher_one_goes_on() {
    let school = School::new(2);
    assert_eq!(school.request("/a"), "/a");
    assert!(!school.learned.is_full());
    assert_eq!(school.request("/b"), "/b");
    assert!(school.learned.is_full());
    assert_eq!(school.request("/c"), "_other");
    assert_eq!(school.request("/a"), "/a");
    school.learned.set_limit(3);
    assert_eq!(school.request("/c"), "/c");
    school.learned.set_limit(1);
    assert_eq!(school.request("/c"), "/c");
    assert_eq!(school.request("/d"), "_other");
    assert_eq!(School::new(0).request("/a"), "_other");
}

#[test]
fn a_registry_without_room_ends_the_learning() {
    let learned = Learned::new(100);
    assert_eq!(learned.learn(b"/a", &|_| None), Verdict::Full);
    assert!(learned.is_full());
}

#[test]
fn a_learner_at_work_makes_nobody_wait() {
    let learned = Learned::new(100);
    let guard = learned.lock();
    assert_eq!(learned.learn(b"/a", &|_| Some(RouteId(2))), Verdict::Wait);
    assert_eq!(learned.find(b"/a"), None);
    drop(guard);
    assert_eq!(learned.learn(b"/a", &|_| Some(RouteId(2))), Verdict::Label(RouteId(2)));
}

#[test]
fn deep_and_long_paths_are_cut() {
    let school = School::new(100);
    let deep = "/1-a".repeat(2000);
    assert_eq!(deep.len(), 8000);
    for _ in 0..30 {
        school.request(&deep);
    }
    let label = school.request(&deep);
    assert!(label.ends_with("/{rest}"), "{label}");
    assert_eq!(label.matches('/').count(), MOST_SEGMENTS);
    // The same place, less deep: no rest, but the segment there.
    assert_eq!(school.request(format!("/{}", "x".repeat(8191))), "/{id}");
    let other = School::new(100);
    assert_eq!(other.request(vec![b'/'; 8192]), format!("{}/{{rest}}", "/{value}".repeat(15)));
    let wide = format!("/{}", "abcdefgh/".repeat(MOST_SEGMENTS - 1).replace('/', &format!("{}/", "-word".repeat(9))));
    for _ in 0..10 {
        assert_eq!(school.request(&wide), "_unmatched", "a template over the limit");
    }
}

#[test]
fn bytes_that_no_label_may_hold_are_values() {
    let school = School::new(100);
    for path in
        [&b"/files/\xff\xfe"[..], b"/files/a\x00b", b"/files/a*b", b"/files/%2e%2e", b"/files/{x}", b"/files/\"q\""]
    {
        assert_eq!(school.request(path), "/files/{value}");
    }
    assert_eq!(school.learned.explain(b"/files/\xff\n").segments[1].text, "\\xff\\n");
}

#[test]
fn a_hundred_thousand_random_paths_end_in_a_handful_of_labels() {
    let school = School::new(100);
    let mut state = 1_u64;
    let mut random = move |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut most = 0;
    for _ in 0..100_000 {
        let segments = 1 + random(6);
        let path: String = (0..segments)
            .map(|_| match random(3) {
                0 => format!("/{}", name(usize::try_from(random(65_536)).unwrap())),
                1 => format!("/{:x}", random(1 << 30)),
                _ => (0..=random(12))
                    .map(|_| char::from(b'a' + u8::try_from(random(26)).unwrap()))
                    .fold("/".to_owned(), |text, letter| text + letter.encode_utf8(&mut [0; 4])),
            })
            .collect();
        school.request(path);
        most = most.max(school.learned.lock().nodes);
    }
    let labels = school.labels.borrow();
    println!("{} labels: {labels:?}", labels.len());
    assert!(school.learned.folded() > 0);
    assert!(labels.len() <= 40, "{} labels: {labels:?}", labels.len());
    assert!(most <= MOST_WAITING + 100 * MOST_SEGMENTS + MOST_SEGMENTS, "{most} nodes");
}

#[test]
fn paths_that_can_never_have_a_label_are_forgotten() {
    let school = School::new(100);
    school.request("/users/7");
    // Four of these and a bit are longer than a template may be.
    let part = |number: usize| format!("{}-{}", "word-and-word".repeat(4), name(number));
    let mut most = 0;
    for number in 0..30_000 {
        let [a, b, c, d] = [1, 6, 36, 216].map(|step| part(number / 24 / step % 6));
        school.request(format!("/{a}/{b}/{c}/{d}/more-words/{}", name(number)));
        most = most.max(school.learned.lock().nodes);
    }
    assert!(school.learned.folded() > 100);
    assert!(most <= MOST_WAITING + 20, "{most} nodes");
    assert_eq!(school.labels.borrow().len(), 1);
    assert!(school.learned.forgotten() >= MOST_WAITING as u64 / 2, "{} forgotten", school.learned.forgotten());
    assert!(size_of::<Word>() <= 128 && size_of::<Param>() <= 160 && size_of::<Hint>() <= 48);
}

#[test]
fn an_explanation_says_what_each_segment_is_and_why() {
    let school = School::new(100);
    for number in 0..40 {
        school.request(format!("/users/{}/orders/5", name(number)));
    }
    let Explanation { segments, route, template, hindrance } = school.learned.explain(b"/users/alice/orders/7");
    assert_eq!(route.map(|id| school.label(id)).as_deref(), Some("/users/{name}/orders/{id}"));
    assert_eq!((template.as_str(), hindrance), ("/users/{name}/orders/{id}", None));
    let whys: Vec<_> = segments.iter().map(|segment| segment.why.as_str()).collect();
    assert_eq!(segments[1].text, "alice");
    assert!(whys[1].ends_with("siblings folded below /users"), "{whys:?}");
    assert_eq!((whys[0], whys[3]), ("a word", "a number"));

    let unknown = school.learned.explain(b"/reports/quarterly");
    assert_eq!((unknown.route, unknown.template.as_str()), (None, "/reports/quarterly"));
    assert_eq!(unknown.segments[1].why, "a word not seen here before");
    school.request("/reports/quarterly");
    let waiting = school.learned.explain(b"/reports/quarterly");
    assert_eq!(waiting.segments[1].why, "a word that may be a name, seen once so far");
    assert_eq!(school.learned.explain(b"/").template, "/");
}

#[test]
fn an_explanation_tells_a_path_that_will_have_no_label() {
    let school = School::new(2);
    let long = format!("/{}", ["some-words-and-more-words"; 11].join("/"));
    assert_eq!(school.learned.explain(long.as_bytes()).hindrance, Some(Hindrance::LongTemplate(LONGEST_TEMPLATE)));
    assert_eq!(school.learned.explain(b"/c").hindrance, None);
    school.request("/a");
    school.request("/b");
    assert_eq!(school.learned.explain(b"/c").hindrance, Some(Hindrance::Limit));
    assert_eq!(school.learned.explain(b"/a").hindrance, None);
    school.learned.set_limit(3);
    assert_eq!(school.learned.explain(b"/c").hindrance, None);
}

#[test]
fn a_state_that_is_malformed_changes_nothing() {
    let school = School::new(100);
    let restore =
        |text: &str| school.learned.restore(text, &|template| school.give(template)).map_err(|error| error.to_string());
    for (text, want) in [
        (r#"{"version":2,"routes":[],"folds":[]}"#, "version 2; this program reads version 1"),
        (r#"{"version":3,"routes":{"/a":7},"words":[]}"#, "version 3; this program reads version 1"),
        (
            r#"{"version":1,"routes":["/ok","/a*b"],"folds":[]}"#,
            "\"/a*b\" is not a template that could have been learned",
        ),
        (
            r#"{"version":1,"routes":["/{mine}"],"folds":[]}"#,
            "\"/{mine}\" is not a template that could have been learned",
        ),
        (
            r#"{"version":1,"routes":[],"folds":[{"place":"/users","siblings":3}]}"#,
            "\"/users\" is not a template that could have been learned",
        ),
    ] {
        assert_eq!(restore(text), Err(want.to_owned()));
    }
    assert!(restore("{").is_err() && restore("[]").is_err());
    assert_eq!(restore(&" ".repeat(LONGEST_STATE + 1)), Err("6291457 bytes; at most 6291456 are read".to_owned()));
    assert!(school.learned.list().is_empty() && school.labels.borrow().is_empty());
}

#[test]
fn a_restart_does_not_relearn() {
    let school = School::new(100);
    for number in 0..40 {
        school.request(format!("/users/{}/repos", name(number)));
        school.request("/health");
    }
    let state = school.learned.save();
    assert!(!state.contains(&name(39)), "{state}");
    let after = School::new(100);
    assert_eq!(after.learned.restore(&state, &|template| after.give(template)).unwrap(), 2);
    assert_eq!(after.found("/users/alice/repos").as_deref(), Some("/users/{name}/repos"));
    assert_eq!(after.found("/health").as_deref(), Some("/health"));
    let none = School::new(1);
    assert_eq!(none.learned.restore(&state, &|template| none.give(template)).unwrap(), 1);
    assert!(none.learned.is_full());
}

/// A learner that knows so many of the longest templates, each below a fold.
fn knowing(routes: usize) -> School {
    let school = School::new(60_000);
    let mut learner = school.learned.lock();
    for number in 0..routes {
        let words = format!("{}/", ["word"; 12].join("-")).repeat(3);
        let place = format!("/{}/{words}{{name}}", name(number));
        let template = format!("{place}/{}", &["word"; 20].join("-")[..LONGEST_TEMPLATE - place.len() - 2]);
        let mut parts = parse(&place).unwrap();
        parts.pop();
        let fold = learner.root.grow(&parts).param_or_new("name");
        (fold.words, fold.siblings) = (true, u32::MAX);
        let node = learner.root.grow(&parse(&template).unwrap());
        let id = school.give(&template).unwrap();
        node.label = Some(Given { id, template: template.into() });
        learner.given += 1;
    }
    drop(learner);
    school
}

#[test]
fn what_is_saved_can_always_be_read_back() {
    let routes = |state: &str| Learned::new(60_000).restore(state, &|_| Some(RouteId(2))).unwrap();
    // As many as a configuration may ask for.
    let all = knowing(10_000).learned.save();
    assert_eq!((routes(&all), all.matches("place").count()), (10_000, 10_000));
    let school = knowing(26_000);
    let most = school.learned.save();
    assert!(most.len() <= LONGEST_STATE && most.len() > LONGEST_STATE - 512, "{} bytes", most.len());
    let kept = routes(&most);
    assert!(kept > 20_000 && kept < 26_000, "{kept} routes");
    assert_eq!(school.learned.save(), most);
}

/// Segments of all kinds, with repeats.
fn segment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-d]{1,2}".prop_map(String::into_bytes),
        2 => (0..500_usize).prop_map(|number| name(number).into_bytes()),
        2 => "(users|orders|v1|api|me|search|main|US|1\\.0|3)".prop_map(String::into_bytes),
        1 => "[0-9]{1,6}".prop_map(String::into_bytes),
        1 => "[ -~]{0,80}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn paths(most: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let path = proptest::collection::vec(segment(), 0..20)
        .prop_map(|segments| segments.into_iter().fold(Vec::new(), |path, segment| [path, segment].join(&b'/')));
    proptest::collection::vec(path, 0..most)
}

proptest! {
    // Each case is some hundred requests.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_path_gives_a_label_that_cannot_be_shown(paths in paths(150)) {
        let school = School::new(1000);
        for path in &paths {
            let verdict = school.request(path);
            // What was learned is found from then on, under that or what it folds into.
            prop_assert_eq!(school.learned.find(path).is_some(), verdict != "_unmatched");
            let explained = school.learned.explain(path);
            if let Some(id) = explained.route {
                prop_assert_eq!(explained.template, school.label(id));
            }
        }
        let labels = school.labels.borrow();
        for label in labels.iter() {
            prop_assert!(label.len() <= LONGEST_TEMPLATE && !label.contains('*'), "{}", label);
            prop_assert!(label.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'), "{}", label);
            prop_assert!(parse(label).is_some(), "{} cannot be read back", label);
        }
        let distinct: std::collections::BTreeSet<_> = labels.iter().collect();
        prop_assert_eq!(distinct.len(), labels.len(), "no template is given twice");
        prop_assert_eq!(school.learned.list().len(), labels.len());
    }

    #[test]
    fn a_saved_state_finds_the_same_routes_again(paths in paths(150)) {
        let school = School::new(1000);
        for path in &paths {
            school.request(path);
        }
        let state = school.learned.save();
        let after = School::new(1000);
        let live = school.learned.list().iter().filter(|route| route.retired.is_none()).count();
        prop_assert_eq!(after.learned.restore(&state, &|template| after.give(template)).unwrap(), live);
        for path in &paths {
            let before = school.learned.find(path).map(|id| school.label(id));
            prop_assert_eq!(after.learned.find(path).map(|id| after.label(id)), before);
        }
        prop_assert_eq!(after.learned.save(), state);
    }

    #[test]
    fn any_text_can_be_offered_as_a_state(text in ".{0,200}") {
        let _ = Learned::new(10).restore(&text, &|_| Some(RouteId(2)));
    }
}

#[test]
fn versions_that_somebody_counts_up_use_up_no_labels() {
    let school = School::new(100);
    for version in 1..200 {
        school.request(format!("/v{version}"));
    }
    assert!(school.labels.borrow().len() <= 10, "{:?}", school.labels.borrow());
    assert_eq!(school.request("/health"), "/health");
    for _ in 0..2 {
        school.request("/v150/orders");
    }
    assert_eq!(school.request("/v150/orders"), "/v150/orders");
}

#[test]
fn literals_behind_a_fold_count_as_nodes() {
    // Too long for a label, so that learning never ends.
    let long = format!("/{}", "x".repeat(60)).repeat(4).replace('x', "q");
    let school = School::new(100);
    for number in 0..60 {
        school.request(format!("{long}/people/{}", name(number)));
    }
    for number in 0..300 {
        for _ in 0..5 {
            school.request(format!("{long}/people/{}/onward{}", name(number + 100), name(number)));
        }
    }
    let learner = school.learned.lock();
    let count = learner.root.count();
    assert!(count > 100 && learner.nodes >= count, "{} of {count} nodes are counted", learner.nodes);
}
