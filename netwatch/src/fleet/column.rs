//! Columns of the tables, and the kinds of their values.

use crate::store::Words;

/// How a value is sent, and what type its column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A signed number.
    Int64,
    /// An unsigned number of this many bits.
    UInt(u8),
    /// Nanoseconds since the epoch.
    Time,
    /// 16 bytes; IPv4 is mapped. No address is `::`.
    Ip,
    /// Text of many values.
    Text,
    /// Text of few values.
    Few,
    /// A number of the store that stands for a word.
    Word(Words),
    /// A JSON array of the store.
    List,
    /// What both ends of a connection share: see [`super::tuple`].
    Tuple,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Whether it may be missing: a number is Nullable, and a text or an address empty.
    pub is_null: bool,
    /// The expression of the store.
    pub of: &'static str,
    /// The table and the column of a store that it is read back to.
    pub back: Option<(&'static str, &'static str)>,
}

/// A column that is not read back.
pub(super) const fn column(name: &'static str, kind: Kind, of: &'static str) -> Column {
    Column { name, kind, is_null: false, of, back: None }
}

impl Column {
    /// It may be missing.
    pub(super) const fn null(self) -> Self {
        Self { is_null: true, ..self }
    }

    /// It is read back.
    pub(super) const fn to(self, table: &'static str, column: &'static str) -> Self {
        Self { back: Some((table, column)), ..self }
    }
}

/// An unsigned number.
pub(super) const fn u(bits: u8) -> Kind {
    Kind::UInt(bits)
}

/// The columns of both, in order.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
pub(super) const fn joined<const A: usize, const B: usize, const N: usize>(
    a: [Column; A],
    b: [Column; B],
) -> [Column; N] {
    assert!(A + B == N, "the length of a table");
    let mut all = [column("", Kind::Text, ""); N];
    let mut n = 0;
    while n < N {
        all[n] = if n < A { a[n] } else { b[n - A] };
        n += 1;
    }
    all
}
