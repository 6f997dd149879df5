//! Implementations to choose from, as Open vSwitch offers them: `subtable-lookup-*`, `dpif-impl-*`, `miniflow-parser-*`,
//! `odp-execute/action-impl-*`.
//!
//! Here there is one of each, written once and fast. What an operator chooses is remembered and shown, so that scripts which choose go on
//! working; packets take the same way whatever the choice.

use std::collections::BTreeMap;
use std::fmt::Write;

use ib_base::vlog::module::{DPIF_NETDEV, DPIF_NETDEV_LOOKUP};
use ib_base::{vlog_err, vlog_info, vlog_warn};

use crate::datapath::DpUserspace;
use crate::pmd::HISTORY_SECS;

const PARSERS: [&str; 3] = ["autovalidator", "scalar", "study"];
/// Packets that the `study` parser looks at unless told otherwise.
const STUDY_PACKETS: u32 = 128;

/// What was chosen; process-wide.
#[derive(Debug)]
pub struct Impls {
    /// Priorities of subtable lookup functions.
    lookups: [(&'static str, u8); 2],
    /// Parser of threads that have none of their own.
    parser: &'static str,
    /// Parser by core.
    parsers: BTreeMap<u32, &'static str>,
    actions: &'static str,
}

impl Default for Impls {
    fn default() -> Impls {
        Impls {
            lookups: [("autovalidator", 0), ("generic", 1)],
            parser: "scalar",
            parsers: BTreeMap::new(),
            actions: "scalar",
        }
    }
}

/// Logs what a command answers.
fn told(result: Result<String, String>) -> Result<String, String> {
    match &result {
        Ok(text) => vlog_info!(DPIF_NETDEV, "{}", text.trim_end()),
        Err(text) => vlog_err!(DPIF_NETDEV, "{}", text.trim_end()),
    }
    result
}

impl Impls {
    fn best_lookup(&self) -> &'static str {
        let [first, second] = self.lookups;
        if first.1 >= second.1 { first.0 } else { second.0 }
    }

    /// `dpif-netdev/subtable-lookup-info-get` (and its older name, `subtable-lookup-prio-get`).
    pub fn lookup_info(&self, dps: &[std::sync::Arc<DpUserspace>]) -> String {
        let uses: usize = dps.iter().map(|dp| count_subtables(dp).1).sum();
        let mut out = "Available dpcls implementations:\n".to_owned();
        for (name, priority) in self.lookups {
            let uses = if name == self.best_lookup() { uses } else { 0 };
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(out, "  {name} (Use count: {uses}, Priority: {priority})");
        }
        out
    }

    /// `dpif-netdev/subtable-lookup-prio-set FUNCTION PRIORITY`.
    pub fn set_lookup(
        &mut self,
        dps: &[std::sync::Arc<DpUserspace>],
        function: &str,
        priority: &str,
    ) -> Result<String, String> {
        // What is no number counts as 0, as with strtol.
        let unsigned = priority.strip_prefix(['-', '+']).unwrap_or(priority);
        let end = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
        let digits = &priority[..priority.len() - unsigned.len() + end];
        let Ok(priority) = (if end == 0 { Ok(0) } else { digits.parse::<u8>() }) else {
            return Err("error converting priority, use integer in range 0-255\n".into());
        };
        let before = self.best_lookup();
        let Some(row) = self.lookups.iter_mut().find(|(name, _)| *name == function) else {
            vlog_warn!(
                DPIF_NETDEV_LOOKUP,
                "Subtable function '{function}' not found, failed to set priority"
            );
            return Err("error, subtable lookup function not found\n".into());
        };
        row.1 = priority;
        vlog_info!(DPIF_NETDEV_LOOKUP, "Subtable function '{function}' set priority to {priority}");
        let (ports, subtables) = if before == self.best_lookup() {
            (0, 0)
        } else {
            let counts = dps.iter().map(|dp| count_subtables(dp));
            counts.fold((0, 0), |(p, s), (ports, subtables)| (p + ports, s + subtables))
        };
        told(Ok(format!("Lookup priority change affected {ports} dpcls ports and {subtables} subtables.\n")))
    }

    /// `dpif-netdev/miniflow-parser-get`.
    pub fn parsers(&self, dp: &DpUserspace) -> String {
        let mut out = "Available MFEX implementations:\n".to_owned();
        let cores = cores(dp);
        for name in PARSERS {
            let mine = cores.iter().filter(|c| self.parsers.get(c).copied().unwrap_or(self.parser) == name);
            let _ = writeln!(out, "  {name} (available: True pmds: {})", list(mine));
        }
        out
    }

    /// `dpif-netdev/miniflow-parser-set [-pmd CORE] NAME [STUDY_COUNT]`.
    pub fn set_parser(
        &mut self,
        dps: &[std::sync::Arc<DpUserspace>],
        args: &[String],
    ) -> Result<String, String> {
        told(self.try_set_parser(dps, args))
    }

    fn try_set_parser(
        &mut self,
        dps: &[std::sync::Arc<DpUserspace>],
        args: &[String],
    ) -> Result<String, String> {
        let mut words = args.iter().map(String::as_str).peekable();
        let mut core = None;
        if words.next_if_eq(&"-pmd").is_some() {
            let word = words.next().ok_or("Error: -pmd option requires a thread id argument.\n")?;
            core = Some(word.parse::<u32>().map_err(|_| {
                format!(
                    "Error: miniflow extract parser not changed, PMD thread passed is not valid: '{word}'. Pass a valid \
                     pmd thread ID.\n"
                )
            })?);
        }
        let name = words.next().ok_or(
            "Error: no miniflow extract name provided. Output of miniflow-parser-get shows implementation list.\n",
        )?;
        let mut study = STUDY_PACKETS;
        if name == "study"
            && let Some(word) = words.next()
        {
            let count = word.parse().ok().filter(|n| *n != 0);
            study = count.ok_or_else(|| format!("Error: invalid study_pkt_cnt value: {word}.\n"))?;
        }
        if let Some(word) = words.next() {
            // The count of `study` is asked for last.
            let text = if name == "study" { "invalid study_pkt_cnt value:" } else { "unknown argument" };
            return Err(format!("Error: {text} {word}.\n"));
        }
        let Some(name) = PARSERS.into_iter().find(|p| *p == name) else {
            return Err(format!("Error: unknown miniflow extract implementation {name}.\n"));
        };
        match core {
            Some(core) if !dps.iter().any(|dp| cores(dp).contains(&core)) => {
                return Err(format!(
                    "Error: miniflow extract parser not changed, PMD thread {core} not in use, pass a valid pmd thread ID.\n"
                ));
            }
            Some(core) => {
                self.parsers.insert(core, name);
            }
            None => {
                self.parsers.clear();
                self.parser = name;
            }
        }
        let mut out = format!("Miniflow extract implementation set to {name}");
        if let Some(core) = core {
            let _ = write!(out, ", on pmd thread {core}");
        }
        if name == "study" {
            let _ = write!(out, ", studying {study} packets");
        }
        Ok(out + ".\n")
    }

    /// `odp-execute/action-impl-show`.
    pub fn actions(&self) -> String {
        let mut out = "Available Actions implementations:\n".to_owned();
        for name in ["scalar", "autovalidator"] {
            let active = if name == self.actions { "Yes" } else { "No" };
            let _ = writeln!(out, "  {name} (available: Yes, active: {active})");
        }
        out
    }

    /// `odp-execute/action-impl-set NAME`.
    pub fn set_actions(&mut self, name: &str) -> Result<String, String> {
        let found = ["scalar", "autovalidator"].into_iter().find(|n| *n == name);
        self.actions =
            found.ok_or_else(|| format!("Error: unknown action implementation, {name}, specified!"))?;
        Ok(format!("Action implementation set to {name}."))
    }
}

/// Ports that have subtables, and how many those have.
fn count_subtables(dp: &DpUserspace) -> (usize, usize) {
    let classes = dp.table().classes();
    let counts = classes.iter().map(|(_, c)| c.subtables().len()).filter(|n| *n > 0);
    counts.fold((0, 0), |(ports, all), n| (ports + 1, all + n))
}

fn cores(dp: &DpUserspace) -> Vec<u32> {
    dp.pmds(HISTORY_SECS).iter().map(|p| p.core_id).collect()
}

fn list<'a>(cores: impl Iterator<Item = &'a u32>) -> String {
    let cores: Vec<String> = cores.map(u32::to_string).collect();
    if cores.is_empty() { "none".to_owned() } else { cores.join(",") }
}

