//! Rows as bytes (RowBinary): from values of a store, and back.

use std::net::{IpAddr, Ipv6Addr};

use rusqlite::types::{Value, ValueRef};

use super::column::{Column, Kind};
use crate::model::unmap;

/// Appends text, or bytes.
pub(super) fn put_text(text: &[u8], out: &mut Vec<u8>) {
    put_length(text.len(), out);
    out.extend_from_slice(text);
}

fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Appends a list of texts.
pub(super) fn put_list<T: AsRef<str>>(list: &[T], out: &mut Vec<u8>) {
    put_length(list.len(), out);
    list.iter().for_each(|text| put_text(text.as_ref().as_bytes(), out));
}

/// Appends a value of the store; one that does not fit the column is sent as if it were missing.
pub(super) fn put(column: &Column, value: ValueRef<'_>, out: &mut Vec<u8>) {
    let text = match value {
        ValueRef::Text(text) => text,
        _ => b"",
    };
    match column.kind {
        Kind::Text | Kind::Few => put_text(text, out),
        Kind::Word(words) => match value {
            ValueRef::Integer(code) => put_text(words.word(code).as_bytes(), out),
            _ => put_text(b"", out),
        },
        Kind::List => put_list(&serde_json::from_slice::<Vec<String>>(text).unwrap_or_default(), out),
        Kind::Ip => out.extend_from_slice(&bytes_of(text)),
        Kind::Int64 | Kind::UInt(_) | Kind::Time | Kind::Tuple => {
            let number = match value {
                ValueRef::Integer(number) => Some(number),
                _ => None,
            };
            if column.is_null {
                out.push(u8::from(number.is_none()));
                if number.is_none() {
                    return;
                }
            }
            put_number(column.kind, number.unwrap_or(0), out);
        }
    }
}

/// Appends a number as its column has it.
pub(super) fn put_number(kind: Kind, number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_le_bytes().get(..width(kind)).unwrap_or_default());
}

const fn width(kind: Kind) -> usize {
    match kind {
        Kind::UInt(bits) => bits as usize / 8,
        _ => 8,
    }
}

fn bytes_of(text: &[u8]) -> [u8; 16] {
    let ip = std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
    ip.map_or([0; 16], |ip| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

/// Reads values from bytes.
#[derive(Debug)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// Whether all was read.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn length(&mut self) -> Option<usize> {
        let mut length = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?.first().copied()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(length);
            }
        }
        None
    }

    /// A text. What is not UTF-8 was not sent by netwatch.
    pub(super) fn text(&mut self) -> Option<String> {
        let length = self.length()?;
        Some(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// A list of texts.
    pub(super) fn list(&mut self) -> Option<Vec<String>> {
        (0..self.length()?).map(|_| self.text()).collect()
    }

    /// A number as its column has it.
    pub(super) fn number(&mut self, kind: Kind) -> Option<i64> {
        let mut number = [0; 8];
        let bytes = self.take(width(kind))?;
        number.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(i64::from_le_bytes(number))
    }

    /// Two numbers of 64 bits.
    pub(super) fn pair(&mut self) -> Option<(i64, i64)> {
        self.number(Kind::Int64).zip(self.number(Kind::Int64))
    }

    /// A value of a column, as a store has it. `None`: the bytes end too soon.
    pub(super) fn value(&mut self, column: &Column) -> Option<Value> {
        let or_null = |text: String| match text.is_empty() && column.is_null {
            true => Value::Null,
            false => Value::Text(text),
        };
        Some(match column.kind {
            Kind::Text | Kind::Few => or_null(self.text()?),
            Kind::Word(words) => words.code(&self.text()?).map_or(Value::Null, Value::Integer),
            Kind::List => Value::Text(serde_json::to_string(&self.list()?).ok()?),
            Kind::Ip => {
                let bytes: [u8; 16] = self.take(16)?.try_into().ok()?;
                let ip = Ipv6Addr::from(bytes);
                match ip.is_unspecified() && column.is_null {
                    true => Value::Null,
                    false => Value::Text(unmap(ip.into()).0.to_string()),
                }
            }
            Kind::Int64 | Kind::UInt(_) | Kind::Time | Kind::Tuple => {
                if column.is_null && self.take(1)? == [1] {
                    return Some(Value::Null);
                }
                Value::Integer(self.number(column.kind)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::tables::TABLES;

    fn any(column: Column) -> BoxedStrategy<Value> {
        let number = match column.kind {
            Kind::UInt(bits) if bits < 64 => (0..1_i64 << bits).prop_map(Value::Integer).boxed(),
            Kind::Word(words) => {
                let known: Vec<_> = (0..=255).filter(|code| words.word(*code) != code.to_string()).collect();
                prop::sample::select(known).prop_map(Value::Integer).boxed()
            }
            Kind::Int64 | Kind::UInt(_) | Kind::Time | Kind::Tuple => any_number(),
            Kind::Ip => prop_oneof![
                any_v4().prop_map(|ip| Value::Text(ip.to_string())),
                (1_u128..).prop_map(|ip| Value::Text(unmap(Ipv6Addr::from(ip).into()).0.to_string())),
            ]
            .boxed(),
            Kind::List => prop::collection::vec(".{0,9}", 0..4)
                .prop_map(|list| Value::Text(serde_json::to_string(&list).unwrap()))
                .boxed(),
            Kind::Text | Kind::Few => ".{1,200}".prop_map(Value::Text).boxed(),
        };
        if column.is_null { prop_oneof![Just(Value::Null), number].boxed() } else { number }
    }

    fn any_number() -> BoxedStrategy<Value> {
        prop::num::i64::ANY.prop_map(Value::Integer).boxed()
    }

    fn any_v4() -> impl Strategy<Value = std::net::Ipv4Addr> {
        (1_u32..).prop_map(std::net::Ipv4Addr::from)
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in TABLES.iter().flat_map(|table| table.columns.to_vec()).map(|column| any(column).prop_map(move |value| (column, value))).collect::<Vec<_>>()) {
            let mut bytes = Vec::new();
            rows.iter().for_each(|(column, value)| put(column, value.into(), &mut bytes));
            let mut read = Bytes(&bytes);
            for (column, value) in &rows {
                prop_assert_eq!(read.value(column), Some(value.clone()), "{}", column.name);
            }
            prop_assert!(read.is_empty());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop::num::u8::ANY, 0..600)) {
            let mut read = Bytes(&bytes);
            for column in TABLES.iter().flat_map(|table| table.columns) {
                let _ = read.value(column);
            }
        }
    }
}
