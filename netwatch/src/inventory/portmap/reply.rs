//! The call and its reply: RPC (RFC 5531, section 9) in XDR (RFC 4506), which consists of big-endian words of four
//! bytes. Total: any bytes give mappings or an error.

use super::{Mapping, PortmapError};
use crate::audit::facts::PORTMAPPER;
use crate::limits;
use crate::model::Proto;

/// Flag in the header of a fragment (RFC 5531, section 11).
pub(super) const LAST_FRAGMENT: u32 = 1 << 31;

/// `opaque_auth.body<400>`, RFC 5531 section 8.2.
const MOST_AUTH: usize = 400;

/// `msg_type`.
const CALL: u32 = 0;
const REPLY: u32 = 1;

/// `reply_stat`.
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;

/// The call PMAPPROC_DUMP of PMAP_PROG, PMAP_VERS (RFC 1833, section 3.1), in version 2 of RPC, with credentials and
/// verifier of AUTH_NONE.
pub(super) fn call(xid: u32) -> Vec<u8> {
    let words = [xid, CALL, 2, PORTMAPPER, 2, 4, 0, 0, 0, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Whether a message is a reply to the call with this id.
pub(super) fn answers(message: &[u8], xid: u32) -> bool {
    let mut words = Xdr(message);
    words.word() == Some(xid) && words.word() == Some(REPLY)
}

/// The mappings of a reply. Entries that are neither TCP nor UDP, or have an invalid port, are skipped: any process may
/// register anything, which must not hide the other entries.
pub(super) fn mappings(message: &[u8], xid: u32) -> Result<Vec<Mapping>, PortmapError> {
    let mut words = Xdr(message);
    const SHORT: PortmapError = PortmapError::Nonsense("too short");
    if words.word().ok_or(SHORT)? != xid {
        return Err(PortmapError::Nonsense("reply to another call"));
    }
    if words.word().ok_or(SHORT)? != REPLY {
        return Err(PortmapError::Nonsense("not a reply"));
    }
    match words.word().ok_or(SHORT)? {
        MSG_ACCEPTED => {}
        MSG_DENIED => {
            // reject_stat
            return Err(match words.word().ok_or(SHORT)? {
                0 => PortmapError::Refused("RPC version 2 is not supported"),
                1 => PortmapError::Refused("authentication required"),
                _ => PortmapError::Nonsense("unknown reject_stat"),
            });
        }
        _ => return Err(PortmapError::Nonsense("unknown reply_stat")),
    }
    // The verifier: a flavor, and a body that is not checked.
    words.word().ok_or(SHORT)?;
    words.skip_opaque(MOST_AUTH).ok_or(PortmapError::Nonsense("verifier too long"))?;
    // accept_stat
    match words.word().ok_or(SHORT)? {
        0 => {}
        1 => return Err(PortmapError::Refused("no portmapper program")),
        2 => return Err(PortmapError::Refused("version 2 of the portmapper protocol is not supported")),
        3 => return Err(PortmapError::Refused("listing is not supported")),
        4 => return Err(PortmapError::Refused("cannot decode the call")),
        5 => return Err(PortmapError::Refused("system error")),
        _ => return Err(PortmapError::Nonsense("unknown accept_stat")),
    }
    list(&mut words).ok_or(SHORT)?
}

/// `pmaplist` (RFC 1833, section 3.1): before each entry a word says whether there is one. `None` if it is truncated.
fn list(words: &mut Xdr<'_>) -> Option<Result<Vec<Mapping>, PortmapError>> {
    let mut mappings = Vec::new();
    for _ in 0..=limits::PORTMAP_ENTRIES {
        match words.word()? {
            0 if words.0.is_empty() => return Some(Ok(mappings)),
            0 => return Some(Err(PortmapError::Nonsense("trailing bytes"))),
            1 => {}
            _ => return Some(Err(PortmapError::Nonsense("malformed list"))),
        }
        let (program, version, proto, port) = (words.word()?, words.word()?, words.word()?, words.word()?);
        // IPPROTO_TCP and IPPROTO_UDP.
        let proto = match proto {
            6 => Proto::Tcp,
            17 => Proto::Udp,
            _ => continue,
        };
        if let Ok(port) = u16::try_from(port) {
            mappings.push(Mapping { program, version, proto, port });
        }
    }
    Some(Err(PortmapError::Nonsense("more than 4096 entries")))
}

/// What is left to read.
struct Xdr<'a>(&'a [u8]);

impl Xdr<'_> {
    fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*word))
    }

    /// A length, so many bytes, and zeros up to a multiple of four.
    fn skip_opaque(&mut self, most: usize) -> Option<()> {
        let length = usize::try_from(self.word()?).ok().filter(|length| *length <= most)?;
        self.0 = self.0.get(length.next_multiple_of(4)..)?;
        Some(())
    }
}
