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
    /// Variables besides data source, job and instance, in order.
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
    /// `label_values(...)`, with `@` for the matchers of job and instance.
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
    /// Highest value of the axis.
    pub max: Option<f64>,
    /// Digits after the point.
    pub decimals: Option<u32>,
    /// What is asked.
    pub targets: Vec<Target>,
    /// Changes for single series or columns.
    pub overrides: Vec<Override>,
    /// Grafana's transformations, as it writes them.
    pub transformations: Vec<Json>,
    /// Where a click leads.
    pub links: Vec<Link>,
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
    /// A bar for each series.
    Bars,
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
    /// A plain number.
    Count,
    /// Seconds since 1970, shown as a time ago.
    Since,
    /// Times as much.
    Factor,
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

/// What is different for some series or columns.
#[derive(Clone, Debug)]
pub struct Override {
    /// The name of the series or column.
    pub name: String,
    /// Grafana's property ids and values.
    pub properties: Vec<(&'static str, Json)>,
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
pub const MATCHERS: &str = r#"job=~"$job",instance=~"$instance""#;

/// Grafana's model at 10.4, which later versions migrate upwards.
const SCHEMA_VERSION: u32 = 39;

/// Columns of the grid.
const COLUMNS: u32 = 24;

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
            Variable { name: "job", label: "Job", query: "label_values(golden_build_info, job)", multi: true },
            Variable {
                name: "instance",
                label: "Instance",
                query: r#"label_values(golden_build_info{job=~"$job"}, instance)"#,
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
                json["allValue"] = ".+".into();
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
            "Restart",
            "orange",
            "changes(process_start_time_seconds{@}[2m]) > 0",
            "Sidecar restarted",
            "{{instance}}",
        ),
        mark(
            "Configuration",
            "blue",
            "changes(golden_config_last_reload_success_timestamp_seconds{@}[2m]) > 0",
            "Configuration reloaded",
            "{{instance}}",
        ),
        mark(
            "Version",
            "purple",
            "count by (version) (golden_build_info{@}) unless count by (version) (golden_build_info{@} offset 5m)",
            "New version",
            "{{version}}",
        ),
        mark(
            "Alert",
            "red",
            r#"ALERTS{@,alertstate="firing",alertname=~"Golden.+",alertname!="GoldenWatchdog"}"#,
            "{{alertname}}",
            "{{severity}}",
        ),
    ]
}

// === impl Panel ===

impl Panel {
    /// A panel of this kind and width, otherwise empty: what else it needs is filled in.
    pub fn new(title: impl Into<String>, kind: Kind, width: u32) -> Panel {
        Panel {
            title: title.into(),
            shows: String::new(),
            normal: String::new(),
            act: String::new(),
            width,
            kind,
            unit: Unit::Count,
            thresholds: Vec::new(),
            mappings: Vec::new(),
            min: None,
            max: None,
            decimals: None,
            targets: Vec::new(),
            overrides: Vec::new(),
            transformations: Vec::new(),
            links: Vec::new(),
        }
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
        let steps: Vec<Json> = if self.thresholds.is_empty() {
            vec![json!({"color": Colour::Neutral.name(), "value": null})]
        } else {
            self.thresholds.iter().map(|step| json!({"color": step.colour.name(), "value": step.from})).collect()
        };
        let coloured = !self.thresholds.is_empty();
        let lines = matches!(self.kind, Kind::Lines | Kind::Stacked);
        let mut json = json!({
            "unit": self.unit.grafana(),
            "thresholds": {"mode": "absolute", "steps": steps},
            "color": {"mode": if coloured && !lines { "thresholds" } else { "palette-classic" }},
            "mappings": self.mappings.iter().enumerate().map(|(at, mapping)| mapping.json(at)).collect::<Vec<_>>(),
            "custom": self.custom(),
        });
        for (key, value) in [("min", self.min), ("max", self.max)] {
            if let Some(value) = value {
                json[key] = value.into();
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
                "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": if stacked { 1 } else { 2 },
                "fillOpacity": if stacked { 40 } else { 0 }, "gradientMode": "none", "showPoints": "never",
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
            Kind::Stat | Kind::Bars => json!({}),
        }
    }

    fn options(&self) -> Json {
        let last = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
        match self.kind {
            Kind::Lines | Kind::Stacked => json!({
                "legend": {
                    "showLegend": true, "displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"],
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Kind::Stat => json!({
                "reduceOptions": last, "orientation": "auto", "textMode": "auto", "wideLayout": true,
                "colorMode": if self.thresholds.is_empty() { "none" } else { "background_solid" },
                "graphMode": "none", "justifyMode": "center",
            }),
            Kind::Table => {
                json!({"showHeader": true, "cellHeight": "sm", "footer": {"show": false, "reducer": ["sum"], "countRows": false, "fields": ""}})
            }
            Kind::Bars => json!({
                "reduceOptions": last, "orientation": "horizontal", "displayMode": "basic", "valueMode": "text",
                "showUnfilled": true, "minVizWidth": 8, "minVizHeight": 16, "namePlacement": "auto", "sizing": "auto",
            }),
        }
    }
}

// === impl Kind ===

impl Kind {
    /// The id of Grafana's panel plugin.
    fn plugin(self) -> &'static str {
        match self {
            Kind::Stat => "stat",
            Kind::Lines | Kind::Stacked => "timeseries",
            Kind::Table => "table",
            Kind::Bars => "bargauge",
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
            Unit::PerSecond => "cps",
            Unit::Ratio => "percentunit",
            Unit::Count => "short",
            Unit::Since => "dateTimeFromNow",
            Unit::Factor => "suffix:×",
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
    /// Values over time.
    pub fn range(expr: impl Into<String>, legend: impl Into<String>) -> Target {
        Target { expr: expr.into(), legend: legend.into(), instant: false, exemplars: false }
    }

    /// The value now.
    pub fn instant(expr: impl Into<String>, legend: impl Into<String>) -> Target {
        Target { instant: true, ..Target::range(expr, legend) }
    }

    /// The same with exemplars.
    #[must_use]
    pub fn with_exemplars(self) -> Target {
        Target { exemplars: true, ..self }
    }

    fn json(&self, at: usize, kind: Kind) -> Json {
        json!({
            "refId": char::from(b'A' + u8::try_from(at).unwrap_or(25)).to_string(),
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
        json!({
            "matcher": {"id": "byName", "options": self.name},
            "properties": properties.collect::<Vec<_>>(),
        })
    }
}

// === impl Link ===

impl Link {
    /// The address below Grafana's root, variables and time kept.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "/d/{}?${{__url_time_range}}&${{datasource:queryparam}}&${{job:queryparam}}&${{instance:queryparam}}{}",
            self.uid, self.more
        )
    }

    fn json(&self) -> Json {
        json!({"title": self.title, "url": self.url(), "targetBlank": false})
    }
}
