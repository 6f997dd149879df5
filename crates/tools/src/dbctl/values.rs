//! `column[:key][OPERATOR value]` arguments.

use super::lookup;
use ib_ovsdb::idl::{Idl, View};
use ib_ovsdb::text::{atom_from_string, datum_from_string, take_token};
use ib_ovsdb::{Atom, ColumnType, Datum, SymbolTable, Uuid};

/// What may stand between a column and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operators {
    /// Nothing: the argument ends with the column or key.
    None,
    /// `=`.
    Assign,
    /// Any of [`RELATIONS`].
    Compare,
}

/// A comparison of `find` and `wait-until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `>`
    Gt,
    /// `<=`
    Le,
    /// `>=`
    Ge,
    /// `{=}`
    SetEq,
    /// `{!=}`
    SetNe,
    /// `{<}`
    SetLt,
    /// `{>}`
    SetGt,
    /// `{<=}`
    SetLe,
    /// `{>=}`
    SetGe,
    /// `{in}`
    SetIn,
    /// `{not-in}`
    SetNotIn,
}

/// All relations as they are written, in the order in which diagnostics list them.
pub const RELATIONS: &[(&str, Relation)] = &[
    ("=", Relation::Eq),
    ("!=", Relation::Ne),
    ("<", Relation::Lt),
    (">", Relation::Gt),
    ("<=", Relation::Le),
    (">=", Relation::Ge),
    ("{=}", Relation::SetEq),
    ("{!=}", Relation::SetNe),
    ("{<}", Relation::SetLt),
    ("{>}", Relation::SetGt),
    ("{<=}", Relation::SetLe),
    ("{>=}", Relation::SetGe),
    ("{in}", Relation::SetIn),
    ("{not-in}", Relation::SetNotIn),
];

/// An argument taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts<'a> {
    /// The column's full name.
    pub column: String,
    /// The text after `:`.
    pub key: Option<&'a str>,
    /// The operator.
    pub relation: Relation,
    /// The text after the operator; empty for [`Operators::None`].
    pub value: &'a str,
}

/// Takes an argument apart. `_uuid` counts as a column where nothing is assigned or compared.
pub fn split<'a>(
    idl: &Idl,
    table: &str,
    argument: &'a str,
    operators: Operators,
) -> Result<Parts<'a>, String> {
    let (name, rest) = take_token(argument)?;
    if name.is_empty() {
        return Err(format!("{argument}: missing column name"));
    }
    let column = match operators {
        Operators::None => lookup::readable_column(idl, table, name)?,
        _ => lookup::column(idl, table, name)?,
    };
    let (key, rest) = match rest.strip_prefix(':') {
        None => (None, rest),
        Some(rest) => {
            let (key, rest) = take_token(rest)?;
            (Some(key), rest)
        }
    };
    let mut parts = Parts { column, key, relation: Relation::Eq, value: "" };
    match operators {
        Operators::None if rest.is_empty() => Ok(parts),
        Operators::None => Err(format!("{argument}: trailing garbage \"{rest}\" in argument")),
        Operators::Assign => match rest.strip_prefix('=').filter(|value| !value.is_empty()) {
            Some(value) => {
                parts.value = value;
                Ok(parts)
            }
            None => Err(format!("{argument}: argument does not end in \"=\" followed by a value.")),
        },
        Operators::Compare => {
            let longest = RELATIONS
                .iter()
                .filter(|(text, _)| rest.starts_with(text) && rest.len() > text.len())
                .max_by_key(|(text, _)| text.len());
            match longest {
                Some((text, relation)) => {
                    parts.relation = *relation;
                    parts.value = &rest[text.len()..];
                    Ok(parts)
                }
                None => Err(format!(
                    "{argument}: argument does not end in {} followed by a value.",
                    relation_list()
                )),
            }
        }
    }
}

