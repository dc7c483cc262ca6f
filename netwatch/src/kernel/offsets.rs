//! Resolves [`Offsets`] from the BTF of the running kernel. Rust emits no CO-RE relocations, so the programs get
//! offsets as read-only globals.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;

use btf_rs::{Backend, Btf, Struct, Type};
use memmap2::{Mmap, MmapOptions};
use netwatch_common::{Need, Offsets};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::KernelError;

/// The BTF of the kernel (since 5.4, with `CONFIG_DEBUG_INFO_BTF`).
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The BTF in memory.
#[derive(Debug)]
pub(super) struct Vmlinux {
    file: File,
    /// Content of the file.
    pub(super) bytes: Mmap,
}

impl Vmlinux {
    /// # Errors
    /// If there is no BTF, or not enough memory.
    pub(super) fn open() -> io::Result<Self> {
        let mut file = File::open(VMLINUX)?;
        if let Ok(bytes) = map(&file) {
            return Ok(Self { file, bytes });
        }
        // The file can be mapped only since 6.16 (kernel/bpf/sysfs_btf.c).
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut copy = File::from(memfd_create(c"btf", MFdFlags::MFD_CLOEXEC)?);
        copy.write_all(&bytes)?;
        Ok(Self { bytes: map(&copy)?, file: copy })
    }

    /// Resolves every member; `structures` has the ids of structures, if they were found in one pass.
    ///
    /// # Errors
    /// [`KernelError::NoBtf`] if the BTF is invalid, [`KernelError::Member`] if a required member is missing.
    pub(super) fn offsets(&self, structures: Option<&HashMap<&[u8], u32>>) -> Result<Offsets, KernelError> {
        // Only some thirty of a hundred thousand types are needed; parsing all takes most of the time of a start.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let btf = Btf::from_file_with_backend(path, Backend::Mmap)
            .map_err(|error| KernelError::NoBtf(error.to_string()))?;
        let types = Types { btf: &btf, ids: structures, found: RefCell::default() };
        resolve_with(|path, need| member(&types, path, need))
    }
}

fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: neither the kernel's file nor a private copy changes.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

/// The BTF with a cache of structures.
struct Types<'a> {
    btf: &'a Btf,
    /// `None` if the BTF has kinds of types that the pass in `types` does not support.
    ids: Option<&'a HashMap<&'a [u8], u32>>,
    found: RefCell<HashMap<String, Option<Struct>>>,
}

impl Types<'_> {
    fn structure(&self, name: &str) -> Option<Struct> {
        let find = || {
            let types = match &self.ids {
                Some(ids) => vec![self.btf.resolve_type_by_id(*ids.get(name.as_bytes())?).ok()?],
                None => self.btf.resolve_types_by_name(name).ok()?,
            };
            types.into_iter().find_map(|found| match found {
                Type::Struct(found) => Some(found),
                _ => None,
            })
        };
        self.found.borrow_mut().entry(name.to_owned()).or_insert_with(find).clone()
    }
}

