//! The rules of the house that a compiler does not check: who may import whom, that every file says what it is, that
//! every dependency has its reason, that nothing unfinished is left. Style is a test, so that review can talk about
//! meaning.
//!
//! The checks read the sources as text and know just enough Rust for it: comments, literals and items under
//! `#[cfg(test)]` do not count as imports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

// === The table ===

/// Who may import whom: a room, and the rooms it may name. A room is a file or a folder right below `src/`; `main.rs`
/// and `lib.rs` are the doors and name whom they like. Its own parts every room may name.
///
/// The same table is in the design and in `lib.rs`. A new room gets a line here; so does a new permission, and the
/// commit says why.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("labels", &[]),
    ("shutdown", &[]),
    ("config", &["labels"]),
    // Bounds and objectives.
    ("signals", &["labels", "config"]),
    ("measure", &["labels", "signals"]),
    // The allocator.
    ("memory", &[]),
    // The scheduler.
    ("turns", &[]),
    // The kernel's limit of open files.
    ("descriptors", &[]),
    // Of config the policy of restarts, and the names of variables that are nothing for others.
    ("command", &["config"]),
    ("routes", &["labels", "config"]),
    // Of config where the backend is, of labels what went wrong.
    ("transport", &["labels", "config"]),
    // Of telemetry the trace context.
    ("proxy", &["labels", "config", "routes", "measure", "memory", "telemetry", "transport", "descriptors"]),
    // Questions of the sidecar's own, over what carries bytes.
    ("client", &["labels", "config", "transport"]),
    // Somebody else's metrics page; of labels the words for what went wrong, of config and transport where the backend is.
    ("scrape", &["labels", "config", "transport", "client"]),
    // Of measure the sidecar's own connection counts, of scrape the pools that the backend reports.
    ("saturation", &["labels", "config", "signals", "measure", "scrape"]),
    // Of scrape the backend's own page, to append it to ours.
    ("exposition", &["signals", "labels", "scrape", "turns"]),
    // Of signals the snapshots.
    ("verdict", &["labels", "signals"]),
    // Reads, never writes. Of labels the words of a question about routes, and why somebody is refused.
    ("admin", &["labels", "config", "signals", "exposition", "verdict", "routes", "transport", "descriptors"]),
    // Asks the backend whether it is up; of descriptors, whether it was able to ask.
    ("readiness", &["labels", "config", "transport", "descriptors", "client"]),
    ("telemetry", &["labels", "config"]),
    // Of signals the names.
    ("pack", &["labels", "signals", "config"]),
    // Of saturation what it saw, of signals the names.
    ("doctor", &["labels", "config", "saturation", "signals"]),
    // Of config the question; the answer is JSON.
    ("inspect", &["config"]),
    // The two ends; `app` puts the sidecar between them.
    ("demo", &["config", "labels"]),
    ("app", EVERYTHING),
];

/// Stands for all rooms. `app` wires them, so it knows them.
const EVERYTHING: &[&str] = &["*"];

/// The crate's name as a path, another way to say `crate`.
const CRATE: &str = "golden_sidecar";

/// Macros that mark unfinished or forgotten code.
const UNFINISHED: &[&str] = &["todo", "dbg", "unimplemented"];

/// Folders whose files the rules below are for.
const WRITTEN_HERE: &[&str] = &["src", "tests", "fuzz/src", "fuzz/targets"];

// === The rules, on this repository ===

#[test]
fn rooms_import_only_what_the_table_allows() {
    let source = root().join("src");
    let rooms = rooms_below(&source);
    assert!(rooms.len() >= 2, "found no rooms below {}", source.display());
    let mut faults: Vec<String> = rooms
        .iter()
        .filter(|room| permissions(room).is_none())
        .map(|room| format!("src/{room}: not in the table of tests/tidy.rs; say whom it may import"))
        .collect();
    let files = rust_files(&source);
    let test_only: BTreeSet<PathBuf> = files.iter().flat_map(|file| test_files(file, &read(file))).collect();
    for file in files.iter().filter(|file| !test_only.contains(*file)) {
        let inside = file.strip_prefix(&source).expect("listed from there");
        let Some((room, depth)) = place(inside) else { continue };
        faults.extend(
            import_faults(&room, depth, &read(file), &rooms)
                .into_iter()
                .map(|(line, what)| format!("src/{}:{line}: {what}", inside.display())),
        );
    }
    assert_none(&faults);
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let files: Vec<_> = WRITTEN_HERE.iter().flat_map(|folder| rust_files(&root().join(folder))).collect();
    let faults: Vec<_> = files
        .iter()
        .filter(|file| !opens_with_module_doc(&read(file)))
        .map(|file| format!("{}: the first line is not a `//!` comment", file.display()))
        .collect();
    assert_none(&faults);
}

