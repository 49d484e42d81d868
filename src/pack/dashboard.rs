//! What a dashboard is made of, and how Grafana's classic model (schema 39: from 10.4 on every version takes it) writes it
//! down. Rows hold panels from left to right; places and ids are given here, so they cannot collide.
//!
//! In queries, `@` stands for the matchers of the dashboard's variables: [`Dashboard::json`] puts them in.

use serde_json::{Value as Json, json};

/// A page of panels that answers one question.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Fixed for ever: links lead here. At most 40 characters.
    pub uid: &'static str,
    /// Its name in the list.
    pub title: &'static str,
    /// The question it answers.
    pub description: &'static str,
    /// Variables besides data source, namespace, job and instance, in order.
    pub variables: Vec<Variable>,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// A choice at the top of the page.
#[derive(Clone, Debug)]
pub struct Variable {
    /// As queries write it after the dollar.
    pub name: &'static str,
    /// As people read it.
    pub label: &'static str,
    /// `label_values(...)`, with `@` for the matchers of namespace, job and instance.
    pub query: &'static str,
    /// Whether several, or all, may be chosen.
    pub multi: bool,
}

/// Panels beside each other.
#[derive(Clone, Debug)]
pub struct Row {
    /// Above the panels; none for the first row.
    pub title: Option<&'static str>,
    /// Closed until somebody opens it.
    pub collapsed: bool,
    /// Rows of the grid (30 px each).
    pub height: u32,
    /// Each with its width; what does not fit into 24 columns begins a new line.
    pub panels: Vec<Panel>,
}

/// One picture.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it is, in a few words.
    pub title: String,
    /// What it shows.
    pub shows: String,
    /// What is normal.
    pub normal: String,
    /// What to do when it is not.
    pub act: String,
    /// Columns, of 24.
    pub width: u32,
    /// How it is drawn.
    pub kind: Kind,
    /// Of its numbers.
    pub unit: Unit,
    /// Colour by value, lowest first. Empty: no colours.
    pub thresholds: Vec<Threshold>,
    /// Words instead of numbers.
    pub mappings: Vec<Mapping>,
    /// Lowest value of the axis.
    pub min: Option<f64>,
    /// The axis reaches at least to here.
    pub reach: Option<f64>,
    /// Digits after the point.
    pub decimals: Option<u32>,
    /// What is asked.
    pub targets: Vec<Target>,
    /// Changes for single series or columns.
    pub overrides: Vec<Override>,
    /// Grafana's transformations, as it writes them.
    pub transformations: Vec<Json>,
    /// Of a stat: the names of the series beside their values.
    pub names: bool,
    /// Of a table: the columns that sort it, highest first; a later one where all before it are the same.
    pub sort: Vec<&'static str>,
    /// Of a table: lowest first instead.
    pub ascending: bool,
    /// Of lines: what the legend says.
    pub legend: Legend,
    /// Where a click leads.
    pub links: Vec<Link>,
}

/// What the legend of lines says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legend {
    /// A line for each series, with its last and its highest value.
    Table,
    /// The same beside the lines: for many series in a wide panel.
    Beside,
    /// Names in a row: for narrow panels.
    Names,
}

/// How a panel is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One number, or one word.
    Stat,
    /// Lines over time.
    Lines,
    /// Areas on top of each other.
    Stacked,
    /// Rows and columns.
    Table,
}

/// Units that panels may have: base units only, as the metrics have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Requests per second.
    RequestsPerSecond,
    /// Other things per second.
    PerSecond,
    /// 0 to 1, shown as percent.
    Ratio,
    /// A plain number: things, CPUs, times as much.
    Count,
}

/// From this value on, this colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// `None`: from the lowest value on.
    pub from: Option<f64>,
    /// Its colour.
    pub colour: Colour,
}

/// Colours of states. Never the only carrier of a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// As text: nothing to say.
    Neutral,
    /// Good.
    Fine,
    /// Look.
    Amber,
    /// Act.
    Red,
    /// No statement: no traffic, no data.
    Grey,
}

/// Quantiles that are drawn beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// Half of all.
    Median,
    /// 95 of 100.
    P95,
    /// 99 of 100: what is promised.
    P99,
}