/// `dpif-netdev/dpif-impl-get`.
pub fn dpif_impl_get(dp: &DpUserspace) -> String {
    format!("Available DPIF implementations:\n  dpif_scalar (pmds: {})\n", list(cores(dp).iter()))
}

/// `dpif-netdev/dpif-impl-set NAME`.
pub fn dpif_impl_set(name: &str) -> Result<String, String> {
    told(match name {
        "dpif_scalar" => Ok("DPIF implementation set to dpif_scalar.\n".to_owned()),
        _ => Err(format!("DPIF implementation not available: Unknown DPIF implementation {name}.\n")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_decide_which_lookup_is_used() {
        let mut impls = Impls::default();
        assert_eq!(impls.best_lookup(), "generic");
        assert!(impls.set_lookup(&[], "autovalidator", "3").unwrap().starts_with("Lookup priority change"));
        assert_eq!(impls.best_lookup(), "autovalidator");
        assert!(impls.set_lookup(&[], "generic", "300").unwrap_err().contains("0-255"));
        assert!(impls.set_lookup(&[], "generic", "-1").unwrap_err().contains("0-255"));
        impls.set_lookup(&[], "generic", "-x").unwrap();
        assert!(impls.set_lookup(&[], "foo", "3").unwrap_err().contains("not found"));
        impls.set_lookup(&[], "generic", "x").unwrap();
        assert!(impls.lookup_info(&[]).ends_with("generic (Use count: 0, Priority: 0)\n"));
    }

    #[test]
    fn parser_names_and_counts_are_checked() {
        let mut impls = Impls::default();
        let mut set = |text: &str| {
            let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            impls.try_set_parser(&[], &args).unwrap_or_else(|e| e)
        };
        assert_eq!(set("study 5"), "Miniflow extract implementation set to study, studying 5 packets.\n");
        assert_eq!(set("study -5"), "Error: invalid study_pkt_cnt value: -5.\n");
        assert_eq!(set("study 300 x"), "Error: invalid study_pkt_cnt value: x.\n");
        assert_eq!(set("scalar scalar"), "Error: unknown argument scalar.\n");
        assert_eq!(set("foo"), "Error: unknown miniflow extract implementation foo.\n");
        assert!(set("-pmd 77 scalar").contains("PMD thread 77 not in use"));
        assert!(set("-pmd x scalar").contains("is not valid: 'x'"));
        assert!(set("-pmd").contains("requires a thread id"));
    }
}
