//! `dpif-netdev/*`: commands that only the user-space datapath has.

use std::sync::Arc;

use ib_base::time::{Clock, strftime};
use ib_dp_userspace::impls::Impls;
use ib_dp_userspace::{DpUserspace, DpUserspaceClass, impls, show};
use ib_dpif::Dpif;
use ib_stream::unixctl::{Call, Command};

use super::Vswitchd;

/// A daemon with user-space datapaths in its process.
pub trait UserDatapaths {
    /// Their kinds.
    fn classes(&self) -> &[Arc<DpUserspaceClass>];
    /// Implementations that were chosen by command.
    fn impls(&mut self) -> &mut Impls;
    /// The clock.
    fn clock(&self) -> &Clock;
}

/// The table.
pub fn commands<S: UserDatapaths>() -> Vec<Command<S>> {
    vec![
        row("dpif-netdev/pmd-stats-show", "[-pmd core] [dp]", 0, 3, |v, call| {
            one(v, call, |_, dp, args| Ok(show::pmd_stats_show(dp, args.core)));
        }),
        row("dpif-netdev/pmd-stats-clear", "[-pmd core] [dp]", 0, 3, |v, call| {
            one(v, call, |_, dp, args| {
                show::pmd_stats_clear(dp, args.core);
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
                    let time = strftime("%H:%M:%S.###", v.clock().wall_ms(), true);
                    Ok(show::pmd_perf_show(dp, args.core, &time))
                });
            },
        ),
        row(
            "dpif-netdev/pmd-perf-log-set",
            "on|off [-b before] [-a after] [-e|-ne] [-us usec] [-q qlen]",
            0,
            10,
            |_, call| {
                let result = perf_log_set(&call.args);
                call.answer_text(result);
            },
        ),
        row("dpif-netdev/pmd-sleep-show", "[dp]", 0, 1, |v, call| {
            one(v, call, |_, dp, _| Ok(show::pmd_sleep_show(dp)));
        }),
        row("dpif-netdev/pmd-rxq-rebalance", "[dp]", 0, 1, |v, call| {
            named(v, call, |dp| {
                dp.rebalance();
                "pmd rxq rebalance requested.\n".into()
            });
        }),
        row("dpif-netdev/bond-show", "[dp]", 0, 1, |v, call| named(v, call, DpUserspace::show_bonds)),
        row("dpif-netdev/subtable-lookup-info-get", "", 0, 0, |v, call| {
            let dps = open(v);
            let text = v.impls().lookup_info(&dps);
            call.ok(text);
        }),
        row("dpif-netdev/subtable-lookup-prio-get", "", 0, 0, |v, call| {
            let dps = open(v);
            let text = v.impls().lookup_info(&dps);
            call.ok(text);
        }),
        row("dpif-netdev/subtable-lookup-prio-set", "[lookup_func] [prio]", 2, 2, |v, call| {
            let dps = open(v);
            let word = |i| call.arg(i).unwrap_or_default();
            let result = v.impls().set_lookup(&dps, word(0), word(1));
            call.answer_text(result);
        }),
        row("dpif-netdev/dpif-impl-get", "", 0, 0, |v, call| each(v, call, |_, dp| impls::dpif_impl_get(dp))),
        row("dpif-netdev/dpif-impl-set", "dpif_implementation_name", 1, 1, |_, call| {
            let result = impls::dpif_impl_set(call.arg(0).unwrap_or_default());
            call.answer_text(result);
        }),
        row("dpif-netdev/miniflow-parser-get", "", 0, 0, |v, call| {
            each(v, call, |v, dp| v.impls().parsers(dp));
        }),
        row(
            "dpif-netdev/miniflow-parser-set",
            "[-pmd core] miniflow_implementation_name [study_pkt_cnt]",
            1,
            5,
            |v, call| {
                let dps = open(v);
                let result = v.impls().set_parser(&dps, &call.args);
                call.answer_text(result);
            },
        ),
        row("dpif/offload/show", "", 0, 0, |v, call| {
            let all = open(v);
            let enabled = all.iter().any(|dp| dp.shared().offload.is_told());
            let names: String = all.iter().map(|dp| format!("  {}:\n", dp.full_name())).collect();
            call.ok(format!("Globally enabled: {enabled}\nDatapaths:\n{names}"));
        }),
        row("accel/show", "[-m]", 0, 1, |v, call| match call.arg(0) {
            None => each(v, call, |_, dp| dp.show_offload(false)),
            Some("-m") => each(v, call, |_, dp| dp.show_offload(true)),
            Some(_) => call.answer_text(Err::<&str, _>("accel/show: the only option is -m")),
        }),
        row("odp-execute/action-impl-show", "", 0, 0, |v, call| {
            let text = v.impls().actions();
            call.ok(text);
        }),
        row("odp-execute/action-impl-set", "name", 1, 1, |v, call| {
            let result = v.impls().set_actions(call.arg(0).unwrap_or_default());
            call.answer_text(result);
        }),
    ]
}

/// Commands of dummy datapaths.
pub const DUMMY: &[Command<Vswitchd>] =
    &[row("dpif-dummy/change-port-number", "dp port new-number", 3, 3, |v, call| {
        let word = |i| call.arg(i).unwrap_or_default();
        let dp = open(v).into_iter().find(|dp| dp.kind() == "dummy" && dp.name() == word(0));
        let result = match dp {
            Some(dp) => dp.change_port_number(word(1), word(2)),
            None => Err("unknown datapath or not a dummy"),
        };
        v.layer.switch.refresh_port_numbers();
        call.answer_text(result.map(|()| ""));
    })];

/// Suspicious iterations are not logged: a thread that sleeps has none. The command checks its words and remembers nothing.
fn perf_log_set(args: &[String]) -> Result<String, &'static str> {
    const USAGE: &str = "Usage: ovs-appctl dpif-netdev/pmd-perf-log-set [on|off] [-b before] [-a after] [-e|-ne] [-us usec] [-q qlen]\n";
    let mut words = args.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let fine = match word {
            "on" | "off" | "-e" | "-ne" => true,
            "-b" | "-a" | "-us" | "-q" => words.next().is_some_and(|w| w.parse::<u32>().is_ok()),
            _ => false,
        };
        if !fine {
            return Err(USAGE);
        }
    }
    Ok(String::new())
}

const fn row<S>(
    name: &'static str,
    usage: &'static str,
    min: usize,
    max: usize,
    handler: fn(&mut S, Call),
) -> Command<S> {
    Command { name, usage, min, max, handler }
}

/// The options that these commands share.
struct Args {
    core: Option<u32>,
    secs: u32,
}

fn open<S: UserDatapaths>(v: &S) -> Vec<Arc<DpUserspace>> {
    v.classes().iter().flat_map(|c| c.all()).collect()
}

/// Answers for the datapath that the command names, or the only one.
fn one<S: UserDatapaths>(v: &mut S, call: Call, f: fn(&S, &DpUserspace, &Args) -> Result<String, String>) {
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

/// As [`one`], for commands that take the datapath's name alone.
fn named<S: UserDatapaths>(v: &mut S, call: Call, f: fn(&DpUserspace) -> String) {
    let all = open(v);
    let result = show::choose_strictly(&all, call.arg(0)).map(|dp| f(&dp));
    call.answer_text(result);
}

/// Answers for each datapath in turn.
fn each<S: UserDatapaths>(v: &mut S, call: Call, f: fn(&mut S, &DpUserspace) -> String) {
    let all = open(v);
    let text: String = all.iter().map(|dp| f(v, dp)).collect();
    call.ok(text);
}
