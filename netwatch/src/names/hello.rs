//! Finds the name of the server in a TLS ClientHello.

use tls_parser::{
    SNIType, TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_client_hello_extensions,
    parse_tls_message_handshake, parse_tls_record_header,
};

use super::spelled;

/// The name in the extension `server_name` (RFC 6066, section 3). What was not copied of a long ClientHello counts as
/// zeros, so that an extension before that is found.
pub(super) fn server_name(bytes: &[u8]) -> Option<String> {
    let (rest, record) = parse_tls_record_header(bytes).ok()?;
    let mut message = rest.to_vec();
    message.resize(record.len.into(), 0);
    let (_, message) = parse_tls_message_handshake(&message).ok()?;
    let TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)) = message else { return None };
    let (_, extensions) = parse_tls_client_hello_extensions(hello.ext?).ok()?;
    let names = extensions.into_iter().find_map(|extension| match extension {
        TlsExtension::SNI(names) if !names.is_empty() => Some(names),
        _ => None,
    });
    let (_, name) = names?.into_iter().find(|(kind, _)| *kind == SNIType::HostName)?;
    let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let name = name.strip_suffix(b".").unwrap_or(name);
    spelled(name.split(|byte| *byte == b'.')).filter(|_| name.iter().all(is_valid))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello as clients write it: `padding` bytes of another extension come before or after the name.
    fn hello(name: &[u8], before: usize, after: usize) -> Vec<u8> {
        let counted = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let extension = |kind: u16, bytes: &[u8]| [&kind.to_be_bytes()[..], &counted(bytes)].concat();
        let names = counted(&[&[0][..], &counted(name)].concat());
        let extensions =
            [extension(21, &vec![0; before]), extension(0, &names), extension(21, &vec![0; after])];
        let body =
            [&[3, 3][..], &[7; 32], &[0], &counted(&[0x13, 0x01]), &[1, 0], &counted(&extensions.concat())]
                .concat();
        let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
        [&[22, 3, 1][..], &counted(&message)].concat()
    }

    #[test]
    fn name_of_the_server_is_found() {
        assert_eq!(server_name(&hello(b"Www.Example.org", 0, 0)).as_deref(), Some("www.example.org"));
        assert_eq!(server_name(&hello(b"www.example.org.", 8, 8)).as_deref(), Some("www.example.org"));
        // The rest was not copied.
        let long = hello(b"www.example.org", 300, 3000);
        assert_eq!(server_name(&long[..1000]).as_deref(), Some("www.example.org"));
    }

    #[test]
    fn what_is_no_name_is_none() {
        for bad in [&b""[..], b"a\x1b[2J", b"a..b", b".", b"a\0", &[b'a'; 300]] {
            assert_eq!(server_name(&hello(bad, 0, 0)), None, "{bad:?}");
        }
        // The name itself was cut.
        let cut = hello(b"www.example.org", 300, 0);
        assert_eq!(server_name(&cut[..cut.len() - 8]), None);
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(server_name(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_name_or_none(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = server_name(&bytes);
        }

        #[test]
        fn any_change_of_a_hello_is_a_name_or_none(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = hello(b"www.example.org", 20, 20);
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            let _ = server_name(&bytes[..cut.index(bytes.len()) + 1]);
        }
    }
}
