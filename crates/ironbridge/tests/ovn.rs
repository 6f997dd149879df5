//! OVN on our database: Debian's `ovn-nbctl`, `ovn-sbctl` and `ovn-northd` with both OVN databases served by us.
//!
//! What northd makes of a network (50 routers, NAT, load balancers, ACLs, DHCP) must be what it makes of it over
//! Debian's server. Row UUIDs and the numbers drawn from them are named after what they stand for before comparing.

mod support;

use std::collections::HashMap;
use std::process::{Command, Stdio};

use ib_base::json::Json;
use support::{Dir, wait_for};

const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/ovn-nbctl", "ovn-common"),
    ("/usr/bin/ovn-northd", "ovn-central"),
    ("/usr/share/ovn/ovn-nb.ovsschema", "ovn-common"),
    ("/usr/sbin/ovsdb-server", "openvswitch-common"),
];

fn have_ovn() -> bool {
    let missing = PROGRAMS.iter().find(|(path, _)| !std::path::Path::new(path).exists());
    if let Some((path, package)) = missing {
        println!("skipped: needs {path} (apt-get install {package})");
    }
    missing.is_none()
}

/// Both databases on servers of their own, and northd between them.
struct Ovn {
    dir: Dir,
    /// The programs `ovsdb-server` and `ovsdb-tool` to use.
    server: String,
    tool: String,
}

impl Ovn {
    fn on_ours() -> Ovn {
        let dir = Dir::new("ovn");
        let links = dir.file("links");
        let made = Command::new(env!("CARGO_BIN_EXE_ironbridge")).args(["links", &links]).output().unwrap();
        assert!(made.status.success());
        Ovn::start(dir, format!("{links}/ovsdb-server"), format!("{links}/ovsdb-tool"))
    }

    fn on_debians() -> Ovn {
        Ovn::start(Dir::new("ovn-debian"), "/usr/sbin/ovsdb-server".into(), "/usr/bin/ovsdb-tool".into())
    }

    fn start(dir: Dir, server: String, tool: String) -> Ovn {
        let ovn = Ovn { dir, server, tool };
        for name in ["nb", "sb"] {
            let schema = format!("/usr/share/ovn/ovn-{name}.ovsschema");
            ovn.run(&ovn.tool, &["create", &ovn.dir.file(&format!("{name}.db")), &schema]);
            ovn.start_server(name);
        }
        ovn.nbctl(&["init"]);
        ovn.start_northd("northd");
        ovn
    }

