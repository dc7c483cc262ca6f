//! The call and its answer: RPC of RFC 5531 section 9, in XDR of RFC 4506, where everything is a multiple of four
//! bytes, big-endian. Total: any bytes give mappings or an error.

use super::{Mapping, PortmapError};
use crate::audit::facts::PORTMAPPER;
use crate::model::Proto;

/// Of a fragment's mark, RFC 5531 section 11.
pub(super) const LAST_FRAGMENT: u32 = 1 << 31;

/// More registrations than ports that rpcbind can be asked for make no sense; a host with NFS has some sixty.
const MOST_MAPPINGS: usize = 4096;

/// `opaque_auth.body<400>`, RFC 5531 section 8.2.
const MOST_AUTH: usize = 400;

/// `msg_type`.
const CALL: u32 = 0;
const REPLY: u32 = 1;

/// `reply_stat`.
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;

/// Asks for the list: PMAPPROC_DUMP of PMAP_VERS of PMAP_PROG (RFC 1833 section 3.1), in version 2 of RPC, with
/// credentials and verifier of AUTH_NONE, which are a flavor and a length of 0.
pub(super) fn call(xid: u32) -> Vec<u8> {
    let words = [xid, CALL, 2, PORTMAPPER, 2, 4, 0, 0, 0, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Whether a message is a reply to the call of that name, whatever it says.
pub(super) fn answers(message: &[u8], xid: u32) -> bool {
    let mut words = Xdr(message);
    words.word() == Some(xid) && words.word() == Some(REPLY)
}

/// What a reply lists. Entries that are of neither TCP nor UDP, or whose port is none, are left out: who registers can
/// put there what they like, and it must not hide the others.
pub(super) fn mappings(message: &[u8], xid: u32) -> Result<Vec<Mapping>, PortmapError> {
    let mut words = Xdr(message);
    const SHORT: PortmapError = PortmapError::Nonsense("it is too short");
    if words.word().ok_or(SHORT)? != xid {
        return Err(PortmapError::Nonsense("it answers another call"));
    }
    if words.word().ok_or(SHORT)? != REPLY {
        return Err(PortmapError::Nonsense("it is no reply"));
    }
    match words.word().ok_or(SHORT)? {
        MSG_ACCEPTED => {}
        MSG_DENIED => {
            // reject_stat
            return Err(match words.word().ok_or(SHORT)? {
                0 => PortmapError::Refused("it does not speak this version of RPC"),
                1 => PortmapError::Refused("it wants to know who asks"),
                _ => PortmapError::Nonsense("it refuses for no known reason"),
            });
        }
        _ => return Err(PortmapError::Nonsense("it neither accepts nor refuses")),
    }
    // The verifier: a flavor, and what it does not matter to check here.
    words.word().ok_or(SHORT)?;
    words.skip_opaque(MOST_AUTH).ok_or(PortmapError::Nonsense("its verifier is too long"))?;
    // accept_stat
    match words.word().ok_or(SHORT)? {
        0 => {}
        1 => return Err(PortmapError::Refused("it has no portmapper program")),
        2 => return Err(PortmapError::Refused("it does not speak version 2 of the portmapper")),
        3 => return Err(PortmapError::Refused("it does not list what it knows")),
        4 => return Err(PortmapError::Refused("it does not understand the call")),
        5 => return Err(PortmapError::Refused("it failed")),
        _ => return Err(PortmapError::Nonsense("it neither succeeded nor failed")),
    }
    list(&mut words).ok_or(SHORT)?
}

/// `pmaplist`, RFC 1833 section 3.1: before each entry a word that says whether there is one. `None` where it ends in
/// the middle.
fn list(words: &mut Xdr<'_>) -> Option<Result<Vec<Mapping>, PortmapError>> {
    let mut mappings = Vec::new();
    for _ in 0..=MOST_MAPPINGS {
        match words.word()? {
            0 if words.0.is_empty() => return Some(Ok(mappings)),
            0 => return Some(Err(PortmapError::Nonsense("something is behind its end"))),
            1 => {}
            _ => return Some(Err(PortmapError::Nonsense("its list is none"))),
        }
        let (program, version, proto, port) = (words.word()?, words.word()?, words.word()?, words.word()?);
        // IPPROTO_TCP and IPPROTO_UDP, as section 3.1 has them.
        let proto = match proto {
            6 => Proto::Tcp,
            17 => Proto::Udp,
            _ => continue,
        };
        if let Ok(port) = u16::try_from(port) {
            mappings.push(Mapping { program, version, proto, port });
        }
    }
    Some(Err(PortmapError::Nonsense("it lists more than 4096 ports")))
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
