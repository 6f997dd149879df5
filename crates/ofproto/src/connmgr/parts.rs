//! Multipart requests that come in several messages (OpenFlow 1.3 and later).
//!
//! Parts of one request share a transaction id; all but the last say that more follows. Only features of tables have
//! bodies in several parts, and each of these is looked at as it comes. What collects here is a part at most:
//! parts with empty bodies add nothing, and a second part with a body ends in an error. A request that does not end
//! within a second is an error too.

use std::collections::BTreeMap;

use ib_base::time::Instant;
use ib_openflow::error::OfError;
use ib_openflow::message::Version;
use ib_openflow::raw::{Class, Identified};

/// How long parts wait for the rest, ms.
const TIMEOUT_MS: u64 = 1000;
/// Requests of which parts may wait.
const MAX_OPEN: usize = 64;
/// OFPMPF_REQ_MORE.
const MORE: u16 = 1;
/// OFPMP_TABLE_FEATURES, the one request that may have a long body.
const TABLE_FEATURES: u32 = 12;

struct Partial {
    class: Class,
    number: u32,
    /// The first message that came.
    opening: Vec<u8>,
    /// The first one with a body.
    body: Option<Vec<u8>>,
    due: Instant,
}

/// Requests that are not complete, of one connection.
#[derive(Default)]
pub(crate) struct Parts {
    open: BTreeMap<u32, Partial>,
}

/// What to do about a message.
pub(crate) enum Whole {
    /// It stands for the whole request.
    Message,
    /// This earlier part does.
    Earlier(Vec<u8>),
    /// More is to come.
    NotYet,
}

impl Parts {
    /// Takes in a message. An error quotes that message, or the one returned.
    pub fn take(
        &mut self,
        id: &Identified<'_>,
        xid: u32,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Whole, (OfError, Option<Vec<u8>>)> {
        let request = matches!(id.kind.class, Class::Request | Class::VendorRequest(_));
        if !request || id.version < Version::V13 {
            return Ok(Whole::Message);
        }
        let more = id.flags & MORE != 0;
        let features = id.kind.class == Class::Request && id.kind.number == TABLE_FEATURES;
        let body = (!id.body.is_empty() && !features).then(|| bytes.to_vec());
        let waits = if features && !id.body.is_empty() { Whole::Message } else { Whole::NotYet };
        let Some(mut partial) = self.open.remove(&xid) else {
            if !more {
                return Ok(Whole::Message);
            }
            if self.open.len() >= MAX_OPEN {
                return Err((OfError::OFPBRC_MULTIPART_BUFFER_OVERFLOW, None));
            }
            let (class, number) = (id.kind.class, id.kind.number);
            let due = now.plus_ms(TIMEOUT_MS);
            self.open.insert(xid, Partial { class, number, opening: bytes.to_vec(), body, due });
            return Ok(waits);
        };
        if (partial.class, partial.number) != (id.kind.class, id.kind.number) {
            return Err((OfError::OFPBRC_BAD_STAT, None));
        }
        match (&partial.body, body) {
            (Some(first), Some(_)) if !more => {
                return Err((OfError::OFPBRC_BAD_STAT, Some(first.clone())));
            }
            (None, Some(new)) => partial.body = Some(new),
            _ => {}
        }
        if more {
            partial.due = now.plus_ms(TIMEOUT_MS);
            self.open.insert(xid, partial);
            return Ok(waits);
        }
        Ok(partial.body.map_or(Whole::Message, Whole::Earlier))
    }

    /// First messages of requests whose rest did not come.
    pub fn expired(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let late: Vec<u32> = self.open.iter().filter(|(_, p)| p.due <= now).map(|(x, _)| *x).collect();
        late.iter().filter_map(|x| self.open.remove(x)).map(|p| p.opening).collect()
    }
    /// When to call [`Self::expired`].
    pub fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|p| p.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_openflow::raw::identify;

    fn request(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
        let len = u8::try_from(16 + body.len()).unwrap();
        [&[5, 18, 0, len, 0, 0, 0, 7, 0, kind, 0, flags, 0, 0, 0, 0], body].concat()
    }

    fn take(p: &mut Parts, bytes: &[u8]) -> &'static str {
        match p.take(&identify(bytes).unwrap(), 7, bytes, Instant::from_ms(5)) {
            Ok(Whole::Message) => "message",
            Ok(Whole::Earlier(_)) => "earlier",
            Ok(Whole::NotYet) => "not yet",
            Err((e, None)) => e.name(),
            Err((_, Some(_))) => "first refused",
        }
    }

    #[test]
    fn parts_make_a_request() {
        let port = [0, 0, 0, 1, 0, 0, 0, 0];
        let mut p = Parts::default();
        assert_eq!(take(&mut p, &request(0, 0, &[])), "message");
        assert_eq!(take(&mut p, &request(0, 1, &[])), "not yet");
        assert_eq!(take(&mut p, &request(0, 0, &[])), "message");
        assert_eq!(take(&mut p, &request(12, 1, &[])), "not yet");
        assert_eq!(take(&mut p, &request(0, 0, &[])), "OFPBRC_BAD_STAT");
        assert_eq!(take(&mut p, &request(4, 1, &port)), "not yet");
        assert_eq!(take(&mut p, &request(4, 0, &port)), "first refused");
        assert_eq!(p.deadline(), None);
        let features = [0; 64];
        assert_eq!(take(&mut p, &request(12, 1, &features)), "message");
        assert_eq!(take(&mut p, &request(12, 0, &features)), "message");
        assert_eq!(p.deadline(), None);
    }

    #[test]
    fn parts_do_not_wait_for_ever() {
        let mut p = Parts::default();
        let first = request(12, 1, &[]);
        assert_eq!(take(&mut p, &first), "not yet");
        assert!(p.expired(Instant::from_ms(1004)).is_empty());
        assert_eq!(p.expired(Instant::from_ms(1005)), [first]);
        assert_eq!(p.deadline(), None);
    }
}