    fn daemon(&self, program: &str, name: &str, more: &[String]) {
        let file = |suffix: &str| self.dir.file(&format!("{name}.{suffix}"));
        let mut args = vec!["--detach".to_owned(), "--no-chdir".into(), "-vconsole:off".into()];
        args.push(format!("--pidfile={}", file("pid")));
        args.push(format!("--log-file={}", file("log")));
        args.push(format!("--unixctl={}", file("ctl")));
        args.extend_from_slice(more);
        self.run(program, &args.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn start_server(&self, name: &str) {
        let remote = format!("--remote=p{}", self.remote(name));
        let mut more = vec![remote, self.dir.file(&format!("{name}.db"))];
        if name == "nb" {
            more.insert(0, "--remote=db:OVN_Northbound,NB_Global,connections".into());
        }
        self.daemon(&self.server, name, &more);
    }

    fn start_northd(&self, name: &str) {
        let (nb, sb) = (self.remote("nb"), self.remote("sb"));
        self.daemon("/usr/bin/ovn-northd", name, &[format!("--ovnnb-db={nb}"), format!("--ovnsb-db={sb}")]);
    }

    fn remote(&self, name: &str) -> String {
        format!("unix:{}", self.dir.file(&format!("ovn{name}_db.sock")))
    }

    fn stop(&self, name: &str) {
        let Ok(pid) = std::fs::read_to_string(self.dir.file(&format!("{name}.pid"))) else { return };
        let pid = pid.trim().to_owned();
        let _ = Command::new("kill").arg(&pid).output();
        // Reparented to an init that may not reap: a zombie is gone as well.
        wait_for("a daemon to end", 10, || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.is_empty() || status.contains(") Z ")
        });
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        for system in ["OVS", "OVN"] {
            for var in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
                command.env(format!("{system}_{var}"), self.dir.path());
            }
        }
        let out = command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap();
        assert!(
            out.status.success(),
            "$ {program} {}\n{}{}",
            args.iter().take(20).copied().collect::<Vec<_>>().join(" "),
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn nbctl(&self, args: &[&str]) -> String {
        let db = format!("--db={}", self.remote("nb"));
        self.run("/usr/bin/ovn-nbctl", &[&[db.as_str(), "--timeout=30"], args].concat())
    }

    fn sbctl(&self, args: &[&str]) -> String {
        let db = format!("--db={}", self.remote("sb"));
        self.run("/usr/bin/ovn-sbctl", &[&[db.as_str(), "--timeout=30"], args].concat())
    }

    fn status_of_northd(&self, name: &str) -> String {
        self.run("/usr/bin/ovn-appctl", &["-t", &self.dir.file(&format!("{name}.ctl")), "status"])
    }

    /// Every row of the southbound database as a line, sorted.
    fn southbound(&self) -> Vec<String> {
        let schema = std::fs::read_to_string("/usr/share/ovn/ovn-sb.ovsschema").unwrap();
        let schema = Json::parse(&schema).unwrap();
        let names: Vec<String> =
            schema.get("tables").unwrap().as_object().unwrap().iter().map(|(n, _)| n.to_string()).collect();
        let select = names.iter().map(|table| {
            Json::object([
                ("op", "select".into()),
                ("table", table.as_str().into()),
                ("where", Json::array([])),
            ])
        });
        let request = Json::array([Json::from("OVN_Southbound")].into_iter().chain(select)).to_string();
        let reply = self.run("/usr/bin/ovsdb-client", &["transact", &self.remote("sb"), &request]);
        let reply = Json::parse(&reply).unwrap();
        let tables = names.iter().zip(reply.as_array().unwrap());
        let rows: Vec<(&str, &Json)> = tables
            .flat_map(|(name, result)| {
                result.get("rows").unwrap().as_array().unwrap().iter().map(move |row| (name.as_str(), row))
            })
            .collect();
        let words = Words::of(&rows);
        let mut lines: Vec<String> = rows
            .iter()
            .filter(|(table, _)| *table != "SB_Global")
            .map(|(table, row)| words.line(table, row))
            .collect();
        lines.sort();
        lines
    }
}

impl Drop for Ovn {
    fn drop(&mut self) {
        for name in ["northd", "northd2", "nb", "sb"] {
            self.stop(name);
        }
    }
}

/// What stands in the place of UUIDs and numbers that differ from one run to the next.
struct Words {
    rows: HashMap<String, String>,
    datapaths: HashMap<String, String>,
    mac: String,
}

/// The value of a key in a map of strings, as JSON.
fn key<'j>(map: &'j Json, name: &str) -> &'j str {
    let pairs = map.as_array().and_then(|m| m.get(1)).and_then(Json::as_array).unwrap_or(&[]);
    let pair = pairs.iter().find_map(|p| match p.as_array() {
        Some([k, v]) if k.as_str() == Some(name) => v.as_str(),
        _ => None,
    });
    pair.unwrap_or("")
}

fn uuid_of(row: &Json) -> &str {
    row.get("_uuid").and_then(Json::as_array).and_then(|u| u[1].as_str()).unwrap()
}

impl Words {
    fn of(rows: &[(&str, &Json)]) -> Words {
        let mut words = Words { rows: HashMap::new(), datapaths: HashMap::new(), mac: String::new() };
        for (table, row) in rows {
            let word = match *table {
                "Datapath_Binding" => {
                    let name = key(row.get("external_ids").unwrap(), "name").to_owned();
                    words.datapaths.insert(row.get("tunnel_key").unwrap().to_string(), name.clone());
                    name
                }
                "Port_Binding" => row.get("logical_port").unwrap().as_str().unwrap().to_owned(),
                "SB_Global" => {
                    words.mac = key(row.get("options").unwrap(), "svc_monitor_mac").to_owned();
                    continue;
                }
                _ => continue,
            };
            words.rows.insert(uuid_of(row).to_owned(), word);
        }
        // A group is what it groups.
        for (_, row) in rows.iter().filter(|(table, _)| *table == "Logical_DP_Group") {
            let members = words.canonical(row.get("datapaths").unwrap()).to_string();
            words.rows.insert(uuid_of(row).to_owned(), members);
        }
        words
    }

