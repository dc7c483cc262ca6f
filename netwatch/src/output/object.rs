//! Objects of JSON, written key by key. A line of the log has forty keys, and serde_json looks at each letter of each:
//! that was a good part of what a line took.

use std::io;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::SockAddr;

/// An object in the making. Keys and words are those of the contract: nothing in them has to be escaped.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    begun: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        Self { out, begun: false }
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(if self.begun { b"}" } else { b"{}" });
    }

    fn key(&mut self, key: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.begun { b",\"" } else { b"{\"" });
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.begun = true;
        self.out
    }

    pub(super) fn null(&mut self, key: &'static str) {
        self.key(key).extend_from_slice(b"null");
    }

    pub(super) fn word(&mut self, key: &'static str, word: &'static str) {
        self.string(key, |out| out.extend_from_slice(word.as_bytes()));
    }

    /// What `inside` writes needs no escapes.
    pub(super) fn string(&mut self, key: &'static str, inside: impl FnOnce(&mut Vec<u8>)) {
        let out = self.key(key);
        out.push(b'"');
        inside(out);
        out.push(b'"');
    }

    pub(super) fn number(&mut self, key: &'static str, number: impl Into<u64>) {
        decimal(number.into(), self.key(key));
    }

    /// A number, or `null`.
    pub(super) fn option(&mut self, key: &'static str, number: Option<u64>) {
        match number {
            Some(number) => self.number(key, number),
            None => self.null(key),
        }
    }

    pub(super) fn endpoint(&mut self, key: &'static str, endpoint: Option<SockAddr>) -> io::Result<()> {
        let Some(endpoint) = endpoint else {
            self.null(key);
            return Ok(());
        };
        let mut object = self.object(key);
        object.value("ip", &endpoint.ip)?;
        object.number("port", endpoint.port);
        object.end();
        Ok(())
    }

    /// An object within, to be ended before this one goes on.
    pub(super) fn object(&mut self, key: &'static str) -> Object<'_> {
        Object::begin(self.key(key))
    }

    /// What was spelled before.
    pub(super) fn raw(&mut self, key: &'static str, value: &RawValue) {
        self.key(key).extend_from_slice(value.get().as_bytes());
    }

    /// Anything else.
    pub(super) fn value(&mut self, key: &'static str, value: &impl Serialize) -> io::Result<()> {
        Ok(serde_json::to_writer(self.key(key), value)?)
    }
}

fn decimal(mut number: u64, out: &mut Vec<u8>) {
    // As many as the greatest has.
    let mut digits = [0; 20];
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_serde_json_makes_of_it() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        for number in [0_u64, 9, 10, 4_026_531_840, u64::MAX] {
            object.number("n", number);
        }
        let endpoint = SockAddr { ip: "::1".parse().unwrap(), port: 80 };
        object.endpoint("e", Some(endpoint)).unwrap();
        object.option("o", None);
        object.object("empty").end();
        object.end();
        let expected = r#"{"n":0,"n":9,"n":10,"n":4026531840,"n":18446744073709551615,"#;
        let expected = expected.to_owned() + r#""e":{"ip":"::1","port":80},"o":null,"empty":{}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