#[test]
fn every_dependency_has_its_reason() {
    for (file, least) in [("Cargo.toml", 10), ("fuzz/Cargo.toml", 4)] {
        let (checked, faults) = dependencies_without_reason(&read(&root().join(file)));
        assert!(checked > least, "found only {checked} dependencies: the check no longer understands {file}");
        let faults: Vec<_> =
            faults.iter().map(|name| format!("{file}: {name}: no comment above or beside it")).collect();
        assert_none(&faults);
    }
}

#[test]
fn nothing_unfinished_is_left() {
    let files = WRITTEN_HERE.iter().flat_map(|folder| rust_files(&root().join(folder)));
    let faults: Vec<_> = files
        .flat_map(|file| {
            unfinished(&read(&file))
                .into_iter()
                .map(move |(line, name)| format!("{}:{line}: {name}! is left", file.display()))
        })
        .collect();
    assert_none(&faults);
}

// === The rules, on small examples: each check can fail ===

#[test]
fn a_forbidden_import_is_found_however_it_is_spelled() {
    let rooms = names(&["admin", "config", "labels", "proxy", "routes"]);
    let found = |room: &str, depth: usize, source: &str| import_faults(room, depth, source, &rooms);

    // Allowed: what the table says, the room itself, std.
    assert_eq!(found("config", 1, "use crate::labels::Method;\nuse crate::config::Config;\nuse std::io;"), vec![]);
    assert_eq!(found("proxy", 2, "use super::Pool;\nuse crate::{labels, routes::{Route, Table}};"), vec![]);

    // Forbidden: as an import, as a path in code, in a group, by way of `super`, by the crate's own name.
    let forbidden = [
        (1, "use crate::proxy::Pool;"),
        (1, "pub(crate) use crate::proxy;"),
        (1, "fn f() { let _ = crate::proxy::serve(); }"),
        (1, "use crate::{labels::Method, proxy::{self, Pool}};"),
        (1, "use crate::{\n    labels,\n    proxy::Pool,\n};"),
        (1, "use super::proxy::Pool;"),
        (2, "use super::super::proxy::Pool;"),
        (1, "use golden_sidecar::proxy::Pool;"),
        (1, "use crate :: proxy :: Pool;"),
        (1, "use crate::r#proxy::Pool;"),
    ];
    for (depth, source) in forbidden {
        let faults = found("config", depth, source);
        assert_eq!(faults.len(), 1, "{source:?}: {faults:?}");
        assert_eq!(
            faults[0].1, "`config` may not import `proxy`; the table of tests/tidy.rs allows: labels",
            "{source:?}"
        );
    }

    // The crate's root is no way around the table.
    assert_eq!(
        found("config", 1, "\nuse crate::Pool;"),
        vec![(2, "`crate::Pool` is in no room; name the room that it lives in".to_string())]
    );
    assert_eq!(found("config", 1, "use crate::{Pool, *};").len(), 2);
    // app knows everyone.
    assert_eq!(found("app", 1, "use crate::{admin, proxy::Pool};"), vec![]);
}

#[test]
fn comments_literals_and_test_modules_are_no_imports() {
    let rooms = names(&["labels", "proxy"]);
    let quiet = [
        "// use crate::proxy::Pool;\n/* crate::proxy /* nested */ crate::proxy */",
        "//! [`crate::proxy`] is another room.",
        r##"const TEXT: &str = "crate::proxy \" crate::proxy"; const RAW: &str = r#"crate::proxy "quoted" "#;"##,
        "#[cfg(test)]\nmod tests {\n    use crate::proxy::Pool;\n    fn f() { let _ = \"}\"; }\n}",
        "#[cfg(test)]\nuse crate::{proxy::Pool};",
        "#[cfg(all(test, target_os = \"linux\"))]\n#[allow(unused)]\nfn f(a: [u8; 4]) { crate::proxy::serve(a) }",
    ];
    for source in quiet {
        assert_eq!(import_faults("labels", 1, source, &rooms), vec![], "{source:?}");
    }
    // What follows them counts again, and lifetimes and characters do not look like text.
    let loud = [
        "#[cfg(test)]\nmod tests { mod inner { } }\nuse crate::proxy::Pool;",
        "#[cfg(test)]\nuse crate::{proxy::Pool};\nuse crate::proxy::Pool;",
        "fn f<'a>(x: &'a str) -> char { '\"' }\nuse crate::proxy::Pool;",
        "const Q: u8 = b'\\''; use crate::proxy::Pool;",
        "#[cfg(not(test))]\nuse crate::proxy::Pool;",
    ];
    for source in loud {
        assert_eq!(import_faults("labels", 1, source, &rooms).len(), 1, "{source:?}");
    }
}

