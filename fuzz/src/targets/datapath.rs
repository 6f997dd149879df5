//! What the kernel's datapath says: keys and actions as netlink attributes.

use ib_dpif::netlink::{Writer, decode_actions, decode_key, put_actions, put_key, put_mask};
use ib_dpif::text::{PortNames, parse_actions, parse_key};

use super::{ODP_ACTION_SEEDS, ODP_KEY_SEEDS};

/// Length of the key in front of its mask: two bytes.
fn joined(key: &[u8], mask: &[u8]) -> Vec<u8> {
    let len = u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&len, key, mask].concat()
}

fn key_bytes(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    fill(&mut w);
    w.finish().expect("a key is short")
}

fn texts(seeds: &'static [&'static [u8]]) -> impl Iterator<Item = &'static str> {
    seeds.iter().filter_map(|s| std::str::from_utf8(s).ok())
}

/// Keys with their masks, by our own encoder.
pub fn made_keys() -> Vec<Vec<u8>> {
    let parsed = texts(ODP_KEY_SEEDS).filter_map(|t| parse_key(t, &PortNames::none()).ok());
    parsed
        .map(|(key, mask)| joined(&key_bytes(|w| put_key(w, &key)), &key_bytes(|w| put_mask(w, &key, &mask))))
        .collect()
}

/// What was read is written, and read the same.
pub fn key(input: &[u8]) {
    let Some((len, rest)) = input.split_first_chunk::<2>() else { return };
    let at = usize::from(u16::from_be_bytes(*len)).min(rest.len());
    let (key, mask) = rest.split_at(at);
    let Ok((flow, Some(mask))) = decode_key(key, Some(mask)) else { return };
    let written = key_bytes(|w| put_key(w, &flow));
    let written_mask = key_bytes(|w| put_mask(w, &flow, &mask));
    let (again, mask_again) = decode_key(&written, Some(&written_mask)).expect("what was written is read");
    assert_eq!(key_bytes(|w| put_key(w, &again)), written);
    let mask_again = mask_again.expect("a mask was given");
    assert_eq!(key_bytes(|w| put_mask(w, &again, &mask_again)), written_mask);
}

/// Actions by our own encoder.
pub fn made_actions() -> Vec<Vec<u8>> {
    let parsed = texts(ODP_ACTION_SEEDS).filter_map(|t| parse_actions(t, &PortNames::none()).ok());
    parsed
        .filter_map(|actions| {
            let mut w = Writer::new();
            put_actions(&mut w, &actions, None).ok()?;
            w.finish().ok()
        })
        .collect()
}

/// What was read is written, and read the same.
pub fn actions(input: &[u8]) {
    let Ok(actions) = decode_actions(input) else { return };
    let mut w = Writer::new();
    put_actions(&mut w, &actions, None).expect("what was read is of the kernel");
    let Ok(written) = w.finish() else { return };
    let again = decode_actions(&written).expect("what was written is read");
    let mut w = Writer::new();
    put_actions(&mut w, &again, None).expect("what was read is of the kernel");
    assert_eq!(w.finish().expect("as long as before"), written);
}

/// A datapath, an upcall, a meter with a band, limits of zones.
pub const MESSAGE_SEEDS: &[&[u8]] = &[
    b"\x01\x02\0\0\0\0\0\0\x0c\0\x01\0ovs-sys\0\x08\0\x02\0\x07\0\0\0\x08\0\x05\0\x0b\0\0\0",
    b"\x01\x01\0\0\x09\0\0\0\x09\0\x01\0frame\0\0\0\x0c\0\x02\0\x08\0\x03\0\x01\0\0\0\x04\0\x03\0",
    b"\x02\x01\0\0\x09\0\0\0\x08\0\x01\0\x05\0\0\0\x04\0\x02\0\x14\0\x04\0\x10\0\0\0\x06\0\x02\0\x64\0\0\0\x04\0\x03\0",
    b"\x03\x01\0\0\x09\0\0\0\x10\0\x01\0\xff\xff\xff\xff\x0a\0\0\0\0\0\0\0",
];

/// Whatever it is, as a message of each family.
pub fn messages(input: &[u8]) {
    use ib_dp_kernel::message::{Datapath, FlowAnswer, Header, Meter, PacketUp, Vport, read_zone_limits};
    let Ok((_, bytes)) = Header::split(input) else { return };
    if let Ok(dp) = Datapath::read(bytes) {
        let written = key_bytes(|w| dp.write(w));
        let again = Datapath::read(&written).expect("what was written is read");
        assert_eq!((again.user_features, again.per_cpu_pids), (dp.user_features, dp.per_cpu_pids));
    }
    if let Ok(port) = Vport::read(bytes) {
        let written = key_bytes(|w| port.write(w));
        let again = Vport::read(&written).expect("what was written is read");
        assert_eq!((again.port_no, again.upcall_pids), (port.port_no, port.upcall_pids));
    }
    let _ = FlowAnswer::read(bytes);
    let _ = PacketUp::read(bytes);
    let _ = Meter::read(bytes);
    let _ = read_zone_limits(bytes);
}

/// A key word for word; a filter, a list of connections and one of datagrams, timeouts of a zone.
pub fn made_calls() -> Vec<Vec<u8>> {
    use ib_dp_kernel::wire::Wire;
    use ib_dpif::conntrack::{CtEntry, CtFilter, CtTcp, CtTimeouts, CtTuple};
    let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let orig = CtTuple { src, dst, proto: 6, sport: 1, dport: 2, id: 0 };
    let (tcp, helper, parent) = (Some(CtTcp::default()), Some("ftp"), Some(orig));
    let entry = CtEntry {
        orig,
        reply: orig,
        zone: 1,
        mark: 2,
        label: 3,
        timeout_s: 4,
        tcp,
        helper,
        parent,
        kernel: None,
    };
    let mut key = ib_flow::Flow::zeroed();
    (key.in_port, key.nw_proto) = (1, 6);
    vec![
        ib_dp_kernel::exact::to_bytes(&key),
        CtFilter { zone: Some(5), mark: Some((1, 2)), ..CtFilter::default() }.to_bytes(),
        vec![entry.clone(), entry].to_bytes(),
        (7u16, Some(CtTimeouts { udp_first: Some(1), ..CtTimeouts::default() })).to_bytes(),
    ]
}

/// What another process says in calls; what has been read is written as it came.
pub fn call(input: &[u8]) {
    use ib_dp_kernel::wire::Wire;
    use ib_dpif::conntrack::{CtEntry, CtExpectation, CtFilter, CtTimeouts, FragList, FragStatus};
    fn read<T: Wire>(input: &[u8]) {
        if let Some(value) = T::from_bytes(input) {
            assert_eq!(value.to_bytes(), input);
        }
    }
    read::<CtFilter>(input);
    read::<Vec<CtEntry>>(input);
    read::<Vec<CtExpectation>>(input);
    read::<Vec<FragList>>(input);
    read::<FragStatus>(input);
    read::<(u16, Option<CtTimeouts>)>(input);
    read::<Vec<String>>(input);
    read::<ib_dpif::PortDevice>(input);
    if let Ok(Some(key)) = ib_dp_kernel::exact::from_bytes(input) {
        assert_eq!(ib_dp_kernel::exact::from_bytes(&ib_dp_kernel::exact::to_bytes(&key)), Ok(Some(key)));
    }
}
