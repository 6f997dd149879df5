//! The kinds of datapaths that this process can open, and their names.

use std::sync::Arc;

use ib_base::vlog::module::DPIF;
use ib_base::vlog_warn;

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
        self.enumerate_checked().0
    }
    /// As [`Self::enumerate`], and whether a provider could not tell (which is logged).
    pub fn enumerate_checked(&self) -> (Vec<String>, bool) {
        let (mut names, mut failed) = (Vec::new(), false);
        for class in &self.classes {
            match names_of(&**class) {
                Some(found) => names.extend(found.iter().map(|n| format!("{}@{n}", class.kind()))),
                None => failed = true,
            }
        }
        names.sort();
        (names, failed)
    }
    /// Whether there is a datapath of this name.
    pub fn exists(&self, full: &str) -> bool {
        let (kind, name) = Self::parse_name(full);
        let names = self.class(kind).and_then(|class| names_of(&**class));
        names.is_some_and(|names| names.iter().any(|n| n == name))
    }
    fn is_of_other(&self, kind: &str, name: &str) -> bool {
        let others = self.classes.iter().filter(|c| c.kind() != kind && c.shares_names());
        others.filter_map(|c| c.try_enumerate().ok()).any(|names| names.iter().any(|n| n == name))
    }
    /// Opens `kind@name`; with `create`, makes it first.
    ///
    /// Errors: [`DpifError::Os`] 97 (EAFNOSUPPORT) for an unknown kind, those of the provider.
    pub fn open(&self, full: &str, create: bool) -> Result<Arc<dyn Dpif>, DpifError> {
        let (kind, name) = Self::parse_name(full);
        match self.class(kind) {
            // Names are shared by the kinds that are in this process.
            Some(class) if class.shares_names() && self.is_of_other(kind, name) => {
                Err(DpifError::Invalid(format!("{name} is a datapath of another type")))
            }
            Some(class) => class.open(name, create),
            None => {
                let text = format!("could not create datapath {name} of unknown type {kind}");
                vlog_warn!(DPIF, "{text}");
                Err(DpifError::Os(97, text))
            }
        }
    }
}

/// The names of a provider's datapaths; `None`, and a line in the log, if it can't tell.
fn names_of(class: &dyn DpifClass) -> Option<Vec<String>> {
    match class.try_enumerate() {
        Ok(names) => Some(names),
        Err(e) => {
            let why = std::io::Error::from_raw_os_error(e.errno());
            let why = ib_base::errno::strerror(&why);
            vlog_warn!(DPIF, "failed to enumerate {} datapaths: {why}", class.kind());
            None
        }
    }
}