#[test]
fn a_file_of_tests_is_known_by_the_line_that_includes_it() {
    let source = "mod pool;\n#[cfg(test)]\nmod tests;\n";
    assert_eq!(
        test_files(Path::new("src/proxy/mod.rs"), source),
        vec![PathBuf::from("src/proxy/tests.rs"), PathBuf::from("src/proxy/tests/mod.rs")]
    );
    assert_eq!(
        test_files(Path::new("src/labels.rs"), source),
        vec![PathBuf::from("src/labels/tests.rs"), PathBuf::from("src/labels/tests/mod.rs")]
    );
    assert_eq!(test_files(Path::new("src/labels.rs"), "mod tests;"), Vec::<PathBuf>::new());
}

#[test]
fn a_room_is_the_file_or_folder_below_src() {
    assert_eq!(place(Path::new("labels.rs")), Some(("labels".to_string(), 1)));
    assert_eq!(place(Path::new("proxy/mod.rs")), Some(("proxy".to_string(), 1)));
    assert_eq!(place(Path::new("proxy/upstream/pool.rs")), Some(("proxy".to_string(), 3)));
    assert_eq!(place(Path::new("main.rs")), None);
    assert_eq!(place(Path::new("lib.rs")), None);
}

#[test]
fn a_file_without_module_doc_is_found() {
    assert!(opens_with_module_doc("//! What it is.\n"));
    assert!(!opens_with_module_doc("// What it is.\n"));
    assert!(!opens_with_module_doc("use std::io;\n//! Too late.\n"));
    assert!(!opens_with_module_doc("//!\n//! Says nothing at first.\n"));
    assert!(!opens_with_module_doc(""));
}

#[test]
fn a_dependency_without_reason_is_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\n# Above.\na = \"1\"\nb = { version = \"1\" } # beside\nc = \"1\"\n\
                    # Of the blank line below.\n\nd = \"#1\"\n[dev-dependencies]\ne = { version = \"1\", features = [\n  \"f\",\n] }\n\
                    [target.'cfg(unix)'.dependencies]\ng = \"1\"\n[dependencies.h]\nversion = \"1\"\n# Reason.\n[dependencies.i]\nversion = \"1\"\n\
                    [profile.dev]\ndebug = 1\n";
    let (checked, faults) = dependencies_without_reason(manifest);
    assert_eq!((checked, faults), (8, ["c", "d", "e", "g", "h"].map(String::from).to_vec()));
}

#[test]
fn unfinished_code_is_found_and_talk_about_it_is_not() {
    let source = "// todo!() one day\nfn f() {\n    todo!();\n    dbg!(\"todo!()\");\n    my_todo!();\n    std::unimplemented !()\n}";
    assert_eq!(unfinished(source), vec![(3, "todo"), (4, "dbg"), (6, "unimplemented")]);
}

// === Imports ===

/// What a room may import; `None` for one that the table does not know.
fn permissions(room: &str) -> Option<&'static [&'static str]> {
    MAY_IMPORT.iter().find(|(name, _)| *name == room).map(|(_, allowed)| *allowed)
}

/// The room of a file (path below `src/`) and how many modules deep it is: 1 for the room itself. `None` for the doors.
fn place(inside: &Path) -> Option<(String, usize)> {
    let mut parts: Vec<_> =
        inside.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    match parts.first()?.as_str() {
        "main" | "lib" => None,
        room => Some((room.to_string(), parts.len())),
    }
}

/// Line and sentence for each name of another room that `room` may not import.
fn import_faults(room: &str, depth: usize, source: &str, rooms: &BTreeSet<String>) -> Vec<(usize, String)> {
    let allowed = permissions(room).unwrap_or_default();
    root_names(&without_tests(&code_only(source)), depth, rooms)
        .into_iter()
        .filter(|(_, name)| name != room && allowed != EVERYTHING && !allowed.contains(&name.as_str()))
        .map(|(line, name)| {
            let what = if rooms.contains(&name) || permissions(&name).is_some() {
                let list = if allowed.is_empty() { "nothing".to_string() } else { allowed.join(", ") };
                format!("`{room}` may not import `{name}`; the table of tests/tidy.rs allows: {list}")
            } else {
                format!("`crate::{name}` is in no room; name the room that it lives in")
            };
            (line, what)
        })
        .collect()
}

