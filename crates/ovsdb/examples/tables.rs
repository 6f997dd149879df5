//! Prints the typed declarations of a schema's tables: `cargo xtask idl SCHEMA`.

use ib_ovsdb::idl::typed::declarations;
use ib_ovsdb::{Schema, schemas};

fn main() -> Result<(), String> {
    let text = match std::env::args().nth(1) {
        Some(path) => std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?,
        None => schemas::VSWITCH.to_owned(),
    };
    let schema = Schema::parse(&text).map_err(|e| e.to_string())?;
    print!("{}", declarations(&schema));
    Ok(())
}
