//! The kinds of datapaths that this process can open, and their names.

use std::sync::Arc;

use crate::{Dpif, DpifClass, DpifError};

/// Every provider that is compiled in and enabled. Cheap to clone.
#[derive(Clone, Default)]
pub struct Datapaths {
    classes: Vec<Arc<dyn DpifClass>>,
}

impl Datapaths {
    /// From the providers; the first one with a kind wins.
    pub fn new(classes: Vec<Arc<dyn DpifClass>>) -> Datapaths {
        Datapaths { classes }
    }
    /// Splits `kind@name`; a bare name is of kind `system`.
    pub fn parse_name(full: &str) -> (&str, &str) {
        full.split_once('@').unwrap_or(("system", full))
    }
    /// The kinds that can be opened.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.classes.iter().map(|c| c.kind())
    }
    /// The provider of a kind.
    pub fn class(&self, kind: &str) -> Option<&Arc<dyn DpifClass>> {
        self.classes.iter().find(|c| c.kind() == kind)
    }
    /// Full names of all datapaths that exist, sorted.
    pub fn enumerate(&self) -> Vec<String> {
        let of = |c: &Arc<dyn DpifClass>| -> Vec<String> {
            c.enumerate().iter().map(|n| format!("{}@{n}", c.kind())).collect()
        };
        let mut names: Vec<String> = self.classes.iter().flat_map(of).collect();
        names.sort();
        names
    }
    /// Opens `kind@name`; with `create`, makes it first.
    ///
    /// Errors: [`DpifError::Os`] 97 (EAFNOSUPPORT) for an unknown kind, those of the provider.
    pub fn open(&self, full: &str, create: bool) -> Result<Arc<dyn Dpif>, DpifError> {
        let (kind, name) = Self::parse_name(full);
        match self.class(kind) {
            Some(class) => class.open(name, create),
            None => {
                Err(DpifError::Os(97, format!("could not create datapath {name} of unknown type {kind}")))
            }
        }
    }
}