fn relation_list() -> String {
    let quoted: Vec<String> = RELATIONS.iter().map(|(text, _)| format!("\"{text}\"")).collect();
    match quoted.split_last() {
        Some((last, others)) => format!("{}, or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// What `set` and `create` make of `column[:key]=value`.
pub enum Assignment {
    /// The column's whole content.
    Whole(Datum),
    /// One pair of a map.
    Pair(Datum),
}

/// Reads an assignment.
pub fn assignment(
    idl: &Idl,
    table: &str,
    argument: &str,
    symbols: &mut SymbolTable,
) -> Result<(String, Assignment), String> {
    let parts = split(idl, table, argument, Operators::Assign)?;
    let kind = lookup::column_type(idl, table, &parts.column);
    let Some(key) = parts.key else {
        let datum = datum_from_string(&kind, parts.value, Some(symbols))?;
        return Ok((parts.column, Assignment::Whole(datum)));
    };
    let Some(value_type) = &kind.value else {
        return Err(format!("cannot specify key to set for non-map column {}", parts.column));
    };
    let key = atom_from_string(&kind.key, key, Some(symbols))?;
    let value = atom_from_string(value_type, parts.value, Some(symbols))?;
    Ok((parts.column, Assignment::Pair(Datum::map([(key, value)]))))
}

/// True if a row satisfies `column[:key]OPERATOR value`.
pub fn matches(
    view: View<'_>,
    table: &str,
    uuid: Uuid,
    argument: &str,
    symbols: &mut SymbolTable,
) -> Result<bool, String> {
    let idl = view.idl();
    let parts = split(idl, table, argument, Operators::Compare)?;
    let kind = lookup::column_type(idl, table, &parts.column);
    let Some(row) = view.row(table, uuid) else { return Ok(false) };
    let content = row.get(&parts.column);
    let Some(key) = parts.key else {
        let wanted = datum_from_string(&kind, parts.value, Some(symbols))?;
        return Ok(holds(parts.relation, content, &wanted));
    };
    let Some(value_type) = &kind.value else {
        return Err(format!("cannot specify key to check for non-map column {}", parts.column));
    };
    let key = atom_from_string(&kind.key, key, Some(symbols))?;
    let found: Option<&Atom> = content.value_of(&key);
    let is_set_relation = RELATIONS.iter().any(|(t, r)| *r == parts.relation && t.starts_with('{'));
    if is_set_relation {
        let value_set = ColumnType::scalar(value_type.clone()).with_cardinality(0, ib_ovsdb::UNLIMITED);
        let wanted = datum_from_string(&value_set, parts.value, Some(symbols))?;
        let content = Datum::set(found.cloned());
        return Ok(holds(parts.relation, &content, &wanted));
    }
    let wanted = Datum::scalar(atom_from_string(value_type, parts.value, Some(symbols))?);
    Ok(found.is_some_and(|atom| holds(parts.relation, &Datum::scalar(atom.clone()), &wanted)))
}

fn holds(relation: Relation, a: &Datum, b: &Datum) -> bool {
    match relation {
        Relation::Eq | Relation::SetEq => a == b,
        Relation::Ne | Relation::SetNe => a != b,
        Relation::Lt => a < b,
        Relation::Gt => a > b,
        Relation::Le => a <= b,
        Relation::Ge => a >= b,
        Relation::SetLt => a.len() < b.len() && a.is_subset_of(b),
        Relation::SetGt => a.len() > b.len() && b.is_subset_of(a),
        Relation::SetLe | Relation::SetIn => a.is_subset_of(b),
        Relation::SetGe => b.is_subset_of(a),
        Relation::SetNotIn => a.is_disjoint_from(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_ovsdb::Schema;

    fn idl() -> Idl {
        let schema = r#"{"name":"S","tables":{"Port":{"columns":{
            "name":{"type":"string"},"tag":{"type":{"key":"integer","min":0}},
            "other_config":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}}}}}}"#;
        Idl::new(&Schema::parse(schema).unwrap())
    }

    fn check(argument: &str, operators: Operators, expect: &str) {
        let got = match split(&idl(), "Port", argument, operators) {
            Ok(p) => format!("{} {:?} {:?} {:?}", p.column, p.key, p.relation, p.value),
            Err(e) => e,
        };
        assert_eq!(got, expect);
    }

    #[test]
    fn arguments_come_apart_or_say_why_not() {
        check("tag", Operators::None, "tag None Eq \"\"");
        check("_uuid", Operators::None, "_uuid None Eq \"\"");
        check("tag=3", Operators::None, "tag=3: trailing garbage \"=3\" in argument");
        check("other-config:a=b=c", Operators::Assign, "other_config Some(\"a\") Eq \"b=c\"");
        check("tag=", Operators::Assign, "tag=: argument does not end in \"=\" followed by a value.");
        check("tag!=2", Operators::Assign, "tag!=2: argument does not end in \"=\" followed by a value.");
        check("=2", Operators::Assign, "=2: missing column name");
        check("_uuid=2", Operators::Assign, "Port does not contain a column whose name matches \"_uuid\"");
        check("tag>=3", Operators::Compare, "tag None Ge \"3\"");
        check("tag{not-in}3", Operators::Compare, "tag None SetNotIn \"3\"");
        check("n=x", Operators::Compare, "name None Eq \"x\"");
        check(
            "tag{foo}3",
            Operators::Compare,
            "tag{foo}3: argument does not end in \"=\", \"!=\", \"<\", \">\", \"<=\", \">=\", \"{=}\", \"{!=}\", \
             \"{<}\", \"{>}\", \"{<=}\", \"{>=}\", \"{in}\", or \"{not-in}\" followed by a value.",
        );
    }

    #[test]
    fn relations_on_sets() {
        let set = |v: &[i64]| Datum::set(v.iter().map(|i| Atom::Integer(*i)));
        assert!(holds(Relation::Lt, &set(&[9]), &set(&[1, 2])), "fewer elements are less");
        assert!(holds(Relation::SetLt, &set(&[1]), &set(&[1, 2])));
        assert!(!holds(Relation::SetLt, &set(&[1]), &set(&[1])));
        assert!(holds(Relation::SetIn, &set(&[]), &set(&[1])));
        assert!(holds(Relation::SetNotIn, &set(&[3]), &set(&[1, 2])));
        assert!(holds(Relation::SetGt, &set(&[1, 2]), &set(&[2])));
    }
}