    fn text(&self, text: &str) -> String {
        let text = text.replace(&self.mac, "MAC");
        if Json::parse(&format!("[\"{text}\"]")).is_ok() && text.len() == 36 && text.matches('-').count() == 4
        {
            return self.rows.get(&text).cloned().unwrap_or_else(|| "ROW".into());
        }
        // Sets of load balancer addresses are named after the number of their datapath.
        match text.split_once("_rtr_lb_") {
            None => text,
            Some((before, after)) => {
                let end = after.find('_').unwrap_or(0);
                let name = self.datapaths.get(&after[..end]).map_or("?", String::as_str);
                format!("{before}_rtr_lb_{name}{}", &after[end..])
            }
        }
    }

    fn canonical(&self, value: &Json) -> Json {
        match value {
            Json::String(text) => self.text(text).into(),
            Json::Array(items) => {
                let mut items: Vec<Json> = items.iter().map(|i| self.canonical(i)).collect();
                if let [Json::String(kind), Json::Array(members)] = items.as_mut_slice()
                    && matches!(&**kind, "set" | "map")
                {
                    let mut sorted: Vec<Json> = members.to_vec();
                    sorted.sort_by_key(ToString::to_string);
                    // The hint is the beginning of a UUID; the source, of a flow that several datapaths share, is
                    // the place that made it for the first of them, by an order of UUIDs.
                    sorted.retain(|pair| {
                        let pair = pair.to_string();
                        !pair.starts_with("[\"stage-hint\"") && !pair.starts_with("[\"source\"")
                    });
                    *members = sorted;
                }
                Json::array(items)
            }
            other => other.clone(),
        }
    }

    fn line(&self, table: &str, row: &Json) -> String {
        let columns = row.as_object().unwrap().iter();
        let mut columns: Vec<String> = columns
            .filter(|(name, _)| !matches!(&***name, "_uuid" | "_version" | "tunnel_key" | "hash"))
            .map(|(name, value)| format!("{name}={}", self.canonical(value)))
            .collect();
        columns.sort();
        format!("{table} {}", columns.join(" "))
    }
}

/// A network of `n` tenants on one public switch.
fn build(ovn: &Ovn, n: usize) {
    let mut line = String::from("ls-add public");
    let mut and = |text: String| {
        line.push_str(" -- ");
        line.push_str(&text);
    };
    for i in 1..=n {
        and(format!("ls-add sw{i} -- lr-add r{i}"));
        and(format!("lrp-add r{i} r{i}-in 00:00:00:01:00:{i:02x} 10.{i}.0.1/24"));
        and(format!("lrp-add r{i} r{i}-out 00:00:00:02:00:{i:02x} 172.16.0.{i}/16"));
        for (switch, peer) in [(format!("sw{i}"), "in"), ("public".into(), "out")] {
            and(format!("lsp-add {switch} to-r{i}-{peer} -- lsp-set-type to-r{i}-{peer} router"));
            and(format!("lsp-set-addresses to-r{i}-{peer} router"));
            and(format!("lsp-set-options to-r{i}-{peer} router-port=r{i}-{peer}"));
        }
        for p in 1..=3 {
            let address = format!("00:00:00:00:{i:02x}:0{p}~10.{i}.0.1{p}");
            and(format!("lsp-add sw{i} p{i}-{p} -- lsp-set-addresses p{i}-{p} {address}"));
            and(format!("lsp-set-port-security p{i}-{p} {address}"));
        }
        and(format!("lr-nat-add r{i} snat 172.16.0.{i} 10.{i}.0.0/24"));
        and(format!("lr-nat-add r{i} dnat_and_snat 172.16.1.{i} 10.{i}.0.11"));
        and(format!("lr-route-add r{i} 0.0.0.0/0 172.16.255.254"));
        and(format!("acl-add sw{i} from-lport 1000 ip4.src==10.{i}.0.11~&&~tcp.dst==80 allow-related"));
        and(format!(
            "--log --severity=info --name=drop{i} acl-add sw{i} to-lport 900 ip4.src==$blocked drop"
        ));
        and(format!("lb-add lb{i} 10.{i}.0.100:80 10.{i}.0.11:8080,10.{i}.0.12:8080 tcp"));
        and(format!("ls-lb-add sw{i} lb{i} -- lr-lb-add r{i} lb{i}"));
    }
    let words: Vec<String> = line.split(' ').map(|word| word.replace('~', " ")).collect();
    ovn.nbctl(&words.iter().map(String::as_str).collect::<Vec<_>>());
    ovn.nbctl(&["create", "Address_Set", "name=blocked", "addresses=\"10.1.0.11\" \"192.168.0.0/24\""]);
    let options = r#"options="server_id"="10.1.0.1" "server_mac"="00:00:00:01:00:01" "lease_time"="3600""#;
    let id = ovn.nbctl(&["create", "DHCP_Options", "cidr=10.1.0.0/24", options]);
    ovn.nbctl(&["lsp-set-dhcpv4-options", "p1-1", id.trim()]);
    ovn.nbctl(&["--wait=sb", "sync"]);
}