fn resolve_with(find: impl Fn(&str, Need) -> Option<u32>) -> Result<Offsets, KernelError> {
    let offsets = Offsets::MEMBERS
        .iter()
        .map(|&(path, need)| match (find(path, need), need) {
            (Some(offset), _) => Ok(offset),
            (None, Need::Optional | Need::Bit) => Ok(Offsets::MISSING),
            (None, Need::Required) => Err(KernelError::Member(path)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Offsets::from_members(offsets.into_iter()))
}

/// Offset of `structure.member.member`: in bytes, or in bits for [`Need::Bit`].
fn member(types: &Types<'_>, path: &str, need: Need) -> Option<u32> {
    let btf = types.btf;
    let mut names = path.split('.');
    let mut current = types.structure(names.next()?)?;
    let mut offset = 0;
    let mut names = names.peekable();
    while let Some(name) = names.next() {
        let found = find(btf, &current, name)?;
        offset += found.bit_offset;
        if names.peek().is_some() {
            current = composite(btf, found.r#type)?;
        } else {
            return match (need, found.bit_field) {
                // A bool is its lowest bit.
                (Need::Bit, Some(1) | None) => Some(offset),
                (Need::Required | Need::Optional, None) if offset % 8 == 0 => Some(offset / 8),
                // A bit-field has no offset in bytes, and other members need none in bits.
                _ => None,
            };
        }
    }
    None
}

/// A member of a structure.
struct Member {
    bit_offset: u32,
    /// Number of bits, if it is a bit-field.
    bit_field: Option<u32>,
    r#type: Type,
}

/// Finds a member, also in anonymous structures and unions.
fn find(btf: &Btf, within: &Struct, name: &str) -> Option<Member> {
    for member in &within.members {
        let r#type = btf.resolve_chained_type(member).ok()?;
        match btf.resolve_name(member) {
            Ok(found) if found == name => {
                let bit_field = member.bitfield_size().filter(|size| *size > 0);
                return Some(Member { bit_offset: member.bit_offset(), bit_field, r#type });
            }
            Ok(found) if !found.is_empty() => {}
            _ => {
                if let Some(inner) = composite(btf, r#type)
                    && let Some(found) = find(btf, &inner, name)
                {
                    return Some(Member { bit_offset: member.bit_offset() + found.bit_offset, ..found });
                }
            }
        }
    }
    None
}

/// The structure or union behind qualifiers and typedefs.
fn composite(btf: &Btf, mut r#type: Type) -> Option<Struct> {
    // Chains are short; the bound protects against cyclic BTF.
    for _ in 0..16 {
        r#type = match r#type {
            Type::Struct(found) | Type::Union(found) => return Some(found),
            Type::Typedef(ref alias) => btf.resolve_chained_type(alias).ok()?,
            Type::Const(ref alias) => btf.resolve_chained_type(alias).ok()?,
            Type::Volatile(ref alias) => btf.resolve_chained_type(alias).ok()?,
            Type::TypeTag(ref alias) => btf.resolve_chained_type(alias).ok()?,
            _ => return None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::types;
    use super::*;

    #[test]
    fn a_missing_member_is_named() {
        let offsets = resolve_with(|path, _| (path != "sock.sk_err").then_some(8));
        assert!(matches!(offsets, Err(KernelError::Member("sock.sk_err"))));
    }

    #[test]
    fn a_member_that_may_be_missing_is_marked() {
        let offsets = resolve_with(|path, _| (path != "task_struct.loginuid.val").then_some(8)).unwrap();
        assert_eq!(offsets.task_loginuid, Offsets::MISSING);
        assert_eq!(offsets.sk_err, 8);
    }

    /// Holds on every kernel; skipped without BTF.
    #[test]
    fn the_running_kernel_resolves() {
        if !std::path::Path::new(VMLINUX).exists() {
            println!("SKIP the_running_kernel_resolves: no {VMLINUX}");
            return;
        }
        let vmlinux = Vmlinux::open().unwrap();
        let found = types::find(&vmlinux.bytes, &HashSet::new()).unwrap();
        let offsets = vmlinux.offsets(Some(&found.structures)).unwrap();
        // `struct sock_common` comes first in `struct sock`, the address pair first in that.
        assert_eq!(offsets.sk_daddr, 0);
        assert_eq!(offsets.sk_rcv_saddr, 4);
        assert_eq!(offsets.sk_num, offsets.sk_dport + 2);
        assert_eq!(offsets.socket_inode % 8, 0);
        assert_eq!(offsets.mm_arg_end, offsets.mm_arg_start + 8);
        assert_ne!(offsets.dentry_name, offsets.dentry_parent);
        // The other way to find structures gives the same result.
        assert!(vmlinux.offsets(None).unwrap() == offsets);
    }
}
