//! Reads the BTF of the kernel in one pass over its hundred thousand types: ids of structures, and an extract with the
//! types that programs are attached to. Generic readers keep every type and search all for each name, which took a
//! third of the time of a snapshot.

use std::collections::{HashMap, HashSet};

/// Magic of struct btf_header (include/uapi/linux/btf.h): magic, version, flags, header length, then offset and length
/// of types and strings.
const MAGIC: u16 = 0xeb9f;

/// Length of the struct btf_header that is written.
const HEADER: usize = 24;

/// Length of struct btf_type: offset of the name, kind and number of items, size or another type.
const TYPE: usize = 12;

const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const FUNCTION: u32 = 12;
const STRUCT: u32 = 4;

/// Bytes that follow a type of a kind with `items` items; `None` for an unknown kind.
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

/// Result of the pass.
#[derive(Debug)]
pub(super) struct Layouts<'a> {
    /// Ids of structures, the first of each name.
    pub(super) structures: HashMap<&'a [u8], u32>,
    /// BTF with the wanted types under the same ids as in the kernel's; all others are anonymous forward declarations.
    pub(super) extract: Vec<u8>,
}

/// Finds all structures, and the functions and typedefs in `wanted`. `None` if `btf` cannot be parsed.
pub(super) fn find<'a>(btf: &'a [u8], wanted: &HashSet<String>) -> Option<Layouts<'a>> {
    let magic = u16::from_ne_bytes(btf.get(..2)?.try_into().ok()?);
    let [header, types, length, strings] = [4, 8, 12, 16].map(|at| word(btf, at));
    if magic != MAGIC {
        return None;
    }
    let behind = btf.get(header? as usize..)?;
    let types = behind.get(types? as usize..)?.get(..length? as usize)?;
    let strings = behind.get(strings? as usize..)?;
    let mut structures = HashMap::new();
    let (mut extract, mut names) = (vec![0; HEADER], vec![0]);
    let (mut rest, mut id) = (types, 0);
    while !rest.is_empty() {
        // Id 0 is void, which is not stored.
        id += 1;
        let info = word(rest, 4)?;
        let (kind, items) = (info >> 24 & 0x1f, info as usize & 0xffff);
        let mut entry = [0, FORWARD << 24, 0];
        if matches!(kind, STRUCT | TYPEDEF | FUNCTION) {
            let name = strings.get(word(rest, 0)? as usize..)?;
            let name = name.get(..name.iter().position(|byte| *byte == 0)?)?;
            if kind == STRUCT {
                structures.entry(name).or_insert(id);
            } else if str::from_utf8(name).is_ok_and(|name| wanted.contains(name)) {
                entry = [u32::try_from(names.len()).ok()?, info, word(rest, 8)?];
                names.extend_from_slice(name);
                names.push(0);
            }
        }
        extract.extend(entry.map(u32::to_ne_bytes).as_flattened());
        rest = rest.get(TYPE + tail(kind, items)?..)?;
    }
    let length = u32::try_from(extract.len() - HEADER).ok()?;
    let header = [HEADER as u32, 0, length, length, u32::try_from(names.len()).ok()?].map(u32::to_ne_bytes);
    let head = [&MAGIC.to_ne_bytes()[..], &[1, 0], header.as_flattened()].concat();
    extract.get_mut(..HEADER)?.copy_from_slice(&head);
    extract.extend(names);
    Some(Layouts { structures, extract })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::BtfKind;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::offsets::VMLINUX;
    use super::super::plan::attached_to;
    use super::*;

    /// A header, types of these words, and strings.
    fn btf(types: &[&[u32]], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.concat().into_iter().flat_map(u32::to_ne_bytes).collect();
        let length = u32::try_from(types.len()).unwrap();
        let rest = [24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        let head = [&MAGIC.to_ne_bytes()[..], &[1, 0], &rest.map(u32::to_ne_bytes).concat()].concat();
        [head, types, strings.to_vec()].concat()
    }

    fn wanted(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn structures_are_found_after_any_types() {
        let int = [1, 1 << 24, 4, 32];
        let with_two_members = [5, STRUCT << 24 | 2, 8, 0, 1, 0, 0, 1, 32];
        let prototype = [0, 13 << 24 | 1, 1, 0, 1];
        let strings = b"\0int\0sock\0task\0";
        let types: &[&[u32]] =
            &[&int, &with_two_members, &prototype, &[10, STRUCT << 24, 0], &[5, STRUCT << 24, 0]];
        let btf = btf(types, strings);
        let found = find(&btf, &HashSet::new()).unwrap().structures;
        assert_eq!((found.get(&b"sock"[..]), found.get(&b"task"[..])), (Some(&2), Some(&4)));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn an_extract_has_what_was_asked_for_under_its_own_id() {
        let prototype = [0, 13 << 24 | 1, 1, 0, 1];
        let types: &[&[u32]] =
            &[&prototype, &[1, FUNCTION << 24, 1], &[6, TYPEDEF << 24, 1], &[13, FUNCTION << 24, 1]];
        let btf = btf(types, b"\0call\0traced\0other\0");
        let extract = find(&btf, &wanted(&["call", "traced"])).unwrap().extract;
        let read = aya::Btf::parse(&extract, aya::Endianness::default()).unwrap();
        let id = |name, kind| read.id_by_type_name_kind(name, kind).ok();
        assert_eq!(id("call", BtfKind::Func), Some(2));
        assert_eq!(id("traced", BtfKind::Typedef), Some(3));
        assert_eq!(id("other", BtfKind::Func), None);
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let nothing = HashSet::new();
        let whole = btf(&[&[1, STRUCT << 24, 0]], b"\0a\0");
        assert!(find(&whole, &nothing).is_some());
        for length in 0..whole.len() {
            assert!(find(&whole[..length], &nothing).is_none(), "{length}");
        }
        assert!(find(&btf(&[&[1, 31 << 24, 0]], b"\0a\0"), &nothing).is_none());
    }

    /// Skipped without BTF.
    #[test]
    fn an_extract_of_the_running_kernel_s_types_leads_where_all_of_them_do() {
        let Ok(vmlinux) = std::fs::read(VMLINUX) else {
            println!(
                "SKIP an_extract_of_the_running_kernel_s_types_leads_where_all_of_them_do: no {VMLINUX}"
            );
            return;
        };
        let wanted = attached_to();
        let extract = find(&vmlinux, &wanted).unwrap().extract;
        let [extract, whole] =
            [&extract, &vmlinux].map(|btf| aya::Btf::parse(btf, aya::Endianness::default()).unwrap());
        let mut there = 0;
        for name in &wanted {
            for kind in [BtfKind::Func, BtfKind::Typedef] {
                let [id, expected] = [&extract, &whole].map(|btf| btf.id_by_type_name_kind(name, kind).ok());
                assert_eq!(id, expected, "{name}");
                there += usize::from(id.is_some());
            }
        }
        assert!(there > 10, "{there}");
    }

    proptest! {
        #[test]
        fn extract_of_any_bytes_is_btf(words in vec(prop_oneof![0_u32..64, any::<u32>()], 0..40)) {
            let btf = btf(&[&words], b"\0a\0");
            if let Some(found) = find(&btf, &wanted(&["a"])) {
                prop_assert!(aya::Btf::parse(&found.extract, aya::Endianness::default()).is_ok());
            }
        }
    }
}
