//! An agent in an evening: counts the ports of each bridge and writes the count beside the bridge.
//!
//! ```text
//! cargo run -p ib-stream --example agent -- unix:/var/run/openvswitch/db.sock
//! ```
//!
//! Several remotes are tried in turn. The agent holds a lock, so that a second one stands by; it hears of changes instead of
//! reading everything again; its transactions start over when the database has changed underneath them.

use ib_base::time::Clock;
use ib_ovsdb::idl::{ChangeKind, Idl, TxnStatus};
use ib_ovsdb::{Schema, schemas};
use ib_stream::reactor::Reactor;
use ib_stream::replica::Replica;
use std::io;

ib_ovsdb::typed_tables! {
    /// What the agent needs of a bridge: only these columns travel.
    Bridge BridgeEdit "Bridge" {
        name: str "name" set_name;
        ports: refs(Port) "ports" set_ports;
        external_ids: smap "external_ids" set_external_ids;
    }

    /// What it needs of a port.
    Port PortEdit "Port" {
        name: str "name" set_name;
    }
}

fn main() -> io::Result<()> {
    let remotes: Vec<String> = std::env::args().skip(1).collect();
    let schema = Schema::parse(schemas::VSWITCH).map_err(io::Error::other)?;
    let mut idl = Idl::new(&schema);
    Bridge::register(&mut idl);
    Port::register(&mut idl);
    idl.track_changes();
    idl.set_lock(Some("port_counter"));
    idl.set_leader_only(true);

    let mut reactor = Reactor::new(&Clock::new())?;
    let mut replica = Replica::open(idl, &remotes, reactor.handle());
    let mut seqno = 0;
    loop {
        seqno = replica.wait_for_change(&mut reactor, seqno)?;
        for change in replica.idl.take_changes() {
            if &*change.table == Bridge::TABLE && change.kind == ChangeKind::Deleted {
                let name = change.last("name").and_then(|name| name.as_str()).unwrap_or("?");
                println!("{name} is gone");
            }
        }
        let outcome = replica.transact(&mut reactor, |idl, txn| {
            for bridge in Bridge::all(idl.view()) {
                let count = bridge.ports().count().to_string();
                if bridge.external_ids().get("port-count") != Some(&count) {
                    let mut edit = BridgeEdit::of(txn, idl, bridge.uuid());
                    edit.verify("ports");
                    edit.set_key("external_ids", "port-count", &count);
                    txn.comment("port-counter");
                }
            }
        })?;
        match outcome.status {
            TxnStatus::Success => println!("counted"),
            TxnStatus::Unchanged => {}
            other => println!("{other:?}"),
        }
    }
}
