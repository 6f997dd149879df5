//! Templates: which information elements a flow record has, in which order.
//!
//! A record's [`Shape`] (frame, network and transport protocol, tunnel, direction) says its template. All templates of an
//! exporter are sent together; there are too many for one datagram. Numbers are Open vSwitch's, which leave room for shapes that do not occur.

/// Set id of templates.
const SET_TEMPLATE: u16 = 2;
/// Set id of option templates.
const SET_OPTIONS: u16 = 3;
/// First template of records.
const FIRST: u16 = 256;
/// Template of an exporter's own counters.
pub(super) const EXPORTER: u16 = 462;
/// A length that each record states for itself.
const VARIABLE: u16 = u16::MAX;
/// VMware's enterprise number.
const VMWARE: u32 = 6876;
/// A datagram takes another template while it is shorter than this.
const FULL: usize = 1024;

/// Network protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum L3 {
    Other,
    V4,
    V6,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum L4 {
    Other,
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub vlan: bool,
    pub l3: L3,
    pub l4: L4,
    pub tunnel: bool,
    pub egress: bool,
}

impl Shape {
    /// Number of its template.
    pub fn template(self) -> u16 {
        let place = (u16::from(self.vlan) * 3 + self.l3 as u16) * 5 + self.l4 as u16;
        FIRST + place * 4 + u16::from(self.tunnel) * 2 + u16::from(self.egress)
    }

    fn all() -> Vec<Shape> {
        let mut all = Vec::new();
        for vlan in [false, true] {
            for l3 in [L3::Other, L3::V4, L3::V6] {
                for l4 in [L4::Other, L4::Tcp, L4::Udp, L4::Sctp, L4::Icmp] {
                    if l3 == L3::Other && l4 != L4::Other {
                        continue;
                    }
                    for (tunnel, egress) in [(false, false), (false, true), (true, false), (true, true)] {
                        all.push(Shape { vlan, l3, l4, tunnel, egress });
                    }
                }
            }
        }
        all
    }

    /// Elements: enterprise (0: IANA's), number, length.
    fn fields(self, virtual_obs: bool) -> Vec<(u32, u16, u16)> {
        let iana = |list: &[(u16, u16)]| list.iter().map(|(id, len)| (0, *id, *len)).collect::<Vec<_>>();
        let vmware =
            |list: &[(u16, u16)]| list.iter().map(|(id, len)| (VMWARE, *id, *len)).collect::<Vec<_>>();
        let mut f = iana(&[(138, 4), (61, 1), (56, 6), (80, 6), (256, 2), (240, 1)]);
        f.extend(iana(&[(10, 4), (368, 4), (82, VARIABLE), (83, VARIABLE)]));
        if self.egress {
            f.extend(iana(&[(14, 4), (369, 4), (82, VARIABLE), (83, VARIABLE)]));
        }
        if self.vlan {
            f.extend(iana(&[(58, 2), (243, 2), (244, 1)]));
        }
        if self.l3 != L3::Other {
            f.extend(iana(&[(60, 1), (192, 1), (4, 1), (195, 1), (196, 1), (5, 1)]));
        }
        match self.l3 {
            L3::V4 => f.extend(iana(&[(8, 4), (12, 4)])),
            L3::V6 => f.extend(iana(&[(27, 16), (28, 16), (31, 4)])),
            L3::Other => {}
        }
        match (self.l4, self.l3) {
            (L4::Tcp | L4::Udp | L4::Sctp, _) => f.extend(iana(&[(7, 2), (11, 2)])),
            (L4::Icmp, L3::V6) => f.extend(iana(&[(178, 1), (179, 1)])),
            (L4::Icmp, _) => f.extend(iana(&[(176, 1), (177, 1)])),
            (L4::Other, _) => {}
        }
        if self.tunnel {
            f.extend(vmware(&[(893, 4), (894, 4), (895, 1), (896, 2), (897, 2), (891, 1), (892, VARIABLE)]));
        }
        if virtual_obs {
            f.extend(vmware(&[(898, VARIABLE)]));
        }
        f.extend(iana(&[(158, 4), (159, 4)]));
        f.extend(iana(&[133, 135, 2, 86, 354, 355, 356, 357, 358, 19, 174, 352, 353].map(|id| (id, 8))));
        f.extend(iana(&[(136, 1)]));
        if self.l3 != L3::Other {
            f.extend(iana(&[132, 134, 1, 85, 198, 199, 25, 26, 20, 175].map(|id| (id, 8))));
        }
        if self.l4 == L4::Tcp {
            f.extend(iana(&[222, 219, 221, 220, 218, 223].map(|id| (id, 8))));
        }
        f
    }
}

