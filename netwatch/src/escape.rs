//! Escapes text from outside netwatch: names, arguments and paths may have terminal escapes, newlines, or bytes that
//! are not UTF-8.

use std::fmt::Write as _;

/// Converts bytes to a string for JSON: bytes that are not UTF-8 become `\xNN`. Control characters are kept, since JSON
/// escapes them.
#[must_use]
pub fn utf8(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    push_utf8(bytes, &mut out);
    out
}

/// As [`utf8`], to the end of a string.
pub fn push_utf8(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// Escapes a string for a terminal: control characters (C0, DEL, C1) and bidirectional formatting characters become
/// `\xNN` for each byte.
#[must_use]
pub fn terminal(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.chars().any(hostile) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hostile(c) {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                let _ = write!(out, "\\x{byte:02x}");
            }
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// A path for a terminal: bytes that are not UTF-8 are escaped as well.
#[must_use]
pub fn path(path: &std::path::Path) -> String {
    terminal(&utf8(path.as_os_str().as_encoded_bytes())).into_owned()
}

/// Control characters, line separators, and bidirectional overrides and isolates.
fn hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One word of a shell, in quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_bytes_are_spelled_out() {
        assert_eq!(utf8(b"a\xff\xfeb"), "a\\xff\\xfeb");
        assert_eq!(utf8("grün".as_bytes()), "grün");
        assert_eq!(utf8(b"\xf0\x9f"), "\\xf0\\x9f");
    }

    #[test]
    fn paths_get_no_controls_and_keep_their_bytes() {
        use std::os::unix::ffi::OsStrExt as _;
        let path_of = |bytes: &[u8]| path(std::path::Path::new(std::ffi::OsStr::from_bytes(bytes)));
        assert_eq!(path_of(b"/a/\x1b[2J\n\xff.db"), "/a/\\x1b[2J\\x0a\\xff.db");
        assert_eq!(path_of(b"/a/b"), "/a/b");
    }

    #[test]
    fn terminals_get_no_controls() {
        assert_eq!(terminal("ls"), "ls");
        assert_eq!(terminal("\x1b[2Jx\n"), "\\x1b[2Jx\\x0a");
        assert_eq!(terminal("\u{9b}2J"), "\\xc2\\x9b2J");
        assert_eq!(terminal("a\u{202e}b"), "a\\xe2\\x80\\xaeb");
    }
}
