//! The story: what is built, sent, forbidden, explained, in this order. Each chapter is a function; a check that fails is
//! noted and the story goes on, what nothing can go on without ends it.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ib_base::errno::strerror;
use ib_netdev::DummyLevel;
use ib_sys::rtnetlink::Rtnl;
use ib_sys::signal;

use super::endpoint::{self, Replies, Servers};
use super::guest::Guest;
use super::isolation::Isolation;
use super::style::Style;
use super::tenant::{PREFIX_LEN, Tenant, mac_text};
use super::tools::{self, Failure};
use super::topology::{self, Node};
use crate::embedded::{Config, Embedded};

/// How the story ended.
#[derive(Debug)]
pub enum Outcome {
    /// At its end.
    Done,
    /// A signal came.
    Interrupted,
    /// It could not go on.
    Broken(String),
}

type Result<T = ()> = std::result::Result<T, Failure>;

/// The virtual machine's device.
const VM: &str = "vm1";
const VM_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const VM_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// For what must arrive: an ARP request that was lost is repeated after a second.
const WAIT: Duration = Duration::from_millis(1500);
/// For what must not: as much as a hundred ordinary round trips.
const BLOCKED_WAIT: Duration = Duration::from_millis(250);
const BULK_TIME: Duration = Duration::from_millis(1500);

/// What the story has built so far, dropped from top to bottom.
pub struct Scenario<'s, 'a, 'b> {
    servers: Vec<Servers>,
    switch: Option<Embedded>,
    guest: Option<Guest>,
    tenants: Vec<Tenant>,
    style: &'s mut Style<'a, 'b>,
    dir: &'s Path,
}

fn broken(what: &str) -> impl Fn(io::Error) -> Failure {
    move |e| match e.kind() {
        io::ErrorKind::Interrupted if signal::held().is_some() => Failure::Interrupted,
        _ => Failure::Failed(format!("{what}: {}", strerror(&e))),
    }
}

fn text(d: Duration) -> String {
    format!("{:.3} ms", d.as_secs_f64() * 1e3)
}

