//! Golden Sidecar: a reverse proxy beside any HTTP service that measures the four golden signals per route.
//!
//! *A request walks through the house in one direction and leaves one note per signal; samplers put their notes in
//! through a side door; the admin room only reads the notes.*
//!
//! ```text
//!  argv, environment, file               client ⇄ backend
//!        │                                    │
//!     config ─────► app ──────────────────► proxy ──► measure ──► signals ──► exposition ──► admin ──► Prometheus
//!   (plain data)  (wiring)                    │                      ▲
//!                    │                      routes                   │
//!                    └──► saturation, readiness ─────────────────────┘
//!                          ▲
//!                     the kernel, the backend's own metrics (scrape)
//! ```
//!
//! Aside of it all, [`pack`] writes the dashboards and alerts that read those numbers.
//!
//! # The life of a request
//!
//! 1. [`proxy::listener`] accepts on a worker's own socket; a guard counts the connection.
//! 2. [`proxy::connection`] tells HTTP/1.x from HTTP/2 by the first bytes, reads the head, parks what is idle.
//! 3. [`proxy::headers`] looks at the head and writes the one for the backend (pure); [`routes`] finds the route; an
//!    [`measure::Observation`] starts: clock running, in flight +1, outcome "the client left".
//! 4. [`proxy::service`] takes it from there: [`proxy::upstream`] gives a connection from the worker's own pool, or room on
//!    one that requests share. Where one side speaks HTTP/2, [`proxy::exchange`] carries it, in pieces.
//! 5. The response head is noted (status, time to first byte), and may earn a path that nobody knew a label ([`routes`]);
//!    [`proxy::body`] carries the body.
//! 6. The end finishes the observation; a drop before that records what it was born as. Exactly one record per request.
//! 7. [`measure::outcome`] says what it was; the record goes into the worker's own [`signals::shard`]: plain stores of a
//!    single writer, no lock, no allocation, no hashing of labels.
//! 8. A scrape sums the shards, off the request path ([`signals::collect`]), and is written out on a thread of its own
//!    ([`exposition`]).
//!
//! # Threads
//!
//! One per worker, each with a current-thread runtime, its own `SO_REUSEPORT` listener, pool and shard. One for sampling,
//! which blocks for milliseconds, and one for metrics pages, which does too. One more for admin, probing, reloads and the
//! command that is the backend, if there is one ([`command`]).
//!
//! # Who may import whom
//!
//! The table is data in `tests/tidy.rs`, which keeps it true. As absences: `config` names no type of another room but
//! labels. `client` and `scrape`, which ask questions of the sidecar's own, know no metric, and `descriptors` names nobody.
//! `proxy` never sees a metric; it tells an observation what happened. `measure` does no I/O. `admin` cannot change a number. `proxy`, `saturation` and `admin` do not know each other. No global registry, no global config.
//!
//! # Where to add things
//!
//! 1. *A signal*: declare the family in [`signals::families`], give it a cell in [`signals::shard`], a line in
//!    [`signals::collect`], one call in [`measure`], a row in the README's table and in the golden page of
//!    `tests/metrics.rs`.
//! 2. *A probe*: one file in [`saturation`] with a pure parser and a fixture whose every field has a different number;
//!    one line in the sampler's table; a variant in [`labels::Source`], and in [`labels::Resource`] for what can be
//!    full; its families among those that are sampled in [`signals::families`]; a row in [`doctor`].
//! 3. *An option*: one field in [`config`] with unit, default and reason; it does not compile until it is used; one
//!    bad value with its exact message in `tests/configuration.rs`.
//! 4. *A panel or alert*: one entry in [`pack::boards`] or [`pack::alerts`], the alert with its cases and a runbook in
//!    `docs/runbooks`; then `make pack`. The tests tell whether a metric, unit, description, case or runbook is missing.

pub mod admin;
pub mod app;
pub mod client;
pub mod command;
pub mod config;
pub mod demo;
pub mod descriptors;
pub mod doctor;
pub mod exposition;
pub mod inspect;
pub mod labels;
pub mod measure;
pub mod memory;
pub mod pack;
pub mod proxy;
pub mod readiness;
pub mod routes;
pub mod saturation;
pub mod scrape;
pub mod shutdown;
pub mod signals;
pub mod telemetry;
pub mod transport;
pub mod turns;