/// Line and name of everything that the code takes from the crate's root: `crate::NAME`, each of `crate::{NAME, …}`, and
/// `super::` often enough to get there (the module is `depth` deep). Names of macros are left out.
fn root_names(code: &str, depth: usize, rooms: &BTreeSet<String>) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let text = |at: usize| tokens.get(at).map_or("", |(_, token)| token.as_str());
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        // Not the `crate` of `$crate::` or the middle of a longer path.
        if text(at + 1) != "::" || (at > 0 && matches!(text(at - 1), "::" | "$")) {
            continue;
        }
        let mut next = at;
        if text(at) == "crate" || text(at) == CRATE {
            next += 2;
        } else {
            // `self::super::` is written by nobody.
            while text(next) == "super" && text(next + 1) == "::" {
                next += 2;
            }
            // An inner module has more levels than its file: only names that are rooms are believed.
            if next != at + 2 * depth || (text(next) != "{" && !rooms.contains(text(next))) {
                continue;
            }
        }
        let line = tokens[next.min(tokens.len() - 1)].0;
        if text(next) != "{" {
            if text(next + 1) != "!" {
                found.push((line, text(next).to_string()));
            }
            continue;
        }
        // A group: the first word of each entry at its own level.
        let mut level = 0;
        for here in next..tokens.len() {
            match text(here) {
                "{" => level += 1,
                "}" => level -= 1,
                _ => {}
            }
            if level == 0 {
                break;
            }
            let begins = level == 1 && matches!(text(here), "{" | ",") && !matches!(text(here + 1), "}" | "self");
            if begins && (text(at) != "super" || rooms.contains(text(here + 1))) {
                found.push((tokens[here + 1].0, text(here + 1).to_string()));
            }
        }
    }
    found
}

