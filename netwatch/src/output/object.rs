//! JSON objects, written key by key. A line of the log has forty keys, and serde_json checks each of their letters for
//! escapes, which was a good part of the cost of a line.

use std::io;
use std::marker::PhantomData;

use serde::Serialize;
use serde_json::value::RawValue;

use super::keys::{self, Key};
use crate::model::SockAddr;

/// An object that is being written, with the keys `K`. Keys and words need no escapes.
pub(super) struct Object<'a, K> {
    out: &'a mut Vec<u8>,
    begun: bool,
    keys: PhantomData<K>,
}

impl<'a, K: Key> Object<'a, K> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, begun: false, keys: PhantomData }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    #[inline]
    fn key(&mut self, key: K) -> &mut Vec<u8> {
        let spelled = key.with_comma().as_bytes();
        self.out.extend_from_slice(spelled.get(usize::from(!self.begun)..).unwrap_or_default());
        self.begun = true;
        self.out
    }

    pub(super) fn null(&mut self, key: K) {
        self.key(key).extend_from_slice(b"null");
    }

    pub(super) fn word(&mut self, key: K, word: &'static str) {
        self.string(key, |out| out.extend_from_slice(word.as_bytes()));
    }

    /// `inside` writes what needs no escapes.
    pub(super) fn string(&mut self, key: K, inside: impl FnOnce(&mut Vec<u8>)) {
        let out = self.key(key);
        out.push(b'"');
        inside(out);
        out.push(b'"');
    }

    pub(super) fn number(&mut self, key: K, number: impl Into<u64>) {
        decimal(number.into(), self.key(key));
    }

    /// A number, or `null`.
    pub(super) fn option(&mut self, key: K, number: Option<u64>) {
        match number {
            Some(number) => self.number(key, number),
            None => self.null(key),
        }
    }

    pub(super) fn endpoint(&mut self, key: K, endpoint: Option<SockAddr>) -> io::Result<()> {
        let Some(endpoint) = endpoint else {
            self.null(key);
            return Ok(());
        };
        let mut object = self.object(key);
        object.value(keys::Endpoint::Ip, &endpoint.ip)?;
        object.number(keys::Endpoint::Port, endpoint.port);
        object.end();
        Ok(())
    }

    /// An object in this one, to be ended before the next key of this one.
    pub(super) fn object<Inner: Key>(&mut self, key: K) -> Object<'_, Inner> {
        Object::begin(self.key(key))
    }

    /// Text that is escaped already, or `null`.
    pub(super) fn option_text(&mut self, key: K, text: Option<&str>) {
        match text {
            Some(text) => self.string(key, |out| out.extend_from_slice(text.as_bytes())),
            None => self.null(key),
        }
    }

    /// An array; `write` writes an item.
    pub(super) fn array<T>(
        &mut self,
        key: K,
        items: &[T],
        mut write: impl FnMut(&T, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let out = self.key(key);
        out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(item, out)?;
        }
        out.push(b']');
        Ok(())
    }

    /// A value that is JSON already.
    pub(super) fn raw(&mut self, key: K, value: &RawValue) {
        self.key(key).extend_from_slice(value.get().as_bytes());
    }

    /// Any other value.
    pub(super) fn value(&mut self, key: K, value: &impl Serialize) -> io::Result<()> {
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
    use keys::Event;

    #[test]
    fn object_equals_that_of_serde_json() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        for number in [0_u64, 9, 10, 4_026_531_840, u64::MAX] {
            object.number(Event::Seq, number);
        }
        let endpoint = SockAddr { ip: "::1".parse().unwrap(), port: 80 };
        object.endpoint(Event::Local, Some(endpoint)).unwrap();
        object.option(Event::DurationUs, None);
        object.object::<keys::Origin>(Event::Origin).end();
        object.end();
        let expected = r#"{"seq":0,"seq":9,"seq":10,"seq":4026531840,"seq":18446744073709551615,"#;
        let expected =
            expected.to_owned() + r#""local":{"ip":"::1","port":80},"duration_us":null,"origin":{}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
