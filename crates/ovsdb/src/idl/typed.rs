//! Tables as types: one declaration a table gives a handle to read rows by and one to write them with.
//!
//! ```
//! use ib_ovsdb::idl::{Idl, Txn};
//! use ib_ovsdb::{Schema, schemas};
//!
//! ib_ovsdb::typed_tables! {
//!     /// What this agent needs of a bridge.
//!     Bridge BridgeEdit "Bridge" {
//!         name: str "name" set_name;
//!         fail_mode: opt_str "fail_mode" set_fail_mode;
//!         external_ids: smap "external_ids" set_external_ids;
//!     }
//! }
//!
//! let mut idl = Idl::new(&Schema::parse(schemas::VSWITCH)?);
//! Bridge::register(&mut idl);             // these columns travel, no others
//! for bridge in Bridge::all(idl.view()) {
//!     println!("{} {}", bridge.name(), bridge.fail_mode().unwrap_or("standalone"));
//! }
//! let mut txn = Txn::new();
//! BridgeEdit::insert(&mut txn, &idl).set_name("br0").set_fail_mode(Some("secure"));
//! # Ok::<(), ib_ovsdb::Error>(())
//! ```
//!
//! [`crate::idl::vswitch`] has the declarations of the whole Open_vSwitch schema; `cargo xtask idl SCHEMA` prints those of any other.
//!
//! | kind | getter | setter |
//! |---|---|---|
//! | `str` `int` `real` `bool` `uuid` | the value; its type's default if there is none | the value |
//! | `opt_str` `opt_int` `opt_real` `opt_bool` | `Option` | `Option` |
//! | `strs` `ints` | iterator | iterator |
//! | `one(T)` | `Option<T>`: a reference's row may not be in the replica | `Uuid` |
//! | `opt(T)` | `Option<T>` | `Option<Uuid>` |
//! | `refs(T)` | iterator of `T` | iterator of `Uuid` |
//! | `smap` | [`Smap`](crate::idl::Smap) | iterator of pairs |
//! | `int_refs(T)` | iterator of `(i64, T)` | iterator of `(i64, Uuid)` |
//! | `datum` | [`Datum`] | [`Datum`] |

use super::{Idl, Txn};
use crate::{Atom, AtomicType, ColumnType, Datum, Schema, Uuid};
use std::fmt::Write;

/// A row in a transaction, for writing. What [`typed_tables`](crate::typed_tables) makes derefers to it.
pub struct EditRow<'t> {
    txn: &'t mut Txn,
    idl: &'t Idl,
    table: &'static str,
    uuid: Uuid,
}