impl<'s, 'a, 'b> Scenario<'s, 'a, 'b> {
    /// Nothing built yet; sockets and the like will be in `dir`.
    pub fn new(style: &'s mut Style<'a, 'b>, dir: &'s Path) -> Scenario<'s, 'a, 'b> {
        Scenario { servers: Vec::new(), switch: None, guest: None, tenants: Vec::new(), style, dir }
    }

    /// Tells the story.
    pub fn play(&mut self, isolation: Isolation) -> Outcome {
        match self.chapters(isolation) {
            Ok(()) => Outcome::Done,
            Err(Failure::Interrupted) => Outcome::Interrupted,
            Err(Failure::Failed(why)) => Outcome::Broken(why),
        }
    }

    fn chapters(&mut self, isolation: Isolation) -> Result {
        self.network(isolation)?;
        self.switch()?;
        self.traffic()?;
        self.vlans()?;
        self.openflow()?;
        self.explanations()
    }

    /// Notes a failure that came from outside of a chapter.
    pub fn fail(&mut self, why: &str) {
        self.style.fail(why);
    }

    /// Whether one of the daemons has ended.
    pub fn has_ended(&mut self) -> bool {
        self.switch.as_mut().is_none_or(Embedded::has_ended)
    }

    /// The last complaints of the log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("ironbridge.log")).unwrap_or_default();
        let grave = |l: &&str| ["|WARN|", "|ERR|", "|EMER|"].iter().any(|level| l.contains(level));
        let lines: Vec<&str> = log.lines().filter(grave).collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    // Building blocks.

    fn tenant(&self, name: &str) -> Result<Tenant> {
        let found = self.tenants.iter().find(|t| t.name == name);
        found.cloned().ok_or_else(|| Failure::Failed(format!("there is no tenant {name}")))
    }

    /// Runs a line and shows it; its output if it succeeds.
    fn run(&mut self, line: &str) -> Result<String> {
        self.style.command(line);
        tools::run(line)
    }

    /// As [`Self::run`], where failing is a check of its own. Shows the output.
    fn show(&mut self, line: &str) -> Result<String> {
        match self.run(line) {
            Ok(out) => {
                self.style.output(&out);
                Ok(out)
            }
            Err(Failure::Failed(why)) => {
                self.style.fail(&why);
                Ok(String::new())
            }
            Err(e) => Err(e),
        }
    }

    fn check(&mut self, good: bool, text: &str) {
        if good { self.style.pass(text) } else { self.style.fail(text) }
    }

    fn ping(&self, from: &str, to: Ipv4Addr, count: u16, wait: Duration) -> Result<Replies> {
        let what = format!("ping from {from}");
        self.tenant(from)?.within(move || endpoint::ping(to, count, wait)).map_err(broken(&what))
    }

    fn udp(&self, from: &str, to: Ipv4Addr, count: u16, wait: Duration) -> Result<Replies> {
        let what = format!("UDP from {from}");
        self.tenant(from)?.within(move || endpoint::udp_echo(to, count, 512, wait)).map_err(broken(&what))
    }

    fn check_ping(&mut self, from: &str, to: Ipv4Addr, name: &str, path: &str) -> Result {
        let r = self.ping(from, to, 5, WAIT)?;
        let rtts = match r.rtts.first() {
            Some(first) if r.first_answered => {
                format!("the first {} (ARP, then a miss), then {}", text(*first), text(r.median()))
            }
            _ => "the first was lost".into(),
        };
        let line = format!("ping {from} → {name} ({path}): {} of {} answered, {rtts}", r.received(), r.sent);
        self.check(r.complete(), &line);
        Ok(())
    }

    fn check_blocked(&mut self, from: &str, to: Ipv4Addr, name: &str, why: &str) -> Result {
        let r = self.ping(from, to, 3, BLOCKED_WAIT)?;
        let line =
            format!("ping {from} → {name}: {} of {} answered, as it is to be: {why}", r.received(), r.sent);
        self.check(r.received() == 0, &line);
        Ok(())
    }

    // Chapters.

    fn network(&mut self, isolation: Isolation) -> Result {
        self.style.heading("1. Machines to connect");
        let how = match isolation {
            Isolation::Root => "a network namespace of its own, as root",
            Isolation::UserNamespace => "a user and a network namespace of its own, without root",
        };
        self.style.say(&format!("This process works in {how}: the machine's network is not touched."));
        self.style.say("Tenants are network namespaces on veth pairs, made with netlink:");
        for (name, last, purpose) in
            [("red1", 1, "tenant red"), ("blue1", 4, "tenant blue"), ("red2", 2, "tenant red")]
        {
            let ip = Ipv4Addr::new(10, 0, 0, last);
            let made = Tenant::new(name, ip, [2, 0, 0, 0, 0, last]);
            let tenant = made.map_err(broken(&format!("making namespace {name}")))?;
            self.style
                .pass(&format!("{name:<6} {ip}/{PREFIX_LEN}  namespace of {purpose}, veth {name} – eth0"));
            self.servers.push(Servers::start(&tenant).map_err(broken(&format!("servers of {name}")))?);
            self.tenants.push(tenant);
        }
        match Guest::start(VM, VM_IP, VM_MAC) {
            Ok(guest) => {
                self.guest = Some(guest);
                self.style
                    .pass(&format!("{VM:<6} {VM_IP}/{PREFIX_LEN}  virtual machine of tenant red, TAP {VM}"));
            }
            Err(e) => self.style.skip(&format!(
                "the virtual machine is left out, its TAP could not be made: /dev/net/tun: {} \
                 (as root: modprobe tun)",
                strerror(&e)
            )),
        }
        Ok(())
    }

    fn switch(&mut self) -> Result {
        self.style.heading("2. The switch");
        self.style
            .say("Database, switch and datapath start in this process. Then, in the words of ovs-vsctl:");
        let config =
            Config { database: self.dir.join("conf.db"), remotes: Vec::new(), dummy: DummyLevel::None };
        self.switch = Some(Embedded::start(&config, &(Arc::new(|| ()) as _)).map_err(Failure::Failed)?);
        let mut lines = vec![
            "ovs-vsctl add-br br0 -- add-br br1",
            "ovs-vsctl add-port br0 red1 tag=10 -- add-port br0 blue1 tag=20",
            "ovs-vsctl add-port br1 red2 tag=10",
            "ovs-vsctl add-port br0 to-br1 -- set interface to-br1 type=patch options:peer=to-br0 \
             -- add-port br1 to-br0 -- set interface to-br0 type=patch options:peer=to-br1",
        ];
        let mut ports = vec!["red1", "blue1", "red2", "to-br1", "to-br0"];
        if self.guest.is_some() {
            lines.push("ovs-vsctl add-port br1 vm1 tag=10");
            ports.push(VM);
        }
        for line in lines {
            self.run(line)?;
        }
        let mut missing = Vec::new();
        for port in &ports {
            let number = tools::run(&format!("ovs-vsctl get interface {port} ofport"))?;
            if !number.trim().parse::<u16>().is_ok_and(|n| n > 0) {
                missing.push(*port);
            }
        }
        let line = match missing.as_slice() {
            [] => format!("two bridges, {} ports, all in the datapath", ports.len()),
            _ => format!("not in the datapath: {}", missing.join(", ")),
        };
        self.check(missing.is_empty(), &line);
        let drawing = self.drawing();
        self.style.say("");
        self.style.say(&drawing);
        Ok(())
    }

    fn drawing(&self) -> String {
        let node = |name: &str, ip: Ipv4Addr, vlan: u32, wire: &str, bridge| Node {
            name: name.into(),
            address: format!("{ip}/{PREFIX_LEN}"),
            vlan: format!("VLAN {vlan}"),
            wire: wire.into(),
            bridge,
        };
        let mut nodes: Vec<Node> = Vec::new();
        for t in &self.tenants {
            let (vlan, bridge) =
                (if t.name.starts_with("blue") { 20 } else { 10 }, usize::from(t.name == "red2"));
            nodes.push(node(t.name, t.ip, vlan, "veth", bridge));
        }
        if self.guest.is_some() {
            nodes.push(node(VM, VM_IP, 10, "TAP", 1));
        }
        topology::draw(&nodes, &["br0", "br1"], "══ is a patch: ports to-br1 and to-br0")
    }

    fn traffic(&mut self) -> Result {
        self.style.heading("3. Traffic");
        let red2 = self.tenant("red2")?.ip;
        self.check_ping("red1", red2, "red2", "veth, br0, patch, br1, veth")?;
        let r = self.udp("red1", red2, 200, WAIT)?;
        let line = format!(
            "UDP red1 → red2: {} of {} datagrams came back unchanged, round trip {}",
            r.received(),
            r.sent,
            text(r.median())
        );
        self.check(r.complete(), &line);
        for (from, to) in [("red1", "red2"), ("red2", "red1")] {
            let ip = self.tenant(to)?.ip;
            let result = self.tenant(from)?.within(move || endpoint::bulk(ip, BULK_TIME));
            match result {
                Ok(b) => self.style.pass(&format!(
                    "TCP {from} → {to}: {:.2} Gbit/s ({} MiB in {:.1} s, every byte in order)",
                    b.gbps(),
                    b.bytes >> 20,
                    b.elapsed.as_secs_f64()
                )),
                Err(e) if signal::held().is_some() => return Err(broken("TCP")(e)),
                Err(e) => self.style.fail(&format!("TCP {from} → {to}: {}", strerror(&e))),
            }
        }
        if self.guest.is_none() {
            self.style.skip("traffic with the virtual machine");
            return Ok(());
        }
        self.check_ping("red1", VM_IP, VM, "veth, br0, patch, br1, TAP")?;
        let r = self.udp("red2", VM_IP, 200, WAIT)?;
        let line = format!(
            "UDP red2 → {VM}: {} of {} datagrams came back, round trip {}",
            r.received(),
            r.sent,
            text(r.median())
        );
        self.check(r.complete(), &line);
        Ok(())
    }

    fn vlans(&mut self) -> Result {
        self.style.heading("4. Tenants are kept apart");
        let (red1, red2) = (self.tenant("red1")?.ip, self.tenant("red2")?.ip);
        self.style.say("blue1 is in the same subnet and on the same bridge as red1, but in VLAN 20.");
        self.check_blocked("blue1", red1, "red1", "another VLAN")?;
        self.check_blocked("blue1", red2, "red2", "another VLAN")?;
        self.style.say("The counter-example: in VLAN 10 it gets through.");
        self.run("ovs-vsctl set port blue1 tag=10")?;
        self.check_ping("blue1", red2, "red2", "VLAN 10 now")?;
        self.run("ovs-vsctl set port blue1 tag=20")?;
        self.check_blocked("blue1", red2, "red2", "VLAN 20 again")
    }

    fn openflow(&mut self) -> Result {
        self.style.heading("5. OpenFlow");
        self.style.say("A flow that drops UDP echo, and nothing else, takes effect at once:");
        let red2 = self.tenant("red2")?.ip;
        self.show("ovs-ofctl add-flow br0 'priority=100,udp,tp_dst=7,actions=drop'")?;
        let blocked = self.udp("red1", red2, 3, BLOCKED_WAIT)?;
        let pinged = self.ping("red1", red2, 3, WAIT)?;
        let line = format!(
            "UDP echo: {} of {} came back; ping: {} of {}",
            blocked.received(),
            blocked.sent,
            pinged.received(),
            pinged.sent
        );
        self.check(blocked.received() == 0 && pinged.complete(), &line);
        // The datapath's counters reach the flows with the next round of the revalidators.
        self.run("ovs-appctl revalidator/wait")?;
        let flows = self.show("ovs-ofctl dump-flows br0")?;
        let counted = flows.lines().any(|l| l.contains("actions=drop") && l.contains("n_packets=3,"));
        self.check(counted, "the flow has counted the three datagrams that it dropped");
        self.show("ovs-ofctl del-flows br0 'udp,tp_dst=7'")?;
        // The megaflow made from the flow goes with the next round, some milliseconds later.
        self.run("ovs-appctl revalidator/wait")?;
        let r = self.udp("red1", red2, 3, WAIT)?;
        let line = format!("without the flow, {} of {} come back", r.received(), r.sent);
        self.check(r.complete(), &line);
        Ok(())
    }

    fn explanations(&mut self) -> Result {
        self.style.heading("6. What the switch knows");
        let (red1, red2) = (self.tenant("red1")?, self.tenant("red2")?);
        let fdb = self.show("ovs-appctl fdb/show br0")?;
        let learned = fdb.contains(&red1.mac_text()) && fdb.contains(&red2.mac_text());
        self.check(learned, "br0 has learned where red1 and red2 are");
        let megaflows = self.show("ovs-appctl dpctl/dump-flows --names")?;
        let count = megaflows.lines().filter(|l| l.contains("actions:")).count();
        self.check(count > 0, &format!("{count} megaflows in the datapath carry the traffic"));
        let stats = self.show("ovs-appctl dpctl/show")?;
        self.check(stats.contains("lookups: hit:"), "the datapath counts hits and misses");
        self.style.say("Why a packet goes where it goes:");
        let trace = self.show(&format!(
            "ovs-appctl ofproto/trace --names br0 \
             in_port=red1,tcp,dl_src={},dl_dst={},nw_src={},nw_dst={},nw_ttl=64,tp_src=40000,tp_dst={}",
            mac_text(&red1.mac),
            mac_text(&red2.mac),
            red1.ip,
            red2.ip,
            endpoint::BULK_PORT
        ))?;
        let actions = trace.lines().find_map(|l| l.strip_prefix("Datapath actions: ")).unwrap_or_default();
        let good = !actions.is_empty() && actions != "drop";
        self.check(good, "ofproto/trace explains each step, through the patch, to the actions");
        Ok(())
    }

    /// Takes the bridges down by the tools' own words and looks whether devices are left.
    pub fn take_down(&mut self) -> Outcome {
        self.style.heading("7. The end");
        let gone = self.run("ovs-vsctl del-br br0 -- del-br br1").and_then(|_| {
            let links = Rtnl::open().and_then(|mut r| r.links()).map_err(broken("listing devices"))?;
            let left = |name: &str| links.iter().any(|l| l.name == name);
            self.check(!left("br0") && !left("br1"), "the bridges' devices went with them");
            Ok(())
        });
        match gone {
            Ok(()) => Outcome::Done,
            Err(Failure::Interrupted) => Outcome::Interrupted,
            Err(Failure::Failed(why)) => Outcome::Broken(why),
        }
    }

    /// What to type in another terminal.
    pub fn tell_how_to_look_around(&mut self, isolation: Isolation) {
        let bin = self.dir.join("bin");
        let made = crate::links(&bin);
        self.style.insist("\nStill running; Ctrl-C or `ovs-appctl exit` ends it. In another terminal:");
        let pid = std::process::id();
        let nsenter = match isolation {
            Isolation::Root => "sudo nsenter".to_owned(),
            Isolation::UserNamespace => format!("nsenter -t {pid} --user --preserve-credentials"),
        };
        let mut lines = format!("export OVS_RUNDIR={}\n", self.dir.display());
        if made.is_ok() {
            lines.push_str(&format!("export PATH={}:$PATH\n", bin.display()));
        }
        lines.push_str("ovs-vsctl show\novs-ofctl dump-flows br0\novs-appctl fdb/show br0\n");
        let devices = "ip link    # the switch's devices";
        lines.push_str(&format!("{nsenter} --net=/proc/{pid}/ns/net {devices}\n"));
        for t in &self.tenants {
            let red2 = Ipv4Addr::new(10, 0, 0, 2);
            let line = format!("{nsenter} --net={} ping -c 3 {red2}    # as {}\n", t.path(), t.name);
            lines.push_str(&line);
        }
        for l in lines.lines() {
            self.style.insist(&format!("  {l}"));
        }
    }
}