/// Words, `::` and single characters, each with its line from 1. `r#name` is `name`.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let (mut line, mut rest) = (1, code);
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if first == '\n' {
            line += 1;
        } else if !first.is_whitespace() {
            found.push((line, token.to_string()));
        }
        rest = if token == "r" { after.strip_prefix('#').unwrap_or(after) } else { after };
        if token == "r" && rest.len() < after.len() {
            found.pop();
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

// === Just enough Rust ===

/// The source with comments and the insides of literals blanked; lines stay where they are.
fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        if end > at {
            code.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            code.push(chars[at]);
            at += 1;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_or_comment_end(chars: &[char], at: usize) -> usize {
    let is = |index: usize, c: char| chars.get(index) == Some(&c);
    let after_word = at > 0 && is_word(chars[at - 1]);
    if is(at, '/') && is(at + 1, '/') {
        return (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len());
    }
    if is(at, '/') && is(at + 1, '*') {
        let (mut level, mut i) = (0, at);
        while i < chars.len() {
            if is(i, '/') && is(i + 1, '*') {
                (level, i) = (level + 1, i + 2);
            } else if is(i, '*') && is(i + 1, '/') {
                (level, i) = (level - 1, i + 2);
                if level == 0 {
                    return i;
                }
            } else {
                i += 1;
            }
        }
        return chars.len();
    }
    if is(at, '"') {
        return quoted_end(chars, at);
    }
    // Raw text: r, any number of #, a quote. `b` and `c` before the r are words of their own here.
    if is(at, 'r') && (!after_word || matches!(chars[at - 1], 'b' | 'c')) {
        let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
        if is(at + 1 + hashes, '"') {
            let closes = |i: usize| chars[i] == '"' && (1..=hashes).all(|n| is(i + n, '#'));
            return (at + 2 + hashes..chars.len()).find(|&i| closes(i)).map_or(chars.len(), |i| i + 1 + hashes);
        }
    }
    // A character, and not a lifetime: 'x' or '\…'.
    if is(at, '\'') && (is(at + 1, '\\') || is(at + 2, '\'')) {
        return quoted_end(chars, at);
    }
    at
}

/// The end of a literal whose opening quote is at `at`, backslashes minded.
fn quoted_end(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == chars[at] => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// The code with every item under `#[cfg(test)]` blanked.
fn without_tests(code: &str) -> String {
    let mut kept = code.to_string();
    while let Some((start, end)) = first_test_item(&kept) {
        let blank: String = kept[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        kept.replace_range(start..end, &blank);
    }
    kept
}

/// From its attribute to its end: the first item that is compiled for tests only. Byte positions.
fn first_test_item(code: &str) -> Option<(usize, usize)> {
    let start = [code.find("#[cfg(test)]"), code.find("#[cfg(all(test,")].into_iter().flatten().min()?;
    let mut rest = start;
    // Its attributes, then the item: up to a `;`, or to the bracket that closes its body.
    loop {
        let trimmed = code[rest..].trim_start();
        rest = code.len() - trimmed.len();
        if !trimmed.starts_with("#[") {
            break;
        }
        rest += bracket_end(trimmed, 1);
    }
    let is_use = tokens(&code[rest..]).iter().map(|(_, token)| token.as_str()).take(5).any(|token| token == "use");
    let mut at = rest;
    while let Some(c) = code[at..].chars().next() {
        match c {
            ';' => return Some((start, at + 1)),
            '{' if !is_use => return Some((start, at + bracket_end(&code[at..], 0))),
            '{' | '(' | '[' => at += bracket_end(&code[at..], 0),
            _ => at += c.len_utf8(),
        }
    }
    Some((start, code.len()))
}

/// How far the bracket that opens at byte `from` reaches, its closing one included.
fn bracket_end(code: &str, from: usize) -> usize {
    let mut level = 0;
    for (at, c) in code.char_indices().skip_while(|(at, _)| *at < from) {
        match c {
            '{' | '(' | '[' => level += 1,
            '}' | ')' | ']' => level -= 1,
            _ => continue,
        }
        if level == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The files that `#[cfg(test)] mod NAME;` in `file` may mean.
fn test_files(file: &Path, source: &str) -> Vec<PathBuf> {
    let mut code = code_only(source);
    let mut found = Vec::new();
    while let Some((start, end)) = first_test_item(&code) {
        let item = tokens(&code[start..end]);
        let texts: Vec<_> = item.iter().map(|(_, token)| token.as_str()).collect();
        if let [.., "mod", name, ";"] = texts[..] {
            let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
                Some("mod" | "lib" | "main") => file.with_file_name(""),
                _ => file.with_extension(""),
            };
            found.extend([folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]);
        }
        code.replace_range(..end, "");
    }
    found
}

// === The other rules ===

fn opens_with_module_doc(source: &str) -> bool {
    source.lines().next().and_then(|line| line.strip_prefix("//! ")).is_some_and(|text| !text.trim().is_empty())
}

/// Line and name of each call of an unfinished-code macro.
fn unfinished(source: &str) -> Vec<(usize, &'static str)> {
    let tokens = tokens(&code_only(source));
    tokens
        .windows(2)
        .filter(|pair| pair[1].1 == "!")
        .filter_map(|pair| UNFINISHED.iter().find(|name| **name == pair[0].1).map(|name| (pair[0].0, *name)))
        .collect()
}

/// How many dependencies a manifest has, and those with no comment right above or beside them.
fn dependencies_without_reason(manifest: &str) -> (usize, Vec<String>) {
    let (mut checked, mut faults) = (0, Vec::new());
    let (mut in_list, mut open_brackets, mut above) = (false, 0, "");
    for line in manifest.lines() {
        let bare = line.trim();
        let uncommented = before_comment(bare);
        let mut name = None;
        if open_brackets == 0 {
            if let Some(header) = bare.strip_prefix('[') {
                let header = header.split(']').next().unwrap_or_default();
                in_list = header.ends_with("dependencies");
                // `[dependencies.NAME]` is one dependency.
                name = header.split_once("dependencies.").map(|(_, name)| name);
            } else if in_list && !bare.starts_with('#') {
                name = bare.split_once('=').map(|(name, _)| name.trim());
            }
        }
        if let Some(name) = name {
            checked += 1;
            let beside = bare.len() > uncommented.len();
            if !beside && !above.starts_with('#') {
                faults.push(name.to_string());
            }
        }
        if !bare.starts_with('[') {
            let count = |brackets: [char; 2]| uncommented.matches(brackets).count();
            open_brackets = (open_brackets + count(['[', '{'])).saturating_sub(count([']', '}']));
        }
        above = bare;
    }
    (checked, faults)
}

/// A line of TOML without its comment; a `#` inside quotes begins none.
fn before_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

// === Files ===

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// All `.rs` files below a folder, in a stable order.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in entries(folder) {
        if entry.is_dir() {
            found.extend(rust_files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
    found
}

/// Names of the rooms: files and folders right below `src/`, the doors left out.
fn rooms_below(source: &Path) -> BTreeSet<String> {
    let inside = |path: PathBuf| path.strip_prefix(source).map(Path::to_path_buf).expect("listed from there");
    entries(source).into_iter().filter_map(|path| place(&inside(path))).map(|(room, _)| room).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<_> = listing.map(|entry| entry.expect("a readable folder").path()).collect();
    found.sort();
    found
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(ToString::to_string).collect()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
