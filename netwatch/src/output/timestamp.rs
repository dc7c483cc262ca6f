//! Timestamps of events: RFC 3339 in UTC, with nine digits of a second.

use std::fmt::Write as _;

use jiff::Timestamp;

/// The second of the last timestamp as text, for the next one: most are in the same.
#[derive(Default)]
pub(super) struct Second {
    since_epoch: Option<i64>,
    /// `2026-11-25T23:10:19.`
    text: String,
}

impl Second {
    pub(super) fn write(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        const FRACTION: usize = "123456789Z".len();
        // Before 1970 the fraction counts down.
        let fraction = u32::try_from(time.subsec_nanosecond()).ok().filter(|_| time.as_second() >= 0);
        let same = self.since_epoch == Some(time.as_second());
        if !same || fraction.is_none() {
            self.text.clear();
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{time:.9}");
            out.extend_from_slice(self.text.as_bytes());
            self.text.truncate(self.text.len().saturating_sub(FRACTION));
            self.since_epoch = fraction.map(|_| time.as_second());
            return;
        }
        out.extend_from_slice(self.text.as_bytes());
        let mut digits = *b"000000000";
        let mut rest = fraction.unwrap_or(0);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nine_digits_whatever_was_spelled_before() {
        let mut second = Second::default();
        for nanoseconds in [
            1_764_112_219_428_632_001,
            1_764_112_219_000_000_000,
            1_764_112_219_999_999_999,
            1_764_112_220_000_000_007,
            -1,
            0,
            1,
            -1_500_000_000,
            i128::from(i64::MAX),
        ] {
            let time = Timestamp::from_nanosecond(nanoseconds).unwrap();
            let mut out = Vec::new();
            second.write(time, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{time:.9}"));
        }
    }
}
