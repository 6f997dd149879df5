//! The flows, groups and tunnel options of bridges, kept over a restart of the switch.
//!
//! They are kept as the text that `ovs-ofctl` prints and reads. Groups come back before flows, which name them.

use std::ffi::OsStr;
use std::io::Write;
use std::process::Stdio;

use super::tool;

/// Any version that the bridge speaks.
const VERSIONS: &str = "-OOpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14,OpenFlow15";

struct Bridge {
    name: String,
    tlvs: String,
    groups: String,
    flows: String,
}

/// What [`Saved::take`] found.
pub struct Saved {
    bridges: Vec<Bridge>,
}

fn ofctl(args: &[&str], input: &str) -> Result<String, String> {
    let run = || {
        let mut child = tool("ovs-ofctl")
            .args(args.iter().map(OsStr::new))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // The tool reads all of its input before it prints; one that ends early says why.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    match run() {
        Ok(out) if out.status.success() => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        Ok(out) => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        Err(e) => Err(format!("ovs-ofctl: {e}\n")),
    }
}

/// The lines of a dump that `ovs-ofctl` reads again: no headings, no figures of the past.
fn lines(dump: &str, with: &str) -> String {
    dump.lines().map(str::trim).filter(|l| l.contains(with)).map(|l| format!("{l}\n")).collect()
}

/// The mappings of a printed table of tunnel options, as `add-tlv-map` reads them.
pub fn tlv_map(dump: &str) -> String {
    let rows = dump.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [class, kind, len, field] if class.starts_with("0x") && field.starts_with("tun_metadata") => {
                Some(format!("{{class={class},type={kind},len={len}}}->{field}"))
            }
            _ => None,
        }
    });
    rows.collect::<Vec<_>>().join(",")
}

impl Saved {
    /// Asks each bridge for what it holds. What one does not answer is not kept.
    pub fn take<'a>(bridges: impl Iterator<Item = &'a str>) -> Saved {
        let bridges = bridges.map(|name| {
            let ask = |args: &[&str]| ofctl(&[args, &[name]].concat(), "").unwrap_or_default();
            let flows = ask(&["--no-names", "--no-stats", VERSIONS, "dump-flows"]);
            Bridge {
                name: name.to_owned(),
                tlvs: tlv_map(&ask(&["dump-tlv-map"])),
                groups: lines(&ask(&["--no-names", "-OOpenFlow15", "dump-groups"]), "group_id="),
                flows: lines(&flows, "actions="),
            }
        });
        Saved { bridges: bridges.collect() }
    }

    /// Whether nothing is to be restored.
    pub fn is_empty(&self) -> bool {
        self.bridges.is_empty()
    }

    /// Gives the bridges back what they held. Returns the errors of all that could not be.
    pub fn restore(&self) -> String {
        let mut errors = String::new();
        for b in &self.bridges {
            let mut give = |args: &[&str], input: &str| {
                if let Err(e) = ofctl(args, input) {
                    errors.push_str(&e);
                }
            };
            if !b.tlvs.is_empty() {
                give(&["add-tlv-map", &b.name, &b.tlvs], "");
            }
            if !b.groups.is_empty() {
                give(&["-OOpenFlow15", "add-groups", &b.name, "-"], &b.groups);
            }
            give(&[VERSIONS, "replace-flows", &b.name, "-"], &b.flows);
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_become_what_the_tool_reads() {
        let dump = "NXST_FLOW reply (xid=0x4):\n cookie=0x1, priority=5,in_port=1 actions=drop\n\n";
        assert_eq!(lines(dump, "actions="), "cookie=0x1, priority=5,in_port=1 actions=drop\n");
        let map = "NXT_TLV_TABLE_REPLY (xid=0x2):\n max option space=256 max fields=64\n allocated option space=4\n\n \
                   mapping table:\n  class  type  length  match field\n ------  ----  ------  --------------\n \
                   0x1     0x2   4       tun_metadata0\n";
        assert_eq!(tlv_map(map), "{class=0x1,type=0x2,len=4}->tun_metadata0");
    }
}
