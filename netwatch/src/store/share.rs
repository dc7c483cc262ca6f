//! Who may read a store: its owner, and a group if the folder of the store is one for a group: set-group-ID, readable by
//! the group, and writable only by its owner (mode 2750). Packages make it for the group `netwatch`.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use super::StoreError;
use super::files::{beside, folder_of, own};
use crate::blocking::{self, Patience};
use crate::{escape, limits};

/// Set-group-ID, and the rights of a group to read and to enter.
const SHARED: u32 = 0o2050;

/// Whether a folder is for the members of its group, and only its owner writes to it.
fn is_shared(folder: &Metadata) -> bool {
    folder.is_dir() && folder.mode() & SHARED == SHARED && folder.mode() & 0o022 == 0
}

/// Lets the group of the folder read the files of a store, which this user owns. By path, since closing a descriptor
/// would drop the locks: nobody else can put another file there.
pub(super) fn with_group(path: &Path, suffixes: &[&str]) {
    let Ok(real) = fs::canonicalize(path) else { return };
    let Ok(folder) = fs::metadata(folder_of(&real)) else { return };
    if !is_shared(&folder) || ![0, own()].contains(&folder.uid()) {
        return;
    }
    for file in suffixes.iter().map(|suffix| beside(&real, suffix)).chain([real.clone()]) {
        if let Err(error) = share(&file, folder.gid()) {
            log::warn!("{}: {error}", escape::path(&file));
        }
    }
}

fn share(file: &Path, group: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(file)?;
    if !found.is_file() || found.uid() != own() {
        return Ok(());
    }
    if found.gid() != group {
        chown(file, None, Some(group))?;
    }
    if found.mode() & 0o040 == 0 {
        fs::set_permissions(file, Permissions::from_mode(found.mode() & 0o7777 | 0o040))?;
    }
    Ok(())
}

/// The error of opening a store for reading. Where the right is missing it names the command that gives it.
pub(super) fn refused(path: &Path, source: io::Error) -> StoreError {
    if source.kind() != io::ErrorKind::PermissionDenied {
        return StoreError::Open { path: path.to_owned(), source };
    }
    let how = group_of(path).and_then(|group| as_member(&group));
    let how = how.unwrap_or_else(|| "run this as root (sudo)".to_owned());
    StoreError::Refused { path: path.to_owned(), how }
}

/// The group that the folder of the store is for. The folder may be one that this user cannot enter.
fn group_of(path: &Path) -> Option<u32> {
    path.ancestors()
        .skip(1)
        .find_map(|folder| fs::metadata(folder).ok())
        .filter(is_shared)
        .map(|folder| folder.gid())
}

/// How this user becomes a member. Groups of packages are in group(5); nothing else is asked.
fn as_member(gid: &u32) -> Option<String> {
    let text = blocking::text(Path::new("/etc/group"), limits::USERS_FILE, limits::COMMAND_WAIT).ok()?;
    let user = blocking::user_name(own(), Patience::Command).flatten()?;
    membership(&text, *gid, &user)
}

fn membership(groups: &str, gid: u32, user: &str) -> Option<String> {
    let is_it = |line: &&str| line.split(':').nth(2).is_some_and(|field| field.parse() == Ok(gid));
    let line = groups.lines().find(is_it)?;
    let (group, members) = (line.split(':').next()?, line.split(':').nth(3).unwrap_or_default());
    Some(if members.split(',').any(|member| member == user) {
        format!("log in again: {user} is in the group {group}, but was not when this session began")
    } else {
        format!("`sudo usermod -aG {group} {user}` gives the right, from the next login on")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_for_those_who_are_no_members() {
        let groups = "root:x:0:\nnetwatch:x:987:ann,bob\nother:x:9870:carl\n";
        let how = |gid, user| membership(groups, gid, user);
        assert!(how(987, "carl").unwrap().starts_with("`sudo usermod -aG netwatch carl`"));
        assert!(how(987, "bob").unwrap().starts_with("log in again: bob is in the group netwatch"));
        assert_eq!(how(98, "carl"), None);
    }

    #[test]
    fn only_a_folder_for_a_group_shares_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netwatch.db");
        fs::write(&path, "").unwrap();
        let mode = |mode: u32| {
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            with_group(&path, &[]);
            fs::metadata(&path).unwrap().mode() & 0o777
        };
        assert_eq!([0o700, 0o750, 0o755, 0o2700, 0o2770, 0o2757].map(mode), [0o600; 6]);
        assert_eq!([0o2750, 0o2755].map(mode), [0o640; 2]);
    }
}
