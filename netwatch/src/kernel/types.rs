//! Where in the kernel's BTF its structures are: ids by name, in one pass over a hundred thousand types. The reader
//! of BTF looks at all names for each that is asked for, which was a tenth of the time that a start takes.

use std::collections::HashMap;

/// `include/uapi/linux/btf.h`, struct btf_header: magic, version and flags, its own length, then where types and strings
/// begin behind it and how long they are.
const MAGIC: u16 = 0xeb9f;

/// struct btf_type: offset of the name, kind and count of what follows it, a size or another type.
const TYPE: usize = 12;

const STRUCT: u32 = 4;

/// Bytes that follow a type of a kind, each of so many items; `None` for a kind that this does not know.
fn tail(kind: u32, items: usize) -> Option<usize> {
    Some(match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Structure, union, section, enumeration of 64 bits.
        STRUCT | 5 | 15 | 19 => 12 * items,
        // Enumeration, prototype.
        6 | 13 => 8 * items,
        _ => return None,
    })
}

/// The first structure of each name; `None` where this cannot read what `btf` holds.
pub(super) fn ids(btf: &[u8]) -> Option<HashMap<&[u8], u32>> {
    let magic = u16::from_ne_bytes(btf.get(..2)?.try_into().ok()?);
    let [header, types, length, strings] = [4, 8, 12, 16].map(|at| word(btf, at));
    if magic != MAGIC {
        return None;
    }
    let behind = btf.get(header? as usize..)?;
    let types = behind.get(types? as usize..)?.get(..length? as usize)?;
    let strings = behind.get(strings? as usize..)?;
    let mut found = HashMap::new();
    let (mut rest, mut id) = (types, 0);
    while !rest.is_empty() {
        // The first is void, and not written.
        id += 1;
        let info = word(rest, 4)?;
        let (kind, items) = (info >> 24 & 0x1f, info as usize & 0xffff);
        if kind == STRUCT {
            let name = strings.get(word(rest, 0)? as usize..)?;
            let end = name.iter().position(|byte| *byte == 0)?;
            found.entry(name.get(..end)?).or_insert(id);
        }
        rest = rest.get(TYPE + tail(kind, items)?..)?;
    }
    Some(found)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, types of so many words, and strings.
    fn btf(types: &[&[u32]], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.concat().into_iter().flat_map(u32::to_ne_bytes).collect();
        let length = u32::try_from(types.len()).unwrap();
        let rest = [24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        let head = [&MAGIC.to_ne_bytes()[..], &[1, 0], &rest.map(u32::to_ne_bytes).concat()].concat();
        [head, types, strings.to_vec()].concat()
    }

    #[test]
    fn structures_are_found_behind_whatever_is_before_them() {
        let int = [1, 1 << 24, 4, 32];
        let with_two_members = [5, STRUCT << 24 | 2, 8, 0, 1, 0, 0, 1, 32];
        let prototype = [0, 13 << 24 | 1, 1, 0, 1];
        let strings = b"\0int\0sock\0task\0";
        let types: &[&[u32]] =
            &[&int, &with_two_members, &prototype, &[10, STRUCT << 24, 0], &[5, STRUCT << 24, 0]];
        let btf = btf(types, strings);
        let found = ids(&btf).unwrap();
        assert_eq!((found.get(&b"sock"[..]), found.get(&b"task"[..])), (Some(&2), Some(&4)));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let whole = btf(&[&[1, STRUCT << 24, 0]], b"\0a\0");
        assert!(ids(&whole).is_some());
        for length in 0..whole.len() {
            assert!(ids(&whole[..length]).is_none(), "{length}");
        }
        assert!(ids(&btf(&[&[1, 31 << 24, 0]], b"\0a\0")).is_none());
    }
}
