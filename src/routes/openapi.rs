//! Route templates of an OpenAPI or Swagger document. A pure reader: text in, templates and notes out.
//!
//! Source: OpenAPI 3.0.4, 3.1.1 and 3.2.0 ("Paths Object", "Path Item Object", "Server Object"), Swagger 2.0
//!         ("basePath").
//! Shape:  JSON if the first character is a brace, else YAML. Only `paths`, path items, methods, servers and
//!         `basePath` are kept, each within bounds; the rest is skipped while it is read: ten megabytes of JSON take ten milliseconds, of
//!         YAML half a second.
//! Absent: no servers, or none with a path: the templates are those of `paths`.
//! Doubt:  a proxy that strips the path of `servers` before the sidecar hides it; then the document has to say so.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use crate::labels::Method;

/// The largest document that is read: Microsoft Graph's, the largest that is commonly met, has 20 MiB.
pub const DOCUMENT_BYTES_MAX: u64 = 32 << 20;
/// Most templates of one document, its servers multiplied in: Microsoft Graph's has 7,419, GitHub's 551.
const TEMPLATES_MAX: usize = 10_000;
/// Longer templates are not what people read on a dashboard.
const TEMPLATE_BYTES_MAX: usize = 512;
/// Segments of a template: bounds the depth of the search for one.
const SEGMENTS_MAX: usize = 64;
/// Paths that servers may put before each template. More are a list of tenants, not of deployments.
const PREFIXES_MAX: usize = 16;
/// Servers of one list. Documents that name each of their hosts have a hundred.
const SERVERS_MAX: usize = 1_000;
/// Variables of one server, and values of one variable: more than their paths could need.
const VARIABLES_MAX: usize = 16;
/// Operations of one path beside the methods of HTTP. All are one method to us.
const OPERATIONS_MAX: usize = 16;
/// A URL, a value or a reference is cut here: what it puts before a template is too long by far.
const TEXT_BYTES_MAX: usize = 4 * TEMPLATE_BYTES_MAX;
/// What is kept of a document while it is read: Microsoft Graph's needs 5 MiB.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// What a value costs beside its text: its place in a list, its key, what the allocator adds.
const NODE_BYTES: usize = 96;
/// Bytes of paths that are compared and put together for one document, so that few bytes which refer to each other
/// cannot keep a thread for long: this is a second at most. Ten thousand templates below sixteen servers need a tenth.
const WORK_MAX: usize = 128 << 20;
/// What a server costs beside the bytes of its paths.
const SERVER_WORK: usize = 200;
/// References that lead to references.
const REFERENCES_MAX: usize = 8;
/// Notes that are kept; the rest is counted. Somebody reads them in a log.
const NOTES_MAX: usize = 100;
/// Nodes and events of a YAML document: GitHub's has half a million nodes. How often aliases are put in keeps the library's
/// bounds.
const YAML_NODES_MAX: usize = 4_000_000;
/// Events below anchors of a YAML document, which the library keeps at 200 bytes each. Anchors save writing in documents
/// that people write, which have some thousand lines.
const YAML_ANCHORED_EVENTS_MAX: usize = 100_000;
/// Bytes of text below anchors.
const YAML_ANCHORED_BYTES_MAX: usize = 8 << 20;

const ACCEPTED: &str = "expected a Swagger 2.0 or OpenAPI 3 document in JSON or YAML";

/// What a document has for the route table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Import {
    /// In the order of the document, each path once.
    pub templates: Vec<ImportedTemplate>,
    /// What was left out and why, one sentence each.
    pub notes: Notes,
}

/// A path of a document, with the path of its server in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedTemplate {
    /// As the document writes it: `/v1/users/{id}`.
    pub path: String,
    /// Methods that the document has there.
    pub methods: Vec<Method>,
}

/// Sentences about what was left out; more than a person reads are only counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    kept: Vec<String>,
    more: usize,
}

/// Why a text is no document: where, what was found, what is accepted. Fit for standard error after the document's
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable(String);

/// Reads a document.
///
/// # Errors
/// When it is too large, no JSON or YAML, or not of a known version, or when what is needed has the wrong shape.
pub fn import(document: &[u8]) -> Result<Import, Unusable> {
    if document.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(Unusable(format!("is larger than {} MiB; {ACCEPTED}", DOCUMENT_BYTES_MAX >> 20)));
    }
    let text = match std::str::from_utf8(document) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => return Err(Unusable(format!("is no text in UTF-8 at byte {}; {ACCEPTED}", error.valid_up_to()))),
    };
    let root = if text.trim_start().starts_with('{') { read_json(text) } else { read_yaml(text) }?;
    Reader::new(&root)?.read()
}

// === impl Notes ===

impl Notes {
    /// One more.
    pub fn add(&mut self, note: String) {
        if self.kept.len() < NOTES_MAX {
            self.kept.push(note);
        } else {
            self.more += 1;
        }
    }

    /// All of them after ours.
    pub fn append(&mut self, other: &Notes) {
        other.kept.iter().for_each(|note| self.add(note.clone()));
        self.more += other.more;
    }

    /// The first ones.
    #[must_use]
    pub fn kept(&self) -> &[String] {
        &self.kept
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kept.len() + self.more
    }
}

// === impl Unusable ===

impl fmt::Display for Unusable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

// === the document as a tree, without what nobody asks for ===

