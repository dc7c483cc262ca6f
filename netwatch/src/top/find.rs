//! What is typed after `/`: an expression of `--filter`.

use crate::escape;
use crate::filter::{Expression, Lookup};

/// Reads a filter. A user is given by id: a question to the name service would hold up the screen.
///
/// # Errors
/// A sentence about the first word that has no meaning.
pub fn parse(text: &str) -> Result<Expression, String> {
    let user = |name: &str| name.parse().map_err(|_| "a user is given by id here".to_owned());
    let own_netns = || Err("a network namespace is given by number here".to_owned());
    Expression::parse(text, Lookup { user: &user, own_netns: &own_netns })
}

/// A word for a shell, in quotes if it needs them.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,%@+=".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    escape::quoted(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("process:curl"), "process:curl");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, part) in
            [("port:70000", "port:70000"), ("user:root", "by id"), ("netns:self", "by number")]
        {
            let error = parse(text).err().unwrap();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
