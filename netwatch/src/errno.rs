//! Names of error numbers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use nix::errno::Errno;

/// The greatest errno: `MAX_ERRNO` in include/linux/err.h.
const MOST: i32 = 4095;

/// The name, like `ECONNREFUSED`, or the number if it has none.
#[must_use]
pub fn name(number: i32) -> Cow<'static, str> {
    match Errno::from_raw(number) {
        Errno::UnknownErrno => number.to_string().into(),
        known => format!("{known:?}").into(),
    }
}

/// The number of a name; `None` if the text is neither a name nor a number.
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    static NUMBERS: OnceLock<HashMap<String, i32>> = OnceLock::new();
    let numbers = NUMBERS.get_or_init(|| {
        let known = (1..=MOST).filter(|number| Errno::from_raw(*number) != Errno::UnknownErrno);
        known.map(|number| (self::name(number).into_owned(), number)).collect()
    });
    name.parse().ok().or_else(|| numbers.get(name).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for errno in 0..=256 {
            assert_eq!(number(&name(errno)), Some(errno));
        }
        assert_eq!((name(libc::ECONNREFUSED), number("EWHATEVER")), ("ECONNREFUSED".into(), None));
    }
}
