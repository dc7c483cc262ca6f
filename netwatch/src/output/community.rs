//! The Community ID of a connection: a hash of its addresses, ports and protocol, by which other tools name the same
//! connection. The same from both ends.

use community_id::calculate_community_id;

use crate::model::{Proto, Socket};

/// `IPPROTO_TCP` and `IPPROTO_UDP` of `include/uapi/linux/in.h`.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// `None` for a listener.
pub(super) fn id(socket: &Socket) -> Option<String> {
    let remote = socket.remote?;
    let protocol = match socket.proto {
        Proto::Tcp => TCP,
        Proto::Udp => UDP,
        // That of ICMP is made of types and codes of messages; others have none.
        _ => return None,
    };
    // The seed that everybody uses unless told otherwise.
    const SEED: u16 = 0;
    calculate_community_id(
        SEED,
        socket.local.ip,
        remote.ip,
        Some(socket.local.port),
        Some(remote.port),
        protocol,
        Default::default(),
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{at, example};

    /// The vectors of the specification (community-id-spec, baseline/baseline_deflt.json).
    #[test]
    fn ids_of_the_specification() {
        for (proto, local, remote, id_of) in [
            (Proto::Tcp, "128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (Proto::Tcp, "66.35.250.204:80", "128.232.110.120:34855", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ] {
            let socket = Socket { proto, local: at(local), remote: Some(at(remote)), ..example().socket };
            assert_eq!(id(&socket).as_deref(), Some(id_of), "{local} {remote}");
        }
        assert_eq!(id(&Socket { remote: None, ..example().socket }), None);
    }
}
