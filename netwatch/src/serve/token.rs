//! The token that whoever asks must have: loopback alone is no protection against other users of the host.

use std::fmt::Write as _;
use std::io;

/// Bytes of a token.
const LENGTH: usize = 32;

/// A token, in hexadecimal digits.
#[derive(Clone)]
pub struct Token {
    text: String,
    hash: blake3::Hash,
}

/// Without the token.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// If the kernel has no random numbers yet.
    pub fn new() -> io::Result<Self> {
        let mut bytes = [0; LENGTH];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        let text = bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok(Self::of(text))
    }

    /// The one in a text, which people may have written.
    ///
    /// # Errors
    /// If it is too short to be safe.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if text.len() < LENGTH || !is_plain {
            return Err(format!("a token has at least {LENGTH} characters: letters, digits, `-` and `_`"));
        }
        Ok(Self::of(text.to_owned()))
    }

    fn of(text: String) -> Self {
        Self { hash: blake3::hash(text.as_bytes()), text }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a text is this token. Takes the same time wherever they differ: hashes of this kind are compared so.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        blake3::hash(text.as_bytes()) == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_differ() {
        let [one, other] = [Token::new().unwrap(), Token::new().unwrap()];
        assert_eq!(one.text().len(), 64);
        assert!(one.is(one.text()) && !one.is(other.text()) && !one.is(""));
        assert!(!format!("{one:?}").contains(one.text()));
        assert!(Token::parse(one.text()).unwrap().is(one.text()));
        for bad in ["", "short", &"a b".repeat(20), &"é".repeat(40)] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
    }
}
