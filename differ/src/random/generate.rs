//! From a seed to flows, groups and packets, by the templates.

use std::fmt::Write;

use ib_base::rng::Rng;

use super::templates::{ACTIONS, BUCKETS, FIELDS, INSTRUCTIONS, KINDS, Kind, METADATA};
use super::{Case, PORTS};

/// Tables that flows go to.
const TABLES: u64 = 4;
/// Groups of a case, numbered from 1.
const GROUPS: u64 = 5;

struct Gen(Rng);

impl Gen {
    fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        // Lists are short.
        list[self.below(list.len() as u64) as usize]
    }
    fn ip(&mut self) -> String {
        format!("10.0.{}.{}", self.below(2), self.below(4))
    }

    /// Puts values into a template for a flow of `table`.
    fn fill(&mut self, template: &str, table: u64) -> String {
        let mut out = String::new();
        let mut chars = template.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let _ = match chars.next().unwrap_or('%') {
                'p' => write!(out, "{}", 1 + self.below(PORTS)),
                't' => write!(out, "{}", (table + 1 + self.below(2)).min(TABLES)),
                'g' => write!(out, "{}", 1 + self.below(GROUPS)),
                'm' => write!(out, "50:54:00:00:00:{:02x}", self.below(6)),
                '4' => write!(out, "{}", self.ip()),
                '6' => write!(out, "fe80::{:x}", 1 + self.below(4)),
                'n' => write!(out, "{}", self.pick(&[32, 24, 16, 31, 8])),
                'l' => write!(out, "{}", self.pick(&[80, 81, 82, 4096, 4097, 4111])),
                'x' => write!(out, "{}", 1 + self.below(7)),
                'X' => write!(out, "{}", 4096 + self.below(5)),
                'v' => write!(out, "{}", self.below(4)),
                'r' => write!(out, "{}", self.below(4)),
                's' => write!(out, "{}", self.pick(&[64, 64, 2, 1])),
                'd' => write!(out, "{}", self.below(3) * 4),
                'b' => write!(out, "{}", self.below(2)),
                other => write!(out, "{other}"),
            };
        }
        out
    }

    fn kind(&mut self) -> &'static Kind {
        if self.chance(30) { &KINDS[0] } else { &KINDS[self.below(KINDS.len() as u64) as usize] }
    }

    fn flow(&mut self) -> String {
        let table = if self.chance(40) { 0 } else { self.below(TABLES) };
        let kind = self.kind();
        let mut parts = Vec::new();
        let base = self.pick(kind.matches);
        if !base.is_empty() {
            parts.push(base.to_owned());
        }
        while self.chance(40) {
            let template = self.pick(FIELDS);
            parts.push(self.fill(template, table));
        }
        while !kind.fields.is_empty() && self.chance(55) {
            let template = self.pick(kind.fields);
            parts.push(self.fill(template, table));
        }
        // A field once: by its name.
        let mut names: Vec<String> = Vec::new();
        parts.retain(|p| {
            let name = p.split(['=', ',']).next().unwrap_or_default();
            let name = if name.starts_with("vlan") || name.starts_with("dl_vlan") { "vlan" } else { name };
            let name = if name.contains("reg") { "reg" } else { name };
            let fresh = !names.iter().any(|n| n == name);
            names.push(name.to_owned());
            fresh
        });
        let mut actions = Vec::new();
        for _ in 0..=self.below(3) {
            let own = !kind.actions.is_empty() && self.chance(50);
            let template = if own { self.pick(kind.actions) } else { self.pick(ACTIONS) };
            actions.push(self.fill(template, table));
        }
        if self.chance(25) {
            let template = self.pick(INSTRUCTIONS);
            actions.push(self.fill(template, table));
        }
        if self.chance(5) {
            actions = vec!["drop".into()];
        }
        // Of one priority and table two rules that overlap are undefined: each has its own.
        let mut text = format!("table={table},priority={}", self.below(60_000));
        for p in &parts {
            let _ = write!(text, ",{p}");
        }
        if self.chance(10) {
            let _ = write!(text, ",cookie={:#x}", self.below(9));
        }
        let _ = write!(text, ",actions={}", actions.join(","));
        text
    }

    fn group(&mut self, id: u64) -> String {
        let kind = self.pick(&["all", "select", "select", "indirect", "ff"]);
        let mut text = format!("group_id={id},type={kind}");
        if kind == "select" {
            text.push_str(self.pick(&[
                "",
                ",selection_method=hash,fields(eth_src,ip_dst)",
                ",selection_method=hash,fields=eth_dst",
                ",selection_method=dp_hash",
                ",selection_method=dp_hash,selection_method_param=5",
            ]));
        }
        let n = if kind == "indirect" { 1 } else { 1 + self.below(3) };
        for b in 0..n {
            let mut bucket = String::new();
            if self.chance(30) {
                let _ = write!(bucket, "bucket_id={},", b + 3);
            }
            if kind == "select" {
                let _ = write!(bucket, "weight:{},", self.pick(&[100, 100, 1, 10, 50, 0]));
            }
            if kind == "ff" || self.chance(20) && kind == "select" {
                let _ = if self.chance(70) {
                    write!(bucket, "watch_port:{},", self.pick(&[1, 2, 4, 8, 9]))
                } else {
                    write!(bucket, "watch_group:{},", 1 + self.below(id))
                };
            }
            let template = self.pick(BUCKETS);
            let _ = write!(text, ",bucket={bucket}actions={}", self.fill(template, 2));
        }
        text
    }

    fn packet(&mut self) -> String {
        let dst = if self.chance(15) { "ff:ff:ff:ff:ff:ff".to_owned() } else { self.fill("%m", 0) };
        let mut p =
            format!("in_port={},{},dl_dst={dst}", self.pick(&[1, 2, 3, 4, 8]), self.fill("dl_src=%m", 0));
        let with_packets: Vec<&Kind> = KINDS.iter().filter(|k| !k.packets.is_empty()).collect();
        let kind = self.pick(&with_packets);
        let template = self.pick(kind.packets);
        let text = self.fill(template, 0);
        if !text.is_empty() {
            let _ = write!(p, ",{text}");
        }
        if self.chance(40) {
            let template = self.pick(METADATA);
            let more = self.fill(template, 0);
            let _ = write!(p, ",{more}");
        }
        p
    }
}

/// The case of a seed.
pub(super) fn case(seed: u64) -> Case {
    let mut g = Gen(Rng::new(seed));
    let n_flows = 1 + g.below(40);
    let flows = (0..n_flows).map(|_| g.flow()).collect();
    let groups = (1..=GROUPS).map(|id| g.group(id)).collect();
    let packets = (0..10).map(|_| g.packet()).collect();
    Case { flows, groups, packets }
}