/// Says what differs, a few lines of it.
fn assert_same(ours: &[String], debians: &[String]) {
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        let b: std::collections::HashSet<&String> = b.iter().collect();
        a.iter().filter(|line| !b.contains(line)).take(5).cloned().collect()
    };
    assert!(
        ours == debians,
        "{} rows over ours, {} over Debian's\nonly over ours: {:#?}\nonly over Debian's: {:#?}",
        ours.len(),
        debians.len(),
        only(ours, debians),
        only(debians, ours)
    );
}

#[test]
fn northd_makes_the_same_of_fifty_routers_over_either_server() {
    if !have_ovn() {
        return;
    }
    let (ours, debians) = (Ovn::on_ours(), Ovn::on_debians());
    for ovn in [&ours, &debians] {
        build(ovn, 50);
    }
    let lines = ours.southbound();
    assert!(lines.len() > 10_000, "{}", lines.len());
    assert_same(&lines, &debians.southbound());
    // What goes takes with it what hangs on it.
    for ovn in [&ours, &debians] {
        let mut args: Vec<String> = Vec::new();
        for i in 2..=50 {
            args.extend(["--".into(), "lr-del".into(), format!("r{i}"), "--".into(), "ls-del".into()]);
            args.push(format!("sw{i}"));
        }
        ovn.nbctl(&args.iter().map(String::as_str).collect::<Vec<_>>());
        ovn.nbctl(&["--wait=sb", "sync"]);
    }
    assert_same(&ours.southbound(), &debians.southbound());
}

#[test]
fn northd_takes_turns_and_outlives_its_servers() {
    if !have_ovn() {
        return;
    }
    let ovn = Ovn::on_ours();
    build(&ovn, 2);
    ovn.start_northd("northd2");
    wait_for("the first to hold the lock", 10, || ovn.status_of_northd("northd").contains("active"));
    assert_eq!(ovn.status_of_northd("northd2"), "Status: standby\n");
    ovn.stop("northd");
    wait_for("the second to take over", 10, || ovn.status_of_northd("northd2").contains("active"));
    ovn.nbctl(&["--wait=sb", "lr-del", "r2"]);
    let datapaths = ["--bare", "--columns=external_ids", "list", "datapath_binding"];
    assert!(!ovn.sbctl(&datapaths).contains("name=r2"));
    for name in ["nb", "sb"] {
        ovn.stop(name);
        ovn.start_server(name);
    }
    ovn.nbctl(&["--wait=sb", "ls-add", "later"]);
    assert!(ovn.sbctl(&datapaths).contains("name=later"));
    // A chassis claims a port, as ovn-controller would; northd says so in the other database.
    ovn.sbctl(&["chassis-add", "host1", "geneve", "192.0.2.1", "--", "lsp-bind", "p1-1", "host1"]);
    ovn.sbctl(&["set", "port_binding", "p1-1", "up=true"]);
    wait_for("the port to be up", 10, || ovn.nbctl(&["lsp-get-up", "p1-1"]) == "up\n");
}