/// Appends a set around `body`.
pub(super) fn put_set(to: &mut Vec<u8>, id: u16, body: &[u8]) {
    to.extend(id.to_be_bytes());
    to.extend(crate::len16(body.len() + 4).to_be_bytes());
    to.extend(body);
}

/// All templates, a set per datagram.
pub(super) fn sets(virtual_obs: bool, header_len: usize) -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = vec![Vec::new()];
    for shape in Shape::all() {
        if bodies.last().is_some_and(|b| header_len + 4 + b.len() >= FULL) {
            bodies.push(Vec::new());
        }
        let Some(body) = bodies.last_mut() else { continue };
        let fields = shape.fields(virtual_obs);
        body.extend(shape.template().to_be_bytes());
        body.extend(crate::len16(fields.len()).to_be_bytes());
        for (enterprise, id, len) in fields {
            body.extend((id | if enterprise == 0 { 0 } else { 0x8000 }).to_be_bytes());
            body.extend(len.to_be_bytes());
            if enterprise != 0 {
                body.extend(enterprise.to_be_bytes());
            }
        }
    }
    let set = |body: &Vec<u8>| {
        let mut out = Vec::new();
        put_set(&mut out, SET_TEMPLATE, body);
        out
    };
    bodies.iter().map(set).collect()
}

/// The template of the exporter's counters: its id (the scope), and packets that were not sent.
pub(super) fn exporter_set() -> Vec<u8> {
    let mut out = Vec::new();
    let body: Vec<u8> = [EXPORTER, 2, 1, 144, 4, 167, 8].iter().flat_map(|w: &u16| w.to_be_bytes()).collect();
    put_set(&mut out, SET_OPTIONS, &body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes() {
        let shape = |vlan, l3, l4, tunnel, egress| Shape { vlan, l3, l4, tunnel, egress }.template();
        assert_eq!(shape(false, L3::Other, L4::Other, false, false), 256);
        assert_eq!(shape(false, L3::V4, L4::Tcp, false, true), 281);
        assert_eq!(shape(true, L3::V6, L4::Icmp, true, true), 375);
        let sizes: Vec<usize> = sets(false, 16).iter().map(|s| s.len() + 16).collect();
        let want = [
            1208, 1264, 1104, 1120, 1148, 1284, 1124, 1140, 1156, 1156, 1036, 1180, 1220, 1220, 1076, 1184,
            1200, 556,
        ];
        assert_eq!(sizes, want);
        let sizes: Vec<usize> = sets(true, 16).iter().map(|s| s.len() + 16).collect();
        let want = [
            1264, 1304, 1144, 1160, 1188, 1028, 1260, 1164, 1036, 1076, 1060, 1300, 1204, 1212, 1044, 1060,
            1280, 1296,
        ];
        assert_eq!(sizes, want);
    }

    #[test]
    fn the_first_template_literally() {
        let first = &sets(false, 16)[0][..4 + 4 + 26 * 4];
        let want: Vec<u8> = [
            2u16, 0x4a8, 0x100, 0x1a, 138, 4, 61, 1, 56, 6, 80, 6, 256, 2, 240, 1, 10, 4, 368, 4, 82, 0xffff,
            83, 0xffff, 158, 4, 159, 4, 133, 8, 135, 8, 2, 8, 86, 8, 354, 8, 355, 8, 356, 8, 357, 8, 358, 8,
            19, 8, 174, 8, 352, 8, 353, 8, 136, 1,
        ]
        .iter()
        .flat_map(|w| w.to_be_bytes())
        .collect();
        assert_eq!(first, want);
        assert_eq!(exporter_set().len(), 18);
    }
}