/// A value; numbers are texts, since `swagger: 2.0` is meant as one.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Where in the document something stands, and so which of its keys are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Root,
    Components,
    /// A map of path items by path or name.
    Items,
    Item,
    /// A map of operations by method (OpenAPI 3.2).
    Operations,
    Operation,
    /// A list of servers.
    Servers,
    Server,
    /// A map of variables by name.
    Variables,
    Variable,
    /// A list of texts.
    Texts,
    Text,
}

/// Reads what stands at a place, as long as there is room.
#[derive(Clone, Copy)]
struct Reading<'r> {
    place: Place,
    /// Bytes that may be kept from here on.
    room: &'r Cell<usize>,
}

impl Place {
    /// Where the value of a key stands; `None`: nobody asks for it.
    fn below(self, key: &str) -> Option<Place> {
        match (self, key) {
            (Place::Root, "swagger" | "openapi" | "basePath") | (Place::Item, "$ref") => Some(Place::Text),
            (Place::Root | Place::Item | Place::Operation, "servers") => Some(Place::Servers),
            (Place::Root, "paths") | (Place::Components, "pathItems") => Some(Place::Items),
            (Place::Root, "components") => Some(Place::Components),
            (Place::Items, key) => (!key.starts_with("x-")).then_some(Place::Item),
            (Place::Item, "additionalOperations") => Some(Place::Operations),
            (Place::Item, key) => method(key).map(|_| Place::Operation),
            (Place::Operations, _) => Some(Place::Operation),
            (Place::Server, "url") | (Place::Variable, "default") => Some(Place::Text),
            (Place::Server, "variables") => Some(Place::Variables),
            (Place::Variables, _) => Some(Place::Variable),
            (Place::Variable, "enum") => Some(Place::Texts),
            _ => None,
        }
    }

    /// Of what its list is, and how many are kept; one more than is used tells that there were more.
    fn within(self) -> Option<(Place, usize)> {
        match self {
            Place::Servers => Some((Place::Server, SERVERS_MAX + 1)),
            // Beside the default value, which may be one of them.
            Place::Texts => Some((Place::Text, PREFIXES_MAX + 2)),
            _ => None,
        }
    }

    /// How many keys of its map are kept. Where only known keys are, each is kept once.
    fn keys_max(self) -> usize {
        match self {
            Place::Variables => VARIABLES_MAX,
            Place::Operations => OPERATIONS_MAX,
            _ => usize::MAX,
        }
    }
}

/// The method of a key of a path item.
fn method(key: &str) -> Option<Method> {
    match key {
        "get" => Some(Method::Get),
        "put" => Some(Method::Put),
        "post" => Some(Method::Post),
        "delete" => Some(Method::Delete),
        "options" => Some(Method::Options),
        "head" => Some(Method::Head),
        "patch" => Some(Method::Patch),
        "trace" => Some(Method::Trace),
        "query" => Some(Method::Query),
        _ => None,
    }
}

fn read_json(text: &str) -> Result<Node, Unusable> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let room = Cell::new(KEPT_BYTES_MAX);
    let root = Reading { place: Place::Root, room: &room };
    let read = root.deserialize(&mut reader).and_then(|root| reader.end().map(|()| root));
    read.map_err(|error| {
        let message = error.to_string();
        // The place stands in front, as everywhere.
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
        let place = format!("line {} column {}", error.line(), error.column());
        Unusable(format!("is not valid JSON at {place}: {}; {ACCEPTED}", one_line(message)))
    })
}

fn read_yaml(text: &str) -> Result<Node, Unusable> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: YAML_NODES_MAX,
            max_events: YAML_NODES_MAX * 2,
            // Schemas nest; serde_json goes as deep.
            max_depth: 128,
            max_documents: 1,
            max_recorded_anchor_events: YAML_ANCHORED_EVENTS_MAX,
            max_recorded_anchor_bytes: YAML_ANCHORED_BYTES_MAX,
        },
        // A repeated path is noted, not refused.
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    let room = Cell::new(KEPT_BYTES_MAX);
    let root = Reading { place: Place::Root, room: &room };
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| root.deserialize(reader));
    read.map_err(|error| {
        let place = error
            .location()
            .filter(|location| location.line() > 0)
            .map_or_else(String::new, |location| format!(" at line {} column {}", location.line(), location.column()));
        let message = UserMessageFormatter.format_message(error.without_snippet()).into_owned();
        Unusable(format!("is not valid YAML{place}: {}; {ACCEPTED}", one_line(&message)))
    })
}

// === impl Reading ===