impl<'t> EditRow<'t> {
    /// A row that is there, or that the transaction inserts.
    pub fn new(txn: &'t mut Txn, idl: &'t Idl, table: &'static str, uuid: Uuid) -> EditRow<'t> {
        EditRow { txn, idl, table, uuid }
    }

    /// The row's UUID; a placeholder if the transaction inserts it.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Replaces a column.
    pub fn set(&mut self, column: &str, value: Datum) {
        self.txn.set_at(self.idl, self.table, self.uuid, column, value);
    }

    /// Adds elements to a set, or sets pairs of a map, beside what others add at the same time.
    pub fn add(&mut self, column: &str, elements: &Datum) {
        self.txn.add_to(self.idl, self.table, self.uuid, column, elements);
    }

    /// Removes elements of a set, or pairs of a map.
    pub fn remove(&mut self, column: &str, elements: &Datum) {
        self.txn.remove_from(self.idl, self.table, self.uuid, column, elements);
    }

    /// Adds references to a column, or one.
    pub fn add_refs(&mut self, column: &str, rows: impl IntoIterator<Item = Uuid>) {
        self.add(column, &rows_datum(rows));
    }

    /// Removes references from a column.
    pub fn remove_refs(&mut self, column: &str, rows: impl IntoIterator<Item = Uuid>) {
        self.remove(column, &rows_datum(rows));
    }

    /// Sets one pair of a map of strings.
    pub fn set_key(&mut self, column: &str, key: &str, value: &str) {
        self.add(column, &Datum::map([(Atom::from(key), Atom::from(value))]));
    }

    /// Removes one pair of a map of strings.
    pub fn remove_key(&mut self, column: &str, key: &str) {
        let key = Atom::from(key);
        let row = self.txn.view(self.idl).row(self.table, self.uuid);
        let value = row.and_then(|row| row.get(column).value_of(&key).cloned());
        if let Some(value) = value {
            self.remove(column, &Datum::map([(key, value)]));
        }
    }

    /// Makes the transaction depend on a column's content as it is in the replica.
    pub fn verify(&mut self, column: &str) {
        self.txn.verify(self.idl, self.table, self.uuid, column);
    }

    /// Adds 1 to an integer column if the transaction changes anything.
    pub fn increment(&mut self, column: &str) {
        self.txn.increment(self.idl, self.table, self.uuid, column);
    }

    /// Deletes the row.
    pub fn delete(&mut self) {
        self.txn.delete_at(self.idl, self.table, self.uuid);
    }
}

/// A set of references.
pub fn rows_datum(rows: impl IntoIterator<Item = Uuid>) -> Datum {
    Datum::set(rows.into_iter().map(Atom::Uuid))
}

/// An optional value.
pub fn opt_datum(value: Option<impl Into<Atom>>) -> Datum {
    value.map_or(Datum::EMPTY, Datum::scalar)
}

/// Declares tables as types. See [the module](crate::idl::typed).
#[macro_export]
macro_rules! typed_tables {
    ($($(#[$doc:meta])* $row:ident $edit:ident $table:literal {
        $($column:ident: $kind:ident $(($target:ident))? $name:literal $setter:ident;)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $row<'a>($crate::idl::Row<'a>);

        impl<'a> $row<'a> {
            /// The table's name in the database.
            pub const TABLE: &'static str = $table;

            /// Has all columns that are declared travel.
            pub fn register(idl: &mut $crate::idl::Idl) {
                idl.register_table($table);
                $(idl.register_column($table, $name);)*
            }

            /// All rows.
            pub fn all(view: $crate::idl::View<'a>) -> impl Iterator<Item = $row<'a>> + use<'a> {
                view.rows($table).map($row)
            }

            /// One row.
            pub fn get(view: $crate::idl::View<'a>, uuid: $crate::Uuid) -> Option<$row<'a>> {
                view.row($table, uuid).map($row)
            }

            /// The first row, for tables that have one.
            pub fn first(view: $crate::idl::View<'a>) -> Option<$row<'a>> {
                view.rows($table).next().map($row)
            }

            /// The row without its type.
            pub fn row(&self) -> $crate::idl::Row<'a> {
                self.0
            }

            /// The row's UUID; a placeholder if a transaction inserts it.
            pub fn uuid(&self) -> $crate::Uuid {
                self.0.uuid()
            }

            $($crate::typed_getter! { $column $kind $(($target))? $name })*
        }

        impl<'a> From<$crate::idl::Row<'a>> for $row<'a> {
            /// # Panics
            /// If the row is another table's.
            fn from(row: $crate::idl::Row<'a>) -> $row<'a> {
                assert_eq!(&**row.table(), $table);
                $row(row)
            }
        }

        #[doc = concat!("A row of the `", $table, "` table in a transaction, for writing.")]
        pub struct $edit<'t>($crate::idl::typed::EditRow<'t>);

        impl<'t> $edit<'t> {
            /// A row that is there, or that the transaction inserts.
            pub fn of(
                txn: &'t mut $crate::idl::Txn,
                idl: &'t $crate::idl::Idl,
                uuid: $crate::Uuid,
            ) -> $edit<'t> {
                $edit($crate::idl::typed::EditRow::new(txn, idl, $table, uuid))
            }

            /// A new row.
            pub fn insert(txn: &'t mut $crate::idl::Txn, idl: &'t $crate::idl::Idl) -> $edit<'t> {
                let uuid = txn.insert(idl, $table);
                $edit::of(txn, idl, uuid)
            }

            $($crate::typed_setter! { $setter $kind $name })*
        }

        impl<'t> std::ops::Deref for $edit<'t> {
            type Target = $crate::idl::typed::EditRow<'t>;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }

        impl std::ops::DerefMut for $edit<'_> {
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.0
            }
        }
    )*};
}