/// A word for a value.
#[derive(Clone, Debug)]
pub enum Mapping {
    /// Of exactly this number.
    Value(f64, &'static str, Colour),
    /// Of nothing at all (null or NaN).
    Nothing(&'static str),
}

/// One query.
#[derive(Clone, Debug)]
pub struct Target {
    /// PromQL, with `@` in each selector and `$__rate_interval` in each rate.
    pub expr: String,
    /// The name of its series, such as `{{http_route}}`.
    pub legend: String,
    /// The value now, instead of values over time.
    pub instant: bool,
    /// Whether exemplars are asked for.
    pub exemplars: bool,
}

/// A column of numbers in a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Above it.
    pub heading: &'static str,
    /// Of its numbers.
    pub unit: Unit,
    /// Colours of its numbers.
    pub thresholds: Vec<Threshold>,
    /// PromQL, as in [`Target::expr`]; one value for each row.
    pub expr: String,
}

/// What is different for some series or columns.
#[derive(Clone, Debug)]
pub struct Override {
    /// Which ones.
    pub of: Match,
    /// Grafana's property ids and values.
    pub properties: Vec<(&'static str, Json)>,
}

/// Which series or columns.
#[derive(Clone, Debug)]
pub enum Match {
    /// The one of this name.
    Name(String),
    /// Those whose names begin so.
    Beginning(&'static str),
    /// What this query gave.
    Query(char),
}

/// Where a click leads: another dashboard of the pack, variables and time kept.
#[derive(Clone, Debug)]
pub struct Link {
    /// As people read it.
    pub title: String,
    /// The uid of the dashboard.
    pub uid: &'static str,
    /// More of the address, such as `&var-route=${__data.fields.Route}`.
    pub more: &'static str,
}

/// All dashboards carry these.
pub const TAGS: [&str; 2] = ["golden-sidecar", "golden-signals"];

/// Matchers of the variables that every dashboard has.
pub const MATCHERS: &str = r#"namespace=~"$namespace",job=~"$job",instance=~"$instance""#;

/// The variable whose label need not be there: targets have it where they are found in a cluster.
const NAMESPACE: &str = "namespace";

/// Grafana's model at 10.4, which later versions migrate upwards.
const SCHEMA_VERSION: u32 = 39;

/// Width of a column of numbers in a table: a heading of two words fits, and eight of them beside three labels.
const COLUMN_PIXELS: u32 = 116;

/// Columns of the grid.
const COLUMNS: u32 = 24;

/// How long a mark of an event lasts: two of the usual steps of 30 seconds, so that none is missed.
const MARK_SECONDS: u32 = 60;

/// So many steps that the rate interval of a number "now" is that of the scrapes, however long the page's range is.
const STEPS_OF_NOW: u32 = 10_000;

/// The variable's value, not a name: the file holds for every Grafana.
const DATASOURCE: &str = "${datasource}";

// === impl Dashboard ===

impl Dashboard {
    /// The file, as Grafana imports and provisions it.
    #[must_use]
    pub fn json(&self) -> Json {
        json!({
            "id": null,
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": TAGS,
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": {},
            "liveNow": false,
            "fiscalYearStartMonth": 0,
            "weekStart": "",
            "__requires": [
                {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.4.0"},
                {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
            ],
            "links": [{
                "type": "dashboards", "title": "Golden Sidecar", "icon": "external link", "tags": [TAGS[0]],
                "asDropdown": true, "includeVars": true, "keepTime": true, "targetBlank": false, "url": "", "tooltip": "",
            }],
            "annotations": {"list": annotations()},
            "templating": {"list": self.templating()},
            "panels": self.panels(),
        })
    }

    /// The first variables are the same everywhere.
    fn templating(&self) -> Vec<Json> {
        let mut list = vec![json!({
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "regex": "",
            "multi": false, "includeAll": false, "hide": 0, "refresh": 1, "skipUrlSync": false, "options": [],
            "current": {},
        })];
        let own = [
            Variable {
                name: NAMESPACE,
                label: "Namespace",
                query: "label_values(golden_build_info, namespace)",
                multi: true,
            },
            Variable {
                name: "job",
                label: "Job",
                query: r#"label_values(golden_build_info{namespace=~"$namespace"}, job)"#,
                multi: true,
            },
            Variable {
                name: "instance",
                label: "Instance",
                query: r#"label_values(golden_build_info{namespace=~"$namespace",job=~"$job"}, instance)"#,
                multi: true,
            },
        ];
        for variable in own.iter().chain(&self.variables) {
            let query = variable.query.replace('@', MATCHERS);
            let mut json = json!({
                "name": variable.name, "label": variable.label, "type": "query", "datasource": datasource(),
                "query": {"query": query, "refId": format!("variable-{}", variable.name)}, "definition": query,
                "regex": "", "sort": 1, "refresh": 2, "hide": 0, "skipUrlSync": false, "options": [],
                "multi": variable.multi, "includeAll": variable.multi, "current": {},
            });
            if variable.multi {
                // Outside of a cluster series have no namespace, which is as good as an empty one.
                json["allValue"] = if variable.name == NAMESPACE { ".*" } else { ".+" }.into();
                json["current"] = json!({"selected": true, "text": ["All"], "value": ["$__all"]});
            }
            list.push(json);
        }
        list
    }

    /// Panels with ids from 1 on, and their places.
    fn panels(&self) -> Vec<Json> {
        let mut out = Vec::new();
        let (mut id, mut y) = (0, 0);
        for row in &self.rows {
            let mut inside = Vec::new();
            let row_at = y;
            y += u32::from(row.title.is_some());
            let mut x = 0;
            for panel in &row.panels {
                if x + panel.width > COLUMNS {
                    (x, y) = (0, y + row.height);
                }
                id += 1;
                inside.push(panel.json(id, json!({"x": x, "y": y, "w": panel.width, "h": row.height})));
                x += panel.width;
            }
            y += row.height;
            if let Some(title) = row.title {
                id += 1;
                let panels = if row.collapsed { std::mem::take(&mut inside) } else { Vec::new() };
                // What is closed takes no room.
                if row.collapsed {
                    y = row_at + 1;
                }
                out.push(json!({
                    "id": id, "type": "row", "title": title, "collapsed": row.collapsed, "panels": panels,
                    "gridPos": {"x": 0, "y": row_at, "w": COLUMNS, "h": 1},
                }));
            }
            out.append(&mut inside);
        }
        out
    }
}

/// What comes from a sidecar's page, and from nobody else's: names that are not ours alone (`process_*`, `http_*`) are on the
/// pages of many programs, and `All` takes every job. `offset`: as the expression has it, or empty.
#[must_use]
pub fn of_sidecars(expr: &str, offset: &str) -> String {
    format!("({expr} and on (job, instance) golden_build_info{{@}}{offset})")
}

fn datasource() -> Json {
    json!({"type": "prometheus", "uid": DATASOURCE})
}

/// Marks on the time axis, from our own metrics.
fn annotations() -> Vec<Json> {
    let mark = |name: &str, colour: &str, expr: &str, title: &str, text: &str| {
        json!({
            "name": name, "enable": true, "hide": false, "iconColor": colour, "datasource": datasource(),
            "expr": expr.replace('@', MATCHERS), "step": "30s", "titleFormat": title, "textFormat": text,
            "tagKeys": "", "useValueForTime": false,
        })
    };
    vec![
        mark(
            "Start",
            "orange",
            // A new instance counts as much as an old one that came back, so not the changes of a series.
            &format!("time() - {} < {MARK_SECONDS}", of_sidecars("process_start_time_seconds{@}", "")),
            "Sidecar started",
            "{{instance}}",
        ),
        mark(
            "Backend restart",
            "yellow",
            &format!("changes(golden_backend_start_time_seconds{{@}}[{MARK_SECONDS}s]) > 0"),
            "Backend restarted",
            "{{instance}}",
        ),
        mark(
            "Configuration",
            "blue",
            &format!("changes(golden_config_last_reload_success_timestamp_seconds{{@}}[{MARK_SECONDS}s]) > 0"),
            "Configuration reloaded",
            "{{instance}}",
        ),
        mark(
            "Version",
            "purple",
            // Where there was nothing before, the version is not new, but the first.
            "count by (version) (golden_build_info{@}) unless count by (version) (golden_build_info{@} offset 5m) \
             and on () count(golden_build_info{@} offset 5m)",
            "New version",
            "{{version}}",
        ),
        mark(
            "Alert",
            "red",
            // Of a service, so without an instance; and only where it begins, as long alerts would cover the page.
            &{
                let firing = concat!(
                    r#"count by (alertname, severity) (ALERTS{namespace=~"$namespace",job=~"$job",alertstate="firing","#,
                    r#"alertname=~"Golden.+",alertname!="GoldenWatchdog"}"#,
                );
                format!("{firing}) unless {firing} offset {MARK_SECONDS}s)")
            },
            "{{alertname}}",
            "{{severity}}",
        ),
    ]
}

// === impl Panel ===

impl Panel {
    /// A panel of this kind and width with its title, and with what it shows, what is normal and what to do otherwise.
    pub fn new(
        kind: Kind,
        width: u32,
        title: impl Into<String>,
        shows: impl Into<String>,
        normal: impl Into<String>,
        act: impl Into<String>,
    ) -> Panel {
        Panel {
            title: title.into(),
            shows: shows.into(),
            normal: normal.into(),
            act: act.into(),
            width,
            kind,
            unit: Unit::Count,
            thresholds: Vec::new(),
            mappings: Vec::new(),
            min: Some(0.0),
            reach: None,
            decimals: None,
            targets: Vec::new(),
            overrides: Vec::new(),
            transformations: Vec::new(),
            names: false,
            sort: Vec::new(),
            ascending: false,
            legend: Legend::Table,
            links: Vec::new(),
        }
    }

    /// With this unit.
    #[must_use]
    pub fn unit(self, unit: Unit) -> Panel {
        Panel { unit, ..self }
    }

    /// With this query: of lines over time, of everything else now.
    #[must_use]
    pub fn ask(mut self, expr: impl Into<String>, legend: impl Into<String>) -> Panel {
        let instant = !matches!(self.kind, Kind::Lines | Kind::Stacked);
        self.targets.push(Target { expr: expr.into(), legend: legend.into(), instant, exemplars: false });
        self
    }

    /// The query with this legend asks for exemplars too. One of a panel is enough: all would bring the same.
    #[must_use]
    pub fn exemplars(mut self, legend: &str) -> Panel {
        self.targets.iter_mut().filter(|target| target.legend == legend).for_each(|target| target.exemplars = true);
        self
    }

    /// With these colours.
    #[must_use]
    pub fn thresholds(self, thresholds: Vec<Threshold>) -> Panel {
        Panel { thresholds, ..self }
    }

    /// This word for this value.
    #[must_use]
    pub fn word(mut self, value: f64, word: &'static str, colour: Colour) -> Panel {
        self.mappings.push(Mapping::Value(value, word, colour));
        self
    }

    /// These words where there is nothing.
    #[must_use]
    pub fn nothing(mut self, words: &'static str) -> Panel {
        self.mappings.push(Mapping::Nothing(words));
        self
    }

    /// Values may be negative.
    #[must_use]
    pub fn signed(self) -> Panel {
        Panel { min: None, ..self }
    }

    /// The axis reaches at least to here.
    #[must_use]
    pub fn reach(self, reach: f64) -> Panel {
        Panel { reach: Some(reach), ..self }
    }

    /// So many digits after the point.
    #[must_use]
    pub fn decimals(self, decimals: u32) -> Panel {
        Panel { decimals: Some(decimals), ..self }
    }

    /// A stat with the names of its series.
    #[must_use]
    pub fn with_names(self) -> Panel {
        Panel { names: true, ..self }
    }

    /// A legend of names alone.
    #[must_use]
    pub fn short_legend(self) -> Panel {
        Panel { legend: Legend::Names, ..self }
    }

    /// A legend beside the lines.
    #[must_use]
    pub fn legend_beside(self) -> Panel {
        Panel { legend: Legend::Beside, ..self }
    }

    /// Something is different for some.
    #[must_use]
    pub fn differ(mut self, of: Match, properties: Vec<(&'static str, Json)>) -> Panel {
        self.overrides.push(Override { of, properties });
        self
    }

    /// Those whose names begin so are limits: dashed, and not part of a stack.
    #[must_use]
    pub fn dashed(self, beginning: &'static str) -> Panel {
        self.differ(
            Match::Beginning(beginning),
            vec![
                ("custom.lineStyle", json!({"fill": "dash", "dash": [8, 6]})),
                ("custom.fillOpacity", json!(0)),
                ("custom.stacking", json!({"group": "A", "mode": "none"})),
                ("color", json!({"mode": "fixed", "fixedColor": Colour::Amber.name()})),
            ],
        )
    }

    /// The series of this name has this colour.
    #[must_use]
    pub fn paint(self, name: &str, colour: &'static str) -> Panel {
        self.differ(Match::Name(name.to_owned()), vec![("color", json!({"mode": "fixed", "fixedColor": colour}))])
    }

    /// The series of this name is a quantile, with the colour and the width that it has everywhere.
    #[must_use]
    pub fn quantile(self, name: &str, quantile: Quantile) -> Panel {
        let (colour, width) = quantile.look();
        self.paint(name, colour).wide(Match::Name(name.to_owned()), width)
    }

    /// These lines are so wide, pixels; 2 without.
    #[must_use]
    pub fn wide(self, of: Match, pixels: u32) -> Panel {
        self.differ(of, vec![("custom.lineWidth", json!(pixels))])
    }

    /// Those whose names begin so have this colour.
    #[must_use]
    pub fn paint_all(self, beginning: &'static str, colour: &'static str) -> Panel {
        self.differ(Match::Beginning(beginning), vec![("color", json!({"mode": "fixed", "fixedColor": colour}))])
    }

    /// A click leads there.
    #[must_use]
    pub fn link(mut self, title: &str, uid: &'static str) -> Panel {
        self.links.push(Link { title: title.to_owned(), uid, more: "" });
        self
    }

    /// A table whose rows are this label's values and whose columns are the queries, each with its heading, its unit and
    /// its colours; sorted by the first.
    #[must_use]
    pub fn table(mut self, label: &'static str, heading: &'static str, columns: Vec<Column>) -> Panel {
        // What joins the rows; the time of each query is the same.
        self.transformations = vec![
            json!({"id": "merge", "options": {}}),
            json!({"id": "organize", "options": {
                "excludeByName": {"Time": true}, "renameByName": {},
                "indexByName": {label: 0},
            }}),
        ];
        self.sort = columns.first().map(|column| column.heading).into_iter().collect();
        self.overrides.insert(
            0,
            Override { of: Match::Name(label.to_owned()), properties: vec![("displayName", json!(heading))] },
        );
        // Grafana names them so, and leaves the letter away where there is one query only.
        let alone = columns.len() == 1;
        for column in columns {
            let name = if alone { "Value".to_owned() } else { format!("Value #{}", letter(self.targets.len())) };
            let mut properties = vec![("displayName", json!(column.heading)), ("unit", json!(column.unit.grafana()))];
            // In a narrow table every pixel counts; Grafana shares them out.
            if self.width >= COLUMNS / 2 {
                properties.push(("custom.width", json!(COLUMN_PIXELS)));
            }
            if !column.thresholds.is_empty() {
                properties.push(("thresholds", steps(&column.thresholds)));
                properties.push(("custom.cellOptions", json!({"type": "color-text"})));
                properties.push(("color", json!({"mode": "thresholds"})));
            }
            self = self.ask(column.expr, "").differ(Match::Name(name), properties);
        }
        self
    }

    /// Those whose names begin so have the right axis and this unit; it reaches at least to here.
    #[must_use]
    pub fn right_axis(self, beginning: &'static str, unit: Unit, reach: f64) -> Panel {
        self.differ(
            Match::Beginning(beginning),
            vec![
                ("unit", json!(unit.grafana())),
                ("custom.axisPlacement", json!("right")),
                ("custom.axisSoftMax", json!(reach)),
                // The lines of the thresholds are of the left axis.
                ("custom.thresholdsStyle", json!({"mode": "off"})),
            ],
        )
    }

    /// A table whose rows are sorted by this column too, where the first one is the same.
    #[must_use]
    pub fn then_by(mut self, heading: &'static str) -> Panel {
        self.sort.push(heading);
        self
    }

    /// In a table: the heading of another label, which stands behind those that were named before.
    #[must_use]
    pub fn heading(mut self, label: &str, heading: &str) -> Panel {
        for order in self.transformations.iter_mut().filter_map(|step| step.pointer_mut("/options/indexByName")) {
            let place = order.as_object().map_or(0, serde_json::Map::len);
            order[label] = place.into();
        }
        self.differ(Match::Name(label.to_owned()), vec![("displayName", json!(heading))])
    }

    /// A table with the lowest of its first column first.
    #[must_use]
    pub fn ascending(self) -> Panel {
        Panel { ascending: true, ..self }
    }

    /// In a table: values of this label lead there.
    #[must_use]
    pub fn link_of(self, label: &'static str, title: &str, uid: &'static str, more: &'static str) -> Panel {
        let link = Link { title: title.to_owned(), uid, more };
        self.differ(Match::Name(label.to_owned()), vec![("links", json!([link.json()]))])
    }

    /// The panel at its place.
    fn json(&self, id: u32, place: Json) -> Json {
        let mut json = json!({
            "id": id,
            "type": self.kind.plugin(),
            "title": self.title,
            "description": self.description(),
            "gridPos": place,
            "datasource": datasource(),
            "targets": self.targets.iter().enumerate().map(|(at, target)| target.json(at, self.kind)).collect::<Vec<_>>(),
            "fieldConfig": {"defaults": self.defaults(), "overrides": self.overrides.iter().map(Override::json).collect::<Vec<_>>()},
            "options": self.options(),
            "transparent": false,
        });
        if self.targets.iter().all(|target| target.instant) {
            json["maxDataPoints"] = STEPS_OF_NOW.into();
        }
        if !self.transformations.is_empty() {
            json["transformations"] = self.transformations.clone().into();
        }
        if !self.links.is_empty() {
            json["links"] = self.links.iter().map(Link::json).collect::<Vec<_>>().into();
        }
        json
    }

    /// What it shows, what is normal, what to do.
    #[must_use]
    pub fn description(&self) -> String {
        format!("{}\n\n**Normal:** {}\n\n**Otherwise:** {}", self.shows, self.normal, self.act)
    }

    fn defaults(&self) -> Json {
        let coloured = !self.thresholds.is_empty();
        let lines = matches!(self.kind, Kind::Lines | Kind::Stacked);
        let mut json = json!({
            "unit": self.unit.grafana(),
            "thresholds": steps(&self.thresholds),
            "color": {"mode": if coloured && !lines { "thresholds" } else { "palette-classic" }},
            "mappings": self.mappings.iter().enumerate().map(|(at, mapping)| mapping.json(at)).collect::<Vec<_>>(),
            "custom": self.custom(),
        });
        if let Some(min) = self.min {
            json["min"] = min.into();
        }
        if let Some(reach) = self.reach {
            json["custom"]["axisSoftMax"] = reach.into();
        }
        for mapping in &self.mappings {
            // A panel without any series has no value that could be mapped.
            if let Mapping::Nothing(words) = mapping {
                json["noValue"] = (*words).into();
            }
        }
        if let Some(decimals) = self.decimals {
            json["decimals"] = decimals.into();
        }
        json
    }

    fn custom(&self) -> Json {
        let stacked = self.kind == Kind::Stacked;
        match self.kind {
            Kind::Lines | Kind::Stacked => json!({
                "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": if stacked { 0 } else { 2 },
                "fillOpacity": if stacked { 70 } else { 0 }, "gradientMode": "none", "showPoints": "never",
                "spanNulls": false, "insertNulls": false, "axisPlacement": "auto", "axisLabel": "",
                "axisColorMode": "text", "axisBorderShow": false, "axisCenteredZero": false,
                "scaleDistribution": {"type": "linear"}, "barAlignment": 0, "pointSize": 5, "axisGridShow": true,
                "stacking": {"group": "A", "mode": if stacked { "normal" } else { "none" }},
                "hideFrom": {"legend": false, "tooltip": false, "viz": false},
                // The lines of the thresholds carry what the colour of a number would.
                "thresholdsStyle": {"mode": if self.thresholds.is_empty() { "off" } else { "dashed" }},
            }),
            Kind::Table => {
                json!({"align": "auto", "cellOptions": {"type": "auto"}, "inspect": false, "filterable": false})
            }
            Kind::Stat => json!({}),
        }
    }

    fn options(&self) -> Json {
        let last = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
        match self.kind {
            Kind::Lines | Kind::Stacked => json!({
                "legend": match self.legend {
                    Legend::Table => json!({
                        "showLegend": true, "displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"],
                    }),
                    Legend::Beside => json!({
                        "showLegend": true, "displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"],
                    }),
                    Legend::Names => json!({
                        "showLegend": true, "displayMode": "list", "placement": "bottom", "calcs": [],
                    }),
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Kind::Stat => json!({
                "reduceOptions": last, "orientation": "auto", "wideLayout": true,
                "textMode": if self.names { "value_and_name" } else { "value" },
                // A word alone fills its field; a number has the colour itself.
                "colorMode": if !self.names
                    && self.mappings.iter().any(|mapping| matches!(mapping, Mapping::Value(..)))
                {
                    "background_solid"
                } else if self.thresholds.is_empty() {
                    "none"
                } else {
                    "value"
                },
                "graphMode": "none", "justifyMode": "center",
            }),
            Kind::Table => {
                let sort: Vec<Json> =
                    self.sort.iter().map(|column| json!({"displayName": column, "desc": !self.ascending})).collect();
                json!({
                    "showHeader": true, "cellHeight": "sm", "sortBy": sort,
                    "footer": {"show": false, "reducer": ["sum"], "countRows": false, "fields": ""},
                })
            }
        }
    }
}

/// The name of the query at this place.
fn letter(at: usize) -> char {
    u8::try_from(at).ok().and_then(|at| b'A'.checked_add(at)).map_or('Z', char::from)
}

fn steps(thresholds: &[Threshold]) -> Json {
    let steps: Vec<Json> =
        thresholds.iter().map(|step| json!({"color": step.colour.name(), "value": step.from})).collect();
    let plain = || vec![json!({"color": Colour::Neutral.name(), "value": null})];
    json!({"mode": "absolute", "steps": if steps.is_empty() { plain() } else { steps }})
}

// === impl Kind ===

impl Kind {
    /// The id of Grafana's panel plugin.
    fn plugin(self) -> &'static str {
        match self {
            Kind::Stat => "stat",
            Kind::Lines | Kind::Stacked => "timeseries",
            Kind::Table => "table",
        }
    }
}

// === impl Unit ===

impl Unit {
    /// Grafana's id.
    #[must_use]
    pub fn grafana(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Bytes => "bytes",
            Unit::BytesPerSecond => "binBps",
            Unit::RequestsPerSecond => "reqps",
            Unit::PerSecond => "eps",
            Unit::Ratio => "percentunit",
            Unit::Count => "short",
        }
    }
}

// === impl Colour ===

impl Colour {
    /// Grafana's name. Blue for fine, not green: with orange and red it is told apart by every eye.
    fn name(self) -> &'static str {
        match self {
            Colour::Neutral => "text",
            Colour::Fine => "blue",
            Colour::Amber => "orange",
            Colour::Red => "red",
            Colour::Grey => "#808080",
        }
    }
}

// === impl Quantile ===

impl Quantile {
    /// Colour and width, pixels. Colours of Okabe and Ito's set: they differ for every eye, on white and on black; and the
    /// further out, the wider.
    fn look(self) -> (&'static str, u32) {
        match self {
            Quantile::Median => ("#56B4E9", 1),
            Quantile::P95 => ("#009E73", 2),
            Quantile::P99 => ("#0072B2", 3),
        }
    }
}

// === impl Mapping ===

impl Mapping {
    fn json(&self, index: usize) -> Json {
        match self {
            Mapping::Value(value, text, colour) => json!({
                "type": "value", "options": {value.to_string(): {"text": text, "color": colour.name(), "index": index}},
            }),
            Mapping::Nothing(text) => json!({
                "type": "special",
                "options": {"match": "null+nan", "result": {"text": text, "color": Colour::Grey.name(), "index": index}},
            }),
        }
    }
}

// === impl Target ===

impl Target {
    fn json(&self, at: usize, kind: Kind) -> Json {
        json!({
            "refId": letter(at).to_string(),
            "datasource": datasource(),
            "editorMode": "code",
            "expr": self.expr.replace('@', MATCHERS),
            "legendFormat": self.legend,
            "instant": self.instant,
            "range": !self.instant,
            "exemplar": self.exemplars,
            "format": if kind == Kind::Table { "table" } else { "time_series" },
        })
    }
}

// === impl Override ===

impl Override {
    fn json(&self) -> Json {
        let properties = self.properties.iter().map(|(id, value)| json!({"id": id, "value": value}));
        json!({"matcher": self.of.json(), "properties": properties.collect::<Vec<_>>()})
    }
}

// === impl Match ===

impl Match {
    fn json(&self) -> Json {
        match self {
            Match::Name(name) => json!({"id": "byName", "options": name}),
            Match::Beginning(beginning) => json!({"id": "byRegexp", "options": format!("/^{beginning}/")}),
            Match::Query(query) => json!({"id": "byFrameRefID", "options": query.to_string()}),
        }
    }
}

// === impl Link ===

impl Link {
    /// The address below Grafana's root, variables and time kept.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "/d/{}?${{__url_time_range}}&${{datasource:queryparam}}&${{namespace:queryparam}}&${{job:queryparam}}\
             &${{instance:queryparam}}{}",
            self.uid, self.more
        )
    }

    fn json(&self) -> Json {
        json!({"title": self.title, "url": self.url(), "targetBlank": false})
    }
}
