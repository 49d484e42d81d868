//! Presets: where the numbers of well-known pools are on their pages. A table of data, so that the one who uses such a
//! library writes a name instead of five expressions.
//!
//! Source: named at each preset.
//! Absent: what a library does not report, as `None`; the pool's own keys can add it.

use super::error::found;

/// The expressions of a preset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preset {
    /// What it is called in the file.
    pub name: &'static str,
    /// Connections in use.
    pub used: &'static str,
    /// Connections that are idle.
    pub idle: Option<&'static str>,
    /// Most connections.
    pub limit: Option<&'static str>,
    /// Requests that wait for a connection.
    pub waiting: Option<&'static str>,
    /// Times that somebody gave up waiting.
    pub timeouts: Option<&'static str>,
}

/// Every preset. A page with several pools needs `labels` as well, or their sum is what is seen.
const PRESETS: [Preset; 9] = [
    // HikariCP by Micrometer (Spring Boot: /actuator/prometheus): its MicrometerMetricsTracker registers
    // `hikaricp.connections.*`, which Micrometer's naming for Prometheus turns into these. Label `pool`.
    Preset {
        name: "hikaricp",
        used: "hikaricp_connections_active",
        idle: Some("hikaricp_connections_idle"),
        limit: Some("hikaricp_connections_max"),
        waiting: Some("hikaricp_connections_pending"),
        timeouts: Some("hikaricp_connections_timeout_total"),
    },
    // Tomcat's request threads: Micrometer's TomcatMetrics registers `tomcat.threads.busy`, `.current` and
    // `.config.max` with the base unit `threads`. Spring Boot has them with `server.tomcat.mbeanregistry.enabled`.
    // Label `name`, one per connector.
    Preset {
        name: "tomcat",
        used: "tomcat_threads_busy_threads",
        idle: Some("tomcat_threads_current_threads - tomcat_threads_busy_threads"),
        limit: Some("tomcat_threads_config_max_threads"),
        waiting: None,
        timeouts: None,
    },
    // Tomcat's JDBC pool, and every other that Spring Boot has metadata of: its DataSourcePoolMetrics registers
    // `jdbc.connections.active`, `.idle` and `.max`. Label `name`. A pool without a bound reports -1.
    Preset {
        name: "tomcat-jdbc",
        used: "jdbc_connections_active",
        idle: Some("jdbc_connections_idle"),
        limit: Some("jdbc_connections_max"),
        waiting: None,
        timeouts: None,
    },
    // Go's database/sql: collectors.NewDBStatsCollector of client_golang. Label `db_name`. The limit is 0 without one.
    // `go_sql_wait_count_total` counts all waits that there ever were, so it is neither `waiting` nor `timeouts`.
    Preset {
        name: "go-sql",
        used: "go_sql_in_use_connections",
        idle: Some("go_sql_idle_connections"),
        limit: Some("go_sql_max_open_connections"),
        waiting: None,
        timeouts: None,
    },
    // SQLAlchemy has no page of its own. Methods of its QueuePool (lib/sqlalchemy/pool/impl.py) as JSON:
    // {"checkedout": p.checkedout(), "checkedin": p.checkedin(), "max": p.size() + p._max_overflow}
    // with p = engine.pool; "max": 0 where the overflow has no bound (-1).
    Preset {
        name: "sqlalchemy",
        used: "/checkedout",
        idle: Some("/checkedin"),
        limit: Some("/max"),
        waiting: None,
        timeouts: None,
    },
    // psycopg_pool: ConnectionPool.get_stats() as JSON ("Pool stats" of its documentation). Its size includes
    // connections that are being made. Errors are timeouts and refusals of a full queue; the key is missing until the
    // first one.
    Preset {
        name: "psycopg_pool",
        used: "/pool_size - /pool_available",
        idle: Some("/pool_available"),
        limit: Some("/pool_max"),
        waiting: Some("/requests_waiting"),
        timeouts: Some("/requests_errors"),
    },
    // node-postgres has no page of its own. Properties of its Pool (packages/pg-pool) as JSON:
    // { totalCount: pool.totalCount, idleCount: pool.idleCount, waitingCount: pool.waitingCount }
    // The limit is the `max` that the pool was made with (10 unless told), so it belongs into the file.
    Preset {
        name: "node-postgres",
        used: "/totalCount - /idleCount",
        idle: Some("/idleCount"),
        limit: None,
        waiting: Some("/waitingCount"),
        timeouts: None,
    },
    // PgBouncer by prometheus-community/pgbouncer_exporter (collector.go): SHOW POOLS and SHOW DATABASES. `used` in its
    // names means idle for a while. Its own console is a database named pgbouncer, with a pool size that nobody asked
    // for. The pool size holds per user: with several, give `limit`. Label `database`.
    Preset {
        name: "pgbouncer",
        used: "pgbouncer_pools_server_active_connections",
        idle: Some("pgbouncer_pools_server_idle_connections + pgbouncer_pools_server_used_connections"),
        limit: Some("pgbouncer_databases_pool_size{database!=\"pgbouncer\"}"),
        waiting: Some("pgbouncer_pools_client_waiting_connections"),
        timeouts: None,
    },
    // OpenTelemetry's semantic conventions for database client metrics (docs/database/database-metrics.md): the
    // `db.client.connection.*` family as its Prometheus exporters spell it, units in braces left out. Label
    // `db_client_connection_pool_name`. Libraries that follow version 1.24 of the conventions, or older, have other names.
    Preset {
        name: "otel",
        used: "db_client_connection_count{db_client_connection_state=\"used\"}",
        idle: Some("db_client_connection_count{db_client_connection_state=\"idle\"}"),
        limit: Some("db_client_connection_max"),
        waiting: Some("db_client_connection_pending_requests"),
        timeouts: Some("db_client_connection_timeouts_total"),
    },
];

/// The preset of this name.
///
/// # Errors
/// What was found and what is accepted, without the key.
pub(super) fn preset(name: &str) -> Result<Preset, String> {
    match PRESETS.iter().find(|preset| preset.name == name) {
        Some(preset) => Ok(*preset),
        None => {
            let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            Err(format!("{} is not a preset; expected one of {}", found(name), known.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PRESETS, Preset, preset};
    use crate::config::expression::{Format, parse};

    #[test]
    fn every_preset_reads_one_format_and_has_a_name_of_its_own() {
        for Preset { name, used, idle, limit, waiting, timeouts } in PRESETS {
            let formats: Vec<Option<Format>> = [Some(used), idle, limit, waiting, timeouts]
                .into_iter()
                .flatten()
                .map(|text| parse(text).unwrap_or_else(|problem| panic!("{name}: {problem}")).format())
                .collect();
            assert!(formats[0].is_some() && formats.iter().all(|format| *format == formats[0]), "{name}: {formats:?}");
            assert_eq!(PRESETS.iter().filter(|preset| preset.name == name).count(), 1);
            assert_eq!(preset(name).map(|preset| preset.used), Ok(used));
        }
    }
}