/// The getter of one column of [`typed_tables`].
#[doc(hidden)]
#[macro_export]
macro_rules! typed_getter {
    ($f:ident one($t:ident) $n:literal) => {
        $crate::typed_getter! { $f opt($t) $n }
    };
    ($f:ident opt($t:ident) $n:literal) => {
        #[doc = concat!("The row in `", $n, "`.")]
        pub fn $f(&self) -> Option<$t<'a>> {
            self.0.ref_opt($n).map($t)
        }
    };
    ($f:ident refs($t:ident) $n:literal) => {
        #[doc = concat!("The rows in `", $n, "`.")]
        pub fn $f(&self) -> impl Iterator<Item = $t<'a>> + use<'a> {
            self.0.refs($n).map($t)
        }
    };
    ($f:ident int_refs($t:ident) $n:literal) => {
        #[doc = concat!("The numbers and rows in `", $n, "`.")]
        pub fn $f(&self) -> impl Iterator<Item = (i64, $t<'a>)> + use<'a> {
            self.0.int_refs($n).map(|(n, row)| (n, $t(row)))
        }
    };
    ($f:ident strs $n:literal) => {
        $crate::typed_getter! { @ $f strs $n impl Iterator<Item = &'a str> + use<'a> }
    };
    ($f:ident ints $n:literal) => {
        $crate::typed_getter! { @ $f ints $n impl Iterator<Item = i64> + use<'a> }
    };
    ($f:ident str $n:literal) => {
        $crate::typed_getter! { @ $f str $n &'a str }
    };
    ($f:ident opt_str $n:literal) => {
        $crate::typed_getter! { @ $f str_opt $n Option<&'a str> }
    };
    ($f:ident int $n:literal) => {
        $crate::typed_getter! { @ $f int $n i64 }
    };
    ($f:ident opt_int $n:literal) => {
        $crate::typed_getter! { @ $f int_opt $n Option<i64> }
    };
    ($f:ident real $n:literal) => {
        $crate::typed_getter! { @ $f real $n f64 }
    };
    ($f:ident opt_real $n:literal) => {
        $crate::typed_getter! { @ $f real_opt $n Option<f64> }
    };
    ($f:ident bool $n:literal) => {
        $crate::typed_getter! { @ $f bool $n bool }
    };
    ($f:ident opt_bool $n:literal) => {
        $crate::typed_getter! { @ $f bool_opt $n Option<bool> }
    };
    ($f:ident smap $n:literal) => {
        $crate::typed_getter! { @ $f smap $n $crate::idl::Smap<'a> }
    };
    ($f:ident datum $n:literal) => {
        $crate::typed_getter! { @ $f get $n &'a $crate::Datum }
    };
    ($f:ident uuid $n:literal) => {
        #[doc = concat!("The UUID in `", $n, "`; zero if there is none.")]
        pub fn $f(&self) -> $crate::Uuid {
            self.0.uuids($n).next().unwrap_or($crate::Uuid::ZERO)
        }
    };
    (@ $f:ident $get:ident $n:literal $type:ty) => {
        #[doc = concat!("Column `", $n, "`.")]
        pub fn $f(&self) -> $type {
            self.0.$get($n)
        }
    };
}

/// The setter of one column of [`typed_tables`].
#[doc(hidden)]
#[macro_export]
macro_rules! typed_setter {
    ($f:ident str $n:literal) => { $crate::typed_setter! { @ $f $n value: &str => $crate::Datum::scalar(value) } };
    ($f:ident int $n:literal) => { $crate::typed_setter! { @ $f $n value: i64 => $crate::Datum::scalar(value) } };
    ($f:ident real $n:literal) => { $crate::typed_setter! { @ $f $n value: f64 => $crate::Datum::scalar(value) } };
    ($f:ident bool $n:literal) => { $crate::typed_setter! { @ $f $n value: bool => $crate::Datum::scalar(value) } };
    ($f:ident uuid $n:literal) => { $crate::typed_setter! { $f one $n } };
    ($f:ident one $n:literal) => {
        $crate::typed_setter! { @ $f $n value: $crate::Uuid => $crate::idl::typed::rows_datum([value]) }
    };
    ($f:ident opt $n:literal) => {
        $crate::typed_setter! { @ $f $n value: Option<$crate::Uuid> => $crate::idl::typed::rows_datum(value) }
    };
    ($f:ident refs $n:literal) => {
        $crate::typed_setter! { @ $f $n value: impl IntoIterator<Item = $crate::Uuid> => $crate::idl::typed::rows_datum(value) }
    };
    ($f:ident opt_str $n:literal) => {
        $crate::typed_setter! { @ $f $n value: Option<&str> => $crate::idl::typed::opt_datum(value) }
    };
    ($f:ident opt_int $n:literal) => {
        $crate::typed_setter! { @ $f $n value: Option<i64> => $crate::idl::typed::opt_datum(value) }
    };
    ($f:ident opt_real $n:literal) => {
        $crate::typed_setter! { @ $f $n value: Option<f64> => $crate::idl::typed::opt_datum(value) }
    };
    ($f:ident opt_bool $n:literal) => {
        $crate::typed_setter! { @ $f $n value: Option<bool> => $crate::idl::typed::opt_datum(value) }
    };
    ($f:ident strs $n:literal) => {
        $crate::typed_setter! { @ $f $n value: impl IntoIterator<Item = &'t str> => $crate::Datum::set(value.into_iter().map($crate::Atom::from)) }
    };
    ($f:ident ints $n:literal) => {
        $crate::typed_setter! { @ $f $n value: impl IntoIterator<Item = i64> => $crate::Datum::set(value.into_iter().map($crate::Atom::from)) }
    };
    ($f:ident smap $n:literal) => {
        $crate::typed_setter! { @ $f $n value: impl IntoIterator<Item = (&'t str, &'t str)> =>
            $crate::Datum::map(value.into_iter().map(|(k, v)| (k.into(), v.into()))) }
    };
    ($f:ident int_refs $n:literal) => {
        $crate::typed_setter! { @ $f $n value: impl IntoIterator<Item = (i64, $crate::Uuid)> =>
            $crate::Datum::map(value.into_iter().map(|(k, v)| (k.into(), $crate::Atom::Uuid(v)))) }
    };
    ($f:ident datum $n:literal) => { $crate::typed_setter! { @ $f $n value: $crate::Datum => value } };
    (@ $f:ident $n:literal $v:ident: $type:ty => $datum:expr) => {
        #[doc = concat!("Sets `", $n, "`.")]
        pub fn $f(&mut self, $v: $type) -> &mut Self {
            self.0.set($n, $datum);
            self
        }
    };
}

/// The kind of a column in a declaration.
fn kind(kind: &ColumnType) -> String {
    let target = |base: &crate::BaseType| base.reference.as_ref().map(|r| type_name(&r.table));
    let text = |name: &str| name.to_owned();
    if let Some(value) = &kind.value {
        return match (kind.key.kind, value.kind, target(value)) {
            (AtomicType::String, AtomicType::String, _) => text("smap"),
            (AtomicType::Integer, AtomicType::Uuid, Some(table)) => format!("int_refs({table})"),
            _ => text("datum"),
        };
    }
    let count = match (kind.min, kind.max) {
        (1, 1) => "",
        (_, 1) => "opt_",
        _ => "s",
    };
    match (kind.key.kind, count, target(&kind.key)) {
        (AtomicType::Uuid, "", Some(table)) => format!("one({table})"),
        (AtomicType::Uuid, "opt_", Some(table)) => format!("opt({table})"),
        (AtomicType::Uuid, _, Some(table)) => format!("refs({table})"),
        (AtomicType::Uuid, "", None) => text("uuid"),
        (AtomicType::String, "s", _) => text("strs"),
        (AtomicType::Integer, "s", _) => text("ints"),
        (AtomicType::Uuid, ..) | (_, "s", _) => text("datum"),
        (AtomicType::String, count, _) => format!("{count}str"),
        (AtomicType::Integer, count, _) => format!("{count}int"),
        (AtomicType::Real, count, _) => format!("{count}real"),
        (AtomicType::Boolean, count, _) => format!("{count}bool"),
    }
}

/// A table's name as a type's: words joined, each with a capital.
fn type_name(table: &str) -> String {
    let word = |w: &str| w.chars().next().map(|c| c.to_ascii_uppercase().to_string() + &w[c.len_utf8()..]);
    table.split('_').filter_map(word).collect()
}

/// The declarations of all tables of a schema, a Rust file.
pub fn declarations(schema: &Schema) -> String {
    let mut out = format!(
        "//! The tables of {} {} as types. Made by `cargo xtask idl`; do not edit.\n\ncrate::typed_tables! {{\n",
        schema.name, schema.version
    );
    let mut tables: Vec<_> = schema.tables.iter().collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    for (i, table) in tables.iter().enumerate() {
        let name = type_name(&table.name);
        let gap = if i > 0 { "\n" } else { "" };
        let _ = writeln!(
            out,
            "{gap}    /// A row of the `{0}` table.\n    {name} {name}Edit \"{0}\" {{",
            table.name
        );
        let mut columns: Vec<_> = table.user_columns().iter().collect();
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        for column in columns {
            // `type` is a word of the language; `uuid`, `row` and the like are the handle's own.
            let word = match &*column.name {
                name @ ("type" | "match" | "ref" | "row" | "uuid" | "all" | "get" | "first" | "register") => {
                    format!("{name}_")
                }
                name => name.to_ascii_lowercase(),
            };
            let setter = format!("set_{}", column.name.to_ascii_lowercase());
            let _ = writeln!(out, "        {word}: {} \"{}\" {setter};", kind(&column.kind), column.name);
        }
        out.push_str("    }\n");
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idl::vswitch::{Bridge, BridgeEdit, OpenVSwitch, OpenVSwitchEdit};
    use crate::schemas;

    #[test]
    fn the_declarations_are_those_of_the_schema() {
        let schema = Schema::parse(schemas::VSWITCH).unwrap();
        assert!(declarations(&schema) == include_str!("vswitch.rs"), "run `cargo xtask idl`");
    }

    #[test]
    fn writing_shows_in_the_view() {
        let mut idl = Idl::new(&Schema::parse(schemas::VSWITCH).unwrap());
        Bridge::register(&mut idl);
        let mut txn = Txn::new();
        let mut edit = BridgeEdit::insert(&mut txn, &idl);
        edit.set_name("br0").set_fail_mode(Some("secure")).set_flood_vlans([3, 1]);
        edit.set_external_ids([("a", "b"), ("c", "d")]);
        edit.set_key("external_ids", "a", "z");
        edit.remove_key("external_ids", "c");
        let bridge = edit.uuid();
        let mut top = OpenVSwitchEdit::insert(&mut txn, &idl);
        top.set_bridges([bridge]);
        let top = OpenVSwitch::first(txn.view(&idl)).unwrap();
        let bridge = top.bridges().next().unwrap();
        assert_eq!((bridge.name(), bridge.fail_mode()), ("br0", Some("secure")));
        assert_eq!(bridge.flood_vlans().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(bridge.external_ids().iter().collect::<Vec<_>>(), [("a", "z")]);
        assert_eq!(bridge.datapath_id(), None);
        assert_eq!(Bridge::from(bridge.row()).uuid(), bridge.uuid());
    }
}
