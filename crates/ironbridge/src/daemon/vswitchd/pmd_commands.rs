//! `dpif-netdev/*`: commands that only the user-space datapath has.

use std::sync::Arc;
use std::time::Duration;

use ib_base::time::strftime;
use ib_dp_userspace::{DpUserspace, show};
use ib_stream::unixctl::{Call, Command};

use super::Vswitchd;

/// The table.
pub const COMMANDS: &[Command<Vswitchd>] = &[
    row("dpif-netdev/pmd-stats-show", "[-pmd core] [dp]", 0, 3, |v, call| {
        one(v, call, |_, dp, args| Ok(show::pmd_stats_show(dp, args.core)));
    }),
    row("dpif-netdev/pmd-stats-clear", "[-pmd core] [dp]", 0, 3, |v, call| {
        one(v, call, |_, dp, _| {
            show::pmd_stats_clear(dp);
            Ok(String::new())
        });
    }),
    row("dpif-netdev/pmd-rxq-show", "[-pmd core] [-secs secs] [dp]", 0, 5, |v, call| {
        one(v, call, |_, dp, args| Ok(show::pmd_rxq_show(dp, args.core, args.secs)));
    }),
    row(
        "dpif-netdev/pmd-perf-show",
        "[-nh] [-it iter-history-len] [-ms ms-history-len] [-pmd core] [dp]",
        0,
        8,
        |v, call| {
            one(v, call, |v, dp, args| {
                let time = strftime("%H:%M:%S.###", v.clock.wall_ms(), true);
                let secs = Duration::from_millis(v.clock.now().as_ms()).as_secs_f64();
                Ok(show::pmd_perf_show(dp, args.core, &time, secs))
            });
        },
    ),
    row("dpif-netdev/pmd-sleep-show", "[dp]", 0, 1, |v, call| {
        one(v, call, |_, dp, _| Ok(show::pmd_sleep_show(dp)));
    }),
    row("dpif-netdev/pmd-rxq-rebalance", "[dp]", 0, 1, |v, call| {
        // Queues stay with the thread that they were given to: there is nothing to rebalance.
        one(v, call, |_, _, _| Ok("pmd rxq rebalance requested.\n".into()));
    }),
    row("dpif-netdev/subtable-lookup-info-get", "", 0, 0, |v, call| {
        each(v, call, show::subtable_lookup_info_get);
    }),
    row("dpif-netdev/subtable-lookup-prio-get", "", 0, 0, |v, call| {
        each(v, call, show::subtable_lookup_info_get);
    }),
    row("dpif-netdev/subtable-lookup-prio-set", "[lookup_func] [prio]", 2, 2, |_, call| {
        let result = show::subtable_lookup_prio_set(call.arg(0).unwrap_or_default());
        call.answer_text(result);
    }),
    row("dpif-netdev/dpif-impl-get", "", 0, 0, |v, call| each(v, call, show::dpif_impl_get)),
    row("dpif-netdev/dpif-impl-set", "dpif_implementation_name", 1, 1, |_, call| {
        let result = show::dpif_impl_set(call.arg(0).unwrap_or_default());
        call.answer_text(result);
    }),
    row("dpif-netdev/miniflow-parser-get", "", 0, 0, |v, call| each(v, call, show::miniflow_parser_get)),
    row(
        "dpif-netdev/miniflow-parser-set",
        "[-pmd core] miniflow_implementation_name [study_pkt_cnt]",
        1,
        5,
        |_, call| {
            let name = call.args.iter().find(|a| !a.starts_with('-')).cloned().unwrap_or_default();
            call.answer_text(show::miniflow_parser_set(&name));
        },
    ),
];

const fn row(
    name: &'static str,
    usage: &'static str,
    min: usize,
    max: usize,
    handler: fn(&mut Vswitchd, Call),
) -> Command<Vswitchd> {
    Command { name, usage, min, max, handler }
}

/// The options that these commands share.
struct Args {
    core: Option<u32>,
    secs: u32,
}

fn open(v: &Vswitchd) -> Vec<Arc<DpUserspace>> {
    v.user_classes.iter().flat_map(|c| c.all()).collect()
}

/// Answers for the datapath that the command names, or the only one.
fn one(v: &mut Vswitchd, call: Call, f: fn(&Vswitchd, &DpUserspace, &Args) -> Result<String, String>) {
    let mut args = Args { core: None, secs: 60 };
    let mut name = None;
    let mut words = call.args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-pmd" => args.core = words.next().and_then(|w| w.parse().ok()),
            "-secs" => args.secs = words.next().and_then(|w| w.parse().ok()).unwrap_or(60),
            "-it" | "-ms" => {
                words.next();
            }
            "-nh" => {}
            other => name = Some(other),
        }
    }
    let all = open(v);
    let result = match show::choose(&all, name) {
        Ok(dp) => f(v, &dp, &args),
        Err(e) => Err(e.to_owned()),
    };
    call.answer_text(result);
}

/// Answers for each datapath in turn.
fn each(v: &mut Vswitchd, call: Call, f: fn(&DpUserspace) -> String) {
    let text: String = open(v).iter().map(|dp| f(dp)).collect();
    call.ok(text);
}