impl Reading<'_> {
    /// Takes room for a value with a text of so many bytes.
    fn keep<E: serde::de::Error>(self, bytes: usize) -> Result<(), E> {
        match self.room.get().checked_sub(NODE_BYTES + bytes) {
            Some(left) => {
                self.room.set(left);
                Ok(())
            }
            None => Err(E::custom(format!(
                "more than {} MiB of paths, methods and servers are there",
                KEPT_BYTES_MAX >> 20
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Node;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Text(value.to_string()))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        let value = &value[..value.floor_char_boundary(TEXT_BYTES_MAX)];
        self.keep(value.len())?;
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        if let Some((place, most)) = self.place.within() {
            while items.len() < most {
                let Some(item) = list.next_element_seed(Reading { place, ..self })? else {
                    return Ok(Node::List(items));
                };
                self.keep(0)?;
                items.push(item);
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let named = !matches!(self.place, Place::Items | Place::Operations | Place::Variables);
        while let Some(key) = map.next_key::<String>()? {
            let again = named && entries.iter().any(|(other, _)| *other == key);
            match self.place.below(&key) {
                Some(place) if !again && entries.len() < self.place.keys_max() => {
                    self.keep(key.len())?;
                    entries.push((key, map.next_value_seed(Reading { place, ..self })?));
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            // Before anything is multiplied: ten times what is used, so that a document of 32 MiB of keys ends early.
            if self.place == Place::Items && entries.len() > TEMPLATES_MAX * 10 {
                return Err(A::Error::custom(format!("more than {} paths", TEMPLATES_MAX * 10)));
            }
        }
        Ok(Node::Map(entries))
    }
}

impl Node {
    fn get(&self, key: &str) -> Option<&Node> {
        let Node::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, node)| node).filter(|node| **node != Node::Null)
    }

    /// What it is, for a sentence.
    fn shape(&self) -> String {
        match self {
            Node::Null => "no value".to_owned(),
            Node::Text(text) => found(text),
            Node::List(_) => "a list".to_owned(),
            Node::Map(_) => "a map".to_owned(),
        }
    }
}

// === from the tree to templates ===

/// Reads one document.
struct Reader<'a> {
    root: &'a Node,
    /// Swagger 2.0 knows no servers.
    swagger: bool,
    prefixes: Vec<String>,
    import: Import,
    /// Where each path stands among the templates.
    known: HashMap<String, usize>,
    /// What can be referred to, once something is.
    targets: Option<Targets<'a>>,
    /// Bytes of paths that may still be handled.
    work: usize,
}

/// Path items by path, and by name.
struct Targets<'a> {
    paths: HashMap<&'a str, &'a Node>,
    named: HashMap<&'a str, &'a Node>,
}

impl<'a> Reader<'a> {
    fn new(root: &'a Node) -> Result<Reader<'a>, Unusable> {
        let Node::Map(_) = root else {
            return Err(Unusable(format!("has {} at its top; {ACCEPTED}", root.shape())));
        };
        let mut reader = Reader {
            root,
            swagger: false,
            prefixes: vec![String::new()],
            import: Import::default(),
            known: HashMap::new(),
            targets: None,
            work: WORK_MAX,
        };
        match (root.get("swagger"), root.get("openapi")) {
            (Some(Node::Text(version)), _) if version == "2" || version == "2.0" => {
                reader.swagger = true;
                reader.prefixes = vec![match root.get("basePath") {
                    None => String::new(),
                    Some(Node::Text(path)) => with_slash(path),
                    Some(other) => return Err(wrong("basePath", other, "a path such as /v1")),
                }];
            }
            (None, Some(Node::Text(version))) if version == "3" || version.starts_with("3.") => {
                reader.prefixes = reader.prefixes_of(root, "servers")?.unwrap_or_else(|| vec![String::new()]);
            }
            (Some(other), _) => return Err(wrong("swagger", other, "\"2.0\"")),
            (None, Some(other)) => return Err(wrong("openapi", other, "3.0, 3.1 or 3.2")),
            (None, None) => return Err(Unusable(format!("has neither the key openapi nor swagger; {ACCEPTED}"))),
        }
        Ok(reader)
    }

    fn read(mut self) -> Result<Import, Unusable> {
        const EXPECTED: &str = "a map of paths such as /users/{id}";
        match self.root.get("paths") {
            // OpenAPI 3.1 allows a document of webhooks or components alone.
            None if !self.swagger => self.import.notes.add("has no paths".to_owned()),
            Some(Node::Map(paths)) => {
                for (path, item) in paths {
                    self.path(path, item)?;
                }
            }
            other => return Err(wrong("paths", other.unwrap_or(&Node::Null), EXPECTED)),
        }
        Ok(self.import)
    }

    /// Takes one path and its item.
    fn path(&mut self, path: &str, item: &Node) -> Result<(), Unusable> {
        if !path.starts_with('/') {
            self.import.notes.add(format!("skipped {}: it does not start with a slash", found(path)));
            return Ok(());
        }
        let place = format!("paths.{}", shown(path));
        let Some(item) = self.follow(&place, item)? else { return Ok(()) };
        let entries: &[(String, Node)] = match item {
            Node::Map(entries) => entries,
            // A path whose item is commented out.
            Node::Null => &[],
            other => return Err(wrong(&place, other, "a map of methods")),
        };
        let own = self.prefixes_of(item, &format!("{place}.servers"))?;
        let common = own.unwrap_or_else(|| self.prefixes.clone());
        // Path by path of a server, the methods there.
        let mut by_prefix: Vec<(String, Vec<Method>)> = common.iter().map(|prefix| (prefix.clone(), vec![])).collect();
        let mut overridden = false;
        for (key, operation) in operations(entries) {
            let Some(method) = key else { continue };
            let own = self.prefixes_of(operation, &format!("{place}.{}.servers", method.as_str().to_lowercase()))?;
            overridden |= own.is_some();
            for prefix in own.as_ref().unwrap_or(&common) {
                self.spend(by_prefix.len() * prefix.len().max(1))?;
                match by_prefix.iter().position(|(other, _)| other == prefix) {
                    Some(at) if by_prefix[at].1.contains(&method) => {}
                    Some(at) => by_prefix[at].1.push(method),
                    None if by_prefix.len() >= PREFIXES_MAX * 4 => {
                        self.import.notes.add(format!("{place}: its operations have too many servers of their own"));
                        break;
                    }
                    None => by_prefix.push((prefix.clone(), vec![method])),
                }
            }
        }
        for (prefix, methods) in by_prefix {
            // Where each operation has servers of its own, nothing is at the common ones.
            if !(overridden && methods.is_empty()) {
                self.spend(prefix.len() + path.len())?;
                self.add(&format!("{prefix}{path}"), methods);
            }
        }
        Ok(())
    }

    /// Adds a template if it can be one.
    fn add(&mut self, path: &str, methods: Vec<Method>) {
        // Queries and fragments in keys of `paths` tell operations of one path apart.
        let path = &path[..end_of_path(path)];
        let notes = &mut self.import.notes;
        if path.len() > TEMPLATE_BYTES_MAX || path.split('/').count() > SEGMENTS_MAX {
            notes.add(format!(
                "skipped {}: longer than {TEMPLATE_BYTES_MAX} bytes or {SEGMENTS_MAX} segments",
                found(path)
            ));
        } else if path.chars().any(|c| c.is_control() || c.is_whitespace()) {
            notes.add(format!("skipped {}: it holds a space or a control character", found(path)));
        } else if let Some(known) = self.known.get(path) {
            notes.add(format!("{} is there again; the methods are joined", found(path)));
            let joined = &mut self.import.templates[*known].methods;
            for method in methods {
                if !joined.contains(&method) {
                    joined.push(method);
                }
            }
        } else if self.import.templates.len() >= TEMPLATES_MAX {
            notes.add(format!("skipped {}: more than {TEMPLATES_MAX} templates", found(path)));
        } else {
            self.known.insert(path.to_owned(), self.import.templates.len());
            self.import.templates.push(ImportedTemplate { path: path.to_owned(), methods });
        }
    }

    /// The path item behind references; `None`: it is not in this document.
    fn follow<'n>(&mut self, place: &str, item: &'n Node) -> Result<Option<&'n Node>, Unusable>
    where
        'a: 'n,
    {
        let mut item = item;
        for _ in 0..REFERENCES_MAX {
            let target = match item.get("$ref") {
                None => return Ok(Some(item)),
                Some(Node::Text(target)) => target,
                Some(other) => {
                    return Err(wrong(&format!("{place}.$ref"), other, "a reference such as #/paths/~1users"));
                }
            };
            self.spend(target.len())?;
            let root = self.root;
            let found_item = self.targets.get_or_insert_with(|| Targets::new(root)).get(target);
            match found_item {
                Some(found) => item = found,
                None => {
                    self.import.notes.add(format!("skipped {place}: {} is not in this document", found(target)));
                    return Ok(None);
                }
            }
        }
        self.import.notes.add(format!("skipped {place}: more than {REFERENCES_MAX} references lead to each other"));
        Ok(None)
    }

    /// The paths of the servers of a part of the document; `None`: it has none of its own.
    fn prefixes_of(&mut self, part: &Node, place: &str) -> Result<Option<Vec<String>>, Unusable> {
        const EXPECTED: &str = "a list of maps with the key url";
        if self.swagger {
            return Ok(None);
        }
        let servers = match part.get("servers") {
            None => return Ok(None),
            Some(Node::List(servers)) if servers.is_empty() => return Ok(None),
            Some(Node::List(servers)) => servers,
            Some(other) => return Err(wrong(place, other, EXPECTED)),
        };
        let mut prefixes = Vec::new();
        let mut more = false;
        if servers.len() > SERVERS_MAX {
            self.import.notes.add(format!("{place}: only the first {SERVERS_MAX} servers are read"));
        }
        for (index, server) in servers.iter().take(SERVERS_MAX).enumerate() {
            let place = format!("{place}[{index}]");
            let url = match (server, server.get("url")) {
                (_, Some(Node::Text(url))) => url,
                (Node::Map(_), None) => return Err(wrong(&format!("{place}.url"), &Node::Null, "a URL such as /v1")),
                (Node::Map(_), Some(other)) => return Err(wrong(&format!("{place}.url"), other, "a URL such as /v1")),
                (other, _) => return Err(wrong(&place, other, "a map with the key url")),
            };
            self.spend(SERVER_WORK + url.len())?;
            for prefix in paths_of_url(url, server.get("variables")) {
                self.spend(2 * prefix.len())?;
                if prefixes.contains(&prefix) {
                    continue;
                }
                if prefixes.len() < PREFIXES_MAX {
                    prefixes.push(prefix);
                } else {
                    more = true;
                }
            }
        }
        if more {
            self.import.notes.add(format!("{place}: only the first {PREFIXES_MAX} paths of servers are used"));
        }
        Ok(Some(prefixes))
    }

    /// Takes from the work that one document may be.
    fn spend(&mut self, bytes: usize) -> Result<(), Unusable> {
        self.work = self
            .work
            .checked_sub(bytes)
            .ok_or_else(|| Unusable("is too much work: its servers or references are repeated too often".to_owned()))?;
        Ok(())
    }
}

// === impl Targets ===

impl<'a> Targets<'a> {
    fn new(root: &'a Node) -> Targets<'a> {
        let by_key = |items: Option<&'a Node>| {
            let mut by_key = HashMap::new();
            if let Some(Node::Map(entries)) = items {
                for (key, item) in entries {
                    // Of one that is there twice, the first.
                    by_key.entry(key.as_str()).or_insert(item);
                }
            }
            by_key
        };
        let components = root.get("components");
        Targets { paths: by_key(root.get("paths")), named: by_key(components.and_then(|all| all.get("pathItems"))) }
    }

    /// What a reference means, if it is in this document.
    fn get(&self, reference: &str) -> Option<&'a Node> {
        let (items, name) = match reference.strip_prefix("#/paths/") {
            Some(path) => (&self.paths, path),
            None => (&self.named, reference.strip_prefix("#/components/pathItems/")?),
        };
        items.get(unescape(name).as_str()).copied().filter(|item| **item != Node::Null)
    }
}

/// The operations of a path item, with their methods.
fn operations(item: &[(String, Node)]) -> impl Iterator<Item = (Option<Method>, &Node)> {
    item.iter().flat_map(|(key, node)| {
        let additional = match node {
            Node::Map(entries) if key == "additionalOperations" => entries.as_slice(),
            _ => &[],
        };
        let additional = additional.iter().map(|(key, node)| (Some(Method::from_token(key.as_bytes())), node));
        std::iter::once((method(key), node)).chain(additional)
    })
}

/// The paths that a server's URL can have: one, or one for each value that its variables may take. Without a trailing
/// slash.
fn paths_of_url(url: &str, variables: Option<&Node>) -> Vec<String> {
    let default = |name: &str| match variables.and_then(|all| all.get(name)?.get("default")) {
        Some(Node::Text(value)) => Some(value.as_str()),
        _ => None,
    };
    // The authority matters only as what stands before the path, so there a variable is its default.
    let mut url = url.to_owned();
    for _ in 0..REFERENCES_MAX {
        let start = authority_start(&url);
        let end = url[start..].find('/').map_or(url.len(), |at| start + at);
        let authority = if start == 0 && !url.starts_with('{') { "" } else { &url[..end] };
        let Some((open, close)) = braces(authority) else { break };
        let Some(value) = default(&url[open + 1..close]) else { break };
        url.replace_range(open..=close, value);
    }
    let start = authority_start(&url);
    let path = if start == 0 { url.as_str() } else { url[start..].find('/').map_or("", |at| &url[start + at..]) };
    let path = &path[..end_of_path(path)];

    let mut paths = vec![String::new()];
    let mut rest = path;
    for _ in 0..VARIABLES_MAX {
        let Some((open, close)) = braces(rest) else { break };
        let name = &rest[open + 1..close];
        let mut values: Vec<&str> = default(name).into_iter().collect();
        if let Some(Node::List(all)) = variables.and_then(|all| all.get(name)?.get("enum")) {
            for value in all {
                match value {
                    Node::Text(value) if !values.contains(&value.as_str()) => values.push(value),
                    _ => {}
                }
            }
        }
        // A variable that nobody explains is a parameter.
        if values.is_empty() {
            values.push(&rest[open..=close]);
        }
        paths = paths
            .iter()
            .flat_map(|path| values.iter().map(move |value| format!("{path}{}{value}", &rest[..open])))
            // Such a path is in front of no template.
            .filter(|path| path.len() <= TEXT_BYTES_MAX)
            // One more than is used, so that it is seen that there were more.
            .take(PREFIXES_MAX + 1)
            .collect();
        rest = &rest[close + 1..];
    }
    paths.iter().map(|path| with_slash(&format!("{path}{rest}"))).collect()
}

/// Where the authority of a URL starts; 0: it has none.
fn authority_start(url: &str) -> usize {
    match url.find("://") {
        // A variable may stand for the scheme, a slash may not be part of it.
        Some(at) if !url[..at].contains('/') => at + "://".len(),
        _ if url.starts_with("//") => "//".len(),
        _ => 0,
    }
}

/// The first variable of a text: its braces.
fn braces(text: &str) -> Option<(usize, usize)> {
    let open = text.find('{')?;
    Some((open, open + text[open..].find('}')?))
}

/// Where the path of a template or URL ends. Braces may hold a question mark (`{?page}`).
fn end_of_path(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            '?' | '#' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// A path to put before others: with a slash in front, none behind, without dot segments.
fn with_slash(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/').filter(|segment| !matches!(*segment, "" | ".")) {
        match segment {
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.iter().flat_map(|segment| ["/", segment]).collect()
}

/// A segment of a JSON pointer in a URL fragment as it is meant (RFC 6901, sections 4 and 6).
fn unescape(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|digit| (*digit as char).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).replace("~1", "/").replace("~0", "~")
}

// === sentences ===

fn wrong(place: &str, node: &Node, expected: &str) -> Unusable {
    Unusable(format!("has {} at {place}; expected {expected}", node.shape()))
}

/// A found value in quotes, on one line, cut.
fn found(text: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    match text.char_indices().nth(SHOWN_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// A key as part of a place.
fn shown(key: &str) -> String {
    let quoted = found(key);
    if quoted.len() == key.len() + 2 { key.to_owned() } else { quoted }
}

/// A library's words on one line, without the end of a sentence.
fn one_line(message: &str) -> String {
    const SHOWN_CHARS: usize = 200;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
    line.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The templates of a document with their methods, and the notes.
    fn read(document: &str) -> (Vec<(String, Vec<Method>)>, Vec<String>) {
        let import = import(document.as_bytes()).unwrap();
        let templates = import.templates.into_iter().map(|template| (template.path, template.methods)).collect();
        (templates, import.notes.kept().to_vec())
    }

    fn paths(document: &str) -> Vec<String> {
        read(document).0.into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn json_and_yaml_say_the_same() {
        let json = r#"{"swagger": "2.0", "basePath": "/v1/", "paths": {"/a": {"get": {}, "put": null, "x-get": 1}}}"#;
        let yaml = "swagger: 2.0\nbasePath: v1\npaths:\n  /a:\n    get:\n    put: {}\n    summary: x\n";
        let expected = vec![("/v1/a".to_owned(), vec![Method::Get, Method::Put])];
        assert_eq!(read(json), (expected.clone(), vec![]));
        assert_eq!(read(yaml), (expected.clone(), vec![]));
        assert_eq!(read(&format!("\u{feff}{json}")), (expected, vec![]));
    }

    #[test]
    fn servers_put_their_paths_in_front() {
        for (servers, expected) in [
            ("[]", vec![""]),
            ("[{url: 'https://a.example'}]", vec![""]),
            ("[{url: 'https://a.example/'}, {url: /}]", vec![""]),
            ("[{url: 'https://a.example:8080/v1/?x#y'}]", vec!["/v1"]),
            ("[{url: //a.example/v1}, {url: v2/./x/../y}]", vec!["/v1", "/v2/y"]),
            ("[{url: 'https://{host}/{v}', variables: {host: {default: a/b}, v: {default: v1}}}]", vec!["/b/v1"]),
            ("[{url: '{any}/x', variables: {any: {default: 'https://a.example/y'}}}]", vec!["/y/x"]),
            (
                "[{url: '{scheme}://a.example/x', variables: {scheme: {default: http, enum: [http, https]}}}]",
                vec!["/x"],
            ),
            ("[{url: '/{v}/x', variables: {v: {default: a, enum: [b, a, 1]}}}]", vec!["/a/x", "/b/x", "/1/x"]),
            ("[{url: '/{tenant}/x'}]", vec!["/{tenant}/x"]),
            ("[{url: '{}'}, {url: '{'}, {url: ''}]", vec!["/{}", "/{", ""]),
        ] {
            let document = format!("openapi: 3.2.0\nservers: {servers}\npaths: {{/p: {{get: }}}}\n");
            let expected: Vec<_> = expected.iter().map(|prefix| format!("{prefix}/p")).collect();
            assert_eq!(paths(&document), expected, "{servers}");
        }
        let many: Vec<_> = (0..20).map(|n| format!("{{url: /s{n}}}")).collect();
        let document = format!("openapi: '3'\nservers: [{}]\npaths: {{/p: }}\n", many.join(", "));
        let (templates, notes) = read(&document);
        assert_eq!(templates.len(), PREFIXES_MAX);
        assert_eq!(notes, ["servers: only the first 16 paths of servers are used"]);
        // Variables do not multiply without a bound.
        let values: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        let variable = format!("{{default: '0', enum: [{}]}}", values.join(", "));
        let document = format!(
            "openapi: 3.0.0\nservers: [{{url: '/{{a}}/{{b}}/{{c}}', variables: {{a: {variable}, b: {variable}, c: {variable}}}}}]\npaths: {{/p: }}\n"
        );
        assert_eq!(read(&document).0.len(), PREFIXES_MAX);
    }

    #[test]
    fn operations_and_references_are_followed_within_the_document() {
        let document = "
openapi: 3.2.0
paths:
  /a: {$ref: '#/components/pathItems/one'}
  /b: {$ref: '#/paths/~1c~1%7Bx%7D'}
  /c/{x}: {get: {}, additionalOperations: {COPY: {}, query: {}}, query: {}}
  /d: {$ref: '#/paths/~1d'}
  /e: {$ref: 'https://a.example/e.yaml'}
  /f: {servers: [{url: /own}], get: {}, post: {servers: [{url: /post}]}}
  /g: {get: {servers: [{url: /only}]}}
components:
  pathItems: {one: {$ref: '#/components/pathItems/two'}, two: {delete: {}}}
";
        let (templates, notes) = read(document);
        let expected: Vec<(String, Vec<Method>)> = vec![
            ("/a".into(), vec![Method::Delete]),
            ("/b".into(), vec![Method::Get, Method::Other, Method::Query]),
            ("/c/{x}".into(), vec![Method::Get, Method::Other, Method::Query]),
            ("/own/f".into(), vec![Method::Get]),
            ("/post/f".into(), vec![Method::Post]),
            ("/only/g".into(), vec![Method::Get]),
        ];
        assert_eq!(templates, expected);
        assert_eq!(
            notes,
            [
                "skipped paths./d: more than 8 references lead to each other",
                "skipped paths./e: \"https://a.example/e.yaml\" is not in this document",
            ]
        );
    }

    #[test]
    fn what_cannot_be_a_template_is_left_out_with_a_note() {
        let long = "x".repeat(TEMPLATE_BYTES_MAX);
        let deep = "/x".repeat(SEGMENTS_MAX);
        let document = format!(
            "openapi: 3.1.0\npaths:\n  a: {{}}\n  x-b: 7\n  '/c d': {{}}\n  \"/e\\u0007\": {{}}\n  /{long}: {{}}\n  {deep}: {{}}\n  \
             /f?x=1: {{get: }}\n  /f?x=2: {{put: }}\n  /f#y: {{get: }}\n  /g{{?page}}: {{}}\n"
        );
        let (templates, notes) = read(&document);
        assert_eq!(templates, [("/f".to_owned(), vec![Method::Get, Method::Put]), ("/g{?page}".to_owned(), vec![])]);
        assert_eq!(
            notes,
            [
                "skipped \"a\": it does not start with a slash".to_owned(),
                "skipped \"/c d\": it holds a space or a control character".to_owned(),
                "skipped \"/e\\u{7}\": it holds a space or a control character".to_owned(),
                format!("skipped \"/{}\"…: longer than 512 bytes or 64 segments", "x".repeat(79)),
                format!("skipped \"{}\"…: longer than 512 bytes or 64 segments", "/x".repeat(40)),
                "\"/f\" is there again; the methods are joined".to_owned(),
                "\"/f\" is there again; the methods are joined".to_owned(),
            ]
        );
    }

    #[test]
    fn too_many_paths_are_cut_and_the_notes_about_them_counted() {
        let entries: Vec<_> = (0..TEMPLATES_MAX + 500).map(|n| format!("\"/p{n}\": {{}}")).collect();
        let import =
            import(format!("{{\"openapi\": \"3.0.0\", \"paths\": {{{}}}}}", entries.join(",")).as_bytes()).unwrap();
        assert_eq!((import.templates.len(), import.notes.count()), (TEMPLATES_MAX, 500));
        assert_eq!(import.notes.kept().len(), NOTES_MAX);
        let entries: Vec<_> = (0..=TEMPLATES_MAX * 10).map(|n| format!("\"/p{n}\": {{}}")).collect();
        let error =
            super::import(format!("{{\"openapi\": \"3.0.0\", \"paths\": {{{}}}}}", entries.join(",")).as_bytes());
        assert!(error.unwrap_err().to_string().contains("more than 100000 paths"));
    }

    /// Each sentence follows the name of the document.
    #[test]
    fn mistakes_are_one_sentence_with_place_found_and_accepted() {
        const ACCEPTED: &str = "; expected a Swagger 2.0 or OpenAPI 3 document in JSON or YAML";
        for (document, expected) in [
            ("", format!("has no value at its top{ACCEPTED}")),
            ("hello", format!("has \"hello\" at its top{ACCEPTED}")),
            ("[1]", format!("has a list at its top{ACCEPTED}")),
            ("a: b", format!("has neither the key openapi nor swagger{ACCEPTED}")),
            (
                "{\"openapi\": \"3.0.0\",\n \"paths\": {",
                format!("is not valid JSON at line 2 column 11: EOF while parsing an object{ACCEPTED}"),
            ),
            (
                "{\"openapi\": \"3.0.0\"} x",
                format!("is not valid JSON at line 1 column 22: trailing characters{ACCEPTED}"),
            ),
            ("openapi: 4.0.0", "has \"4.0.0\" at openapi; expected 3.0, 3.1 or 3.2".to_owned()),
            ("openapi: [3]", "has a list at openapi; expected 3.0, 3.1 or 3.2".to_owned()),
            ("swagger: '1.2'", "has \"1.2\" at swagger; expected \"2.0\"".to_owned()),
            ("swagger: '2.0'", "has no value at paths; expected a map of paths such as /users/{id}".to_owned()),
            ("swagger: '2.0'\nbasePath: [x]", "has a list at basePath; expected a path such as /v1".to_owned()),
            (
                "openapi: 3.0.0\npaths: [x]",
                "has a list at paths; expected a map of paths such as /users/{id}".to_owned(),
            ),
            ("openapi: 3.0.0\npaths: {/a: 5}", "has \"5\" at paths./a; expected a map of methods".to_owned()),
            (
                "openapi: 3.0.0\npaths: {/a: {$ref: {}}}",
                "has a map at paths./a.$ref; expected a reference such as #/paths/~1users".to_owned(),
            ),
            (
                "openapi: 3.0.0\nservers: /v1",
                "has \"/v1\" at servers; expected a list of maps with the key url".to_owned(),
            ),
            ("openapi: 3.0.0\nservers: [/v1]", "has \"/v1\" at servers[0]; expected a map with the key url".to_owned()),
            (
                "openapi: 3.0.0\nservers: [{ur: /v1}]",
                "has no value at servers[0].url; expected a URL such as /v1".to_owned(),
            ),
            (
                "openapi: 3.0.0\npaths: {/a: {get: {servers: 1}}}",
                "has \"1\" at paths./a.get.servers; expected a list of maps with the key url".to_owned(),
            ),
        ] {
            let error = import(document.as_bytes()).expect_err(document);
            assert_eq!(error.to_string(), expected, "{document}");
        }
        let error = import(b"openapi: 3.0.0\npaths: {/a: [}").unwrap_err().to_string();
        assert!(error.starts_with("is not valid YAML at line 2 column ") && error.ends_with(ACCEPTED), "{error}");
        assert_eq!(import(b"a\xff").unwrap_err().to_string(), format!("is no text in UTF-8 at byte 1{ACCEPTED}"));
        let large = vec![b' '; (DOCUMENT_BYTES_MAX + 1) as usize];
        assert_eq!(import(&large).unwrap_err().to_string(), format!("is larger than 32 MiB{ACCEPTED}"));
    }

    #[test]
    fn references_servers_and_values_without_number_end_soon() {
        let begun = tokio::time::Instant::now();
        // Each path is another one by reference.
        let entries: Vec<_> =
            (0..90_000).map(|n| format!("\"/p{n}\": {{\"$ref\": \"#/paths/~1p{}\"}}", 89_999)).collect();
        let all = format!("{{\"openapi\": \"3.0.0\", \"paths\": {{{}}}}}", entries.join(","));
        assert_eq!(import(all.as_bytes()).unwrap().notes.count(), 90_000);
        let item = "\"/last\": {\"get\": {}}";
        let entries: Vec<_> = (0..90_000).map(|n| format!("\"/p{n}\": {{\"$ref\": \"#/paths/~1last\"}}")).collect();
        let all = format!("{{\"openapi\": \"3.0.0\", \"paths\": {{{},{item}}}}}", entries.join(","));
        assert_eq!(import(all.as_bytes()).unwrap().templates.len(), TEMPLATES_MAX);
        // All of them have the servers of one.
        let servers: Vec<_> = (0..SERVERS_MAX).map(|n| format!("{{\"url\": \"/s{n}\"}}")).collect();
        let item = format!("\"/last\": {{\"get\": {{}}, \"servers\": [{}]}}", servers.join(","));
        let all = format!("{{\"openapi\": \"3.0.0\", \"paths\": {{{},{item}}}}}", entries.join(","));
        assert!(import(all.as_bytes()).unwrap_err().to_string().starts_with("is too much work: "));
        // A second of an optimised build.
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    }

    #[test]
    fn no_more_is_kept_of_a_document_than_is_used() {
        let room = |document: &str| {
            let room = Cell::new(KEPT_BYTES_MAX);
            let root = Reading { place: Place::Root, room: &room };
            root.deserialize(&mut serde_json::Deserializer::from_str(document)).unwrap();
            KEPT_BYTES_MAX - room.get()
        };
        let many = vec!["[{\"x\": \"y\"}, 1]"; 10_000].join(",");
        for whole in ["{\"servers\": [{\"url\": \"/\", \"x\": [#]}]}", "{\"x\": [#], \"servers\": [{\"url\": [#]}]}"] {
            assert!(room(&whole.replace('#', &many)) < 1_000, "{whole}");
        }
        let values: Vec<_> = (0..1_000_000).map(|n| format!("\"{n}\"")).collect();
        let server = format!(
            "{{\"url\": \"/{{v}}\", \"variables\": {{\"v\": {{\"default\": \"a\", \"enum\": [{}]}}}}}}",
            values.join(",")
        );
        let document = format!("{{\"openapi\": \"3.0.0\", \"servers\": [{server}], \"paths\": {{\"/p\": {{}}}}}}");
        assert!(room(&document) < 10_000);
        assert_eq!(read(&document).0.len(), PREFIXES_MAX);
        let servers: Vec<_> = (0..100_000).map(|n| format!("{{\"url\": \"/s{n}\"}}")).collect();
        assert!(room(&format!("{{\"servers\": [{}]}}", servers.join(","))) < SERVERS_MAX * 1_000);
        let long = "x".repeat(1 << 20);
        assert!(room(&format!("{{\"servers\": [{{\"url\": \"{long}\"}}]}}")) < 10_000);
        // What is used has an end too.
        let servers = vec!["{\"url\": \"/\"}"; 900].join(",");
        let entries: Vec<_> = (0..1_000).map(|n| format!("\"/p{n}\": {{\"servers\": [{servers}]}}")).collect();
        let document = format!("{{\"openapi\": \"3.0.0\", \"paths\": {{{}}}}}", entries.join(","));
        let error = import(document.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more than 64 MiB of paths, methods and servers are there; expected"), "{error}");
    }

    #[test]
    fn bombs_are_refused() {
        let nested = format!("{{\"openapi\": \"3.0.0\", \"x\": {}", "[".repeat(1_000_000));
        assert!(import(nested.as_bytes()).is_err());
        let servers = format!("{{\"openapi\": \"3.0.0\", \"servers\": {}", "[".repeat(1_000_000));
        assert!(import(servers.as_bytes()).is_err());
        let mut aliases = "openapi: 3.0.0\nservers:\n- &a0 {url: /}\n".to_owned();
        for level in 1..30 {
            aliases.push_str(&format!("- &a{level} {{x: [*a{}, *a{}]}}\n", level - 1, level - 1));
        }
        assert!(import(aliases.as_bytes()).is_err());
        // What aliases lead to would be kept twice.
        let anchored = |events: usize| {
            let list = vec!["x"; events].join(", ");
            import(format!("openapi: 3.0.0\nx: &a [{list}]\ny: *a\npaths: {{/p: }}\n").as_bytes())
        };
        assert!(anchored(YAML_ANCHORED_EVENTS_MAX / 4).is_ok());
        assert!(anchored(YAML_ANCHORED_EVENTS_MAX + 1).is_err());
    }

    /// JSON of the vocabulary of documents, in any shape.
    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let text =
            prop::sample::select(vec!["3.0.0", "2.0", "/a", "{x}", "https://h/{x}/", "#/paths/~1a", "", "é\u{7}"]);
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            text.prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 64, 5, |inner| {
            let key = prop::sample::select(vec![
                "openapi",
                "swagger",
                "basePath",
                "servers",
                "url",
                "variables",
                "x",
                "default",
                "enum",
                "paths",
                "/a",
                "/{x}",
                "get",
                "$ref",
                "components",
                "pathItems",
                "additionalOperations",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec((key, inner), 0..6).prop_map(|entries| {
                    entries
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect::<serde_json::Map<_, _>>()
                        .into()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_on_one_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(error) = import(&bytes) {
                prop_assert!(!error.to_string().contains(char::is_control), "{error}");
            }
        }

        #[test]
        fn any_tree_is_read_or_refused_on_one_line(
            tree in any_json(),
            version in prop::sample::select(vec![("openapi", "3.1.0"), ("swagger", "2.0")]),
            known in any::<bool>(),
        ) {
            let mut tree = tree;
            if let (true, Some(root)) = (known, tree.as_object_mut()) {
                root.insert(version.0.to_owned(), version.1.into());
            }
            let text = tree.to_string();
            for text in [text.clone(), format!("# YAML\n{text}")] {
                match import(text.as_bytes()) {
                    Ok(import) => prop_assert!(import.templates.iter().all(|template| template.path.starts_with('/'))),
                    Err(error) => prop_assert!(!error.to_string().contains(char::is_control), "{}", error),
                }
            }
        }
    }
}
