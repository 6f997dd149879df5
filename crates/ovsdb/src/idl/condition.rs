//! Which rows travel: conditions on tables, which may change while the replica is live.
//!
//! A table without a condition travels whole. [`Idl::set_condition`] asks for a part of it: at the beginning with the monitor,
//! later by `monitor_cond_change`, one change under way at a time. Until [`Idl::conditions_settled`] the replica holds what
//! either condition lets through. Servers that know only RFC 7047's `monitor` send every row; conditions narrow what
//! travels, and a reader that must not see the rest still looks.

use super::Idl;
use super::session::MonitorVersion;
use crate::{Datum, Uuid};
use ib_base::json::{Json, Object};
use ib_base::vlog::module::OVSDB_IDL;
use std::sync::Arc;

/// The rows of a table that travel.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Condition {
    /// All of them.
    #[default]
    All,
    /// None of them.
    Nothing,
    /// Those for which one of the clauses holds.
    Any(Vec<Clause>),
}

/// A comparison of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// The column.
    pub column: Arc<str>,
    /// `==`, `!=`, `<`, `<=`, `>`, `>=`, `includes` or `excludes`.
    pub function: Arc<str>,
    /// What it is compared with.
    pub value: Datum,
}

impl Clause {
    /// A clause.
    pub fn new(column: &str, function: &str, value: Datum) -> Clause {
        Clause { column: column.into(), function: function.into(), value }
    }

    /// The column holds this and nothing else.
    pub fn equals(column: &str, value: Datum) -> Clause {
        Clause::new(column, "==", value)
    }

    /// The column holds all of this.
    pub fn includes(column: &str, value: Datum) -> Clause {
        Clause::new(column, "includes", value)
    }
}

/// A change of conditions under way.
pub(super) struct Asked {
    id: i64,
    tables: Vec<(usize, Condition)>,
}

impl Asked {
    pub(super) fn is(&self, id: i64) -> bool {
        self.id == id
    }
}

impl Idl {
    /// Asks for the rows of a table for which `condition` holds, from now on.
    ///
    /// # Panics
    /// If the schema lacks the table or a column of the condition.
    pub fn set_condition(&mut self, table: &str, condition: Condition) {
        let t = self.table(table);
        if let Condition::Any(clauses) = &condition {
            for clause in clauses.iter().filter(|c| &*c.column != "_uuid") {
                self.tables[t].column(&clause.column);
            }
        }
        self.tables[t].condition = condition;
        self.change_conditions();
    }

    /// True if the rows at hand are those of the conditions last set.
    pub fn conditions_settled(&self) -> bool {
        self.is_live()
            && self.session.asked.is_none()
            && self.tables.iter().all(|t| t.condition == t.in_force)
    }

    /// The conditions as a monitor request has them.
    pub(super) fn condition_json(&self, t: usize, condition: &Condition) -> Option<Json> {
        let table = &self.tables[t];
        match condition {
            Condition::All => None,
            Condition::Nothing => Some(Json::array([false.into()])),
            Condition::Any(clauses) => {
                let clauses = clauses.iter().map(|clause| {
                    let value = match table.by_name.get(&clause.column) {
                        Some(&c) => clause.value.to_json(&table.columns[c].schema.kind),
                        // `_uuid` is every table's.
                        None => match clause.value.as_uuid() {
                            Some(uuid) => Json::array(["uuid".into(), uuid.to_string().into()]),
                            None => Json::array(["set".into(), Json::array([])]),
                        },
                    };
                    Json::array([(&*clause.column).into(), (&*clause.function).into(), value])
                });
                Some(Json::array(clauses))
            }
        }
    }

    /// Sends what conditions have changed, unless a change is under way.
    pub(super) fn change_conditions(&mut self) {
        let resumable = matches!(
            self.monitor_version(),
            Some(MonitorVersion::MonitorCond | MonitorVersion::MonitorCondSince)
        );
        if self.is_live() && !resumable {
            for table in &mut self.tables {
                table.in_force = table.condition.clone();
            }
        }
        if !resumable || self.session.asked.is_some() {
            return;
        }
        let mut requests = Object::new();
        let mut tables = Vec::new();
        for (t, table) in self.tables.iter().enumerate() {
            if table.condition == table.in_force {
                continue;
            }
            tables.push((t, table.condition.clone()));
            if table.travels() {
                let clauses = self.condition_json(t, &table.condition);
                let clauses = clauses.unwrap_or_else(|| Json::array([true.into()]));
                requests.insert(table.name.clone(), Json::array([Json::object([("where", clauses)])]));
            }
        }
        if requests.is_empty() {
            for (t, condition) in tables {
                self.tables[t].in_force = condition;
            }
            return;
        }
        let monitor = self.monitor_id();
        let params = Json::array([monitor.clone(), monitor, requests.into()]);
        let id = self.session.request("monitor_cond_change", params);
        self.session.asked = Some(Asked { id, tables });
    }

    /// The server has answered a change of conditions; its rows came ahead of that.
    pub(super) fn conditions_changed(&mut self, error: Option<&Json>) {
        let Some(asked) = self.session.asked.take() else { return };
        if let Some(error) = error {
            ib_base::vlog_warn!(OVSDB_IDL, "{}: conditions refused: {error}", self.database);
        }
        for (t, condition) in asked.tables {
            self.tables[t].in_force = condition;
        }
        self.seqno += 1;
        self.change_conditions();
    }

    /// The session is gone. With a change under way nobody knows which rows are here: no resuming.
    pub(super) fn forget_conditions(&mut self) {
        if self.session.asked.take().is_some() {
            self.session.last_txn = Uuid::ZERO;
        }
    }
}
