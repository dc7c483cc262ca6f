//! Landlock: no file can be opened but those on a list, for reading, and no address can be connected or bound to.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, Scope,
};

/// The newest interface that is used; of an older kernel what it has.
const NEWEST: ABI = ABI::V10;

/// What the interface has since a version, for the user.
const SINCE: [(i32, &str); 3] = [
    (4, "TCP (Landlock of Linux 6.7)"),
    (6, "signals and abstract sockets (Landlock of Linux 6.12)"),
    (10, "UDP (Landlock of Linux 7.2)"),
];

/// `LANDLOCK_CREATE_RULESET_VERSION`: include/uapi/linux/landlock.h.
const VERSION: libc::c_long = 1;

/// The version of the interface, or why there is none.
fn version() -> io::Result<i32> {
    // SAFETY: with this flag the kernel takes no attributes, and returns a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, VERSION) };
    i32::try_from(version).ok().filter(|version| *version > 0).ok_or_else(io::Error::last_os_error)
}

pub(super) fn not_offered(lacks: &mut Vec<String>) {
    match version() {
        Ok(version) => {
            let missing = SINCE.iter().filter(|(since, _)| version < *since);
            lacks.extend(missing.map(|(_, what)| format!("rules for {what}")));
        }
        Err(error) => lacks.push(format!("rules for files and networks (Landlock): {error}")),
    }
}

/// Rules by which only `readable` can be opened. `None`: the kernel has no Landlock.
pub(super) fn ruleset(readable: &[PathBuf], lacks: &mut Vec<String>) -> Option<OwnedFd> {
    not_offered(lacks);
    version().ok()?;
    created(readable).inspect_err(|error| lacks.push(format!("rules for files (Landlock): {error}"))).ok()?
}

/// From here on this thread, and those that it starts, connect by TCP to this port only, and listen on none. An error:
/// the kernel does not offer it.
pub(super) fn connect_to_port_only(port: u16) -> Result<(), landlock::RulesetError> {
    let tcp = AccessNet::ConnectTcp | AccessNet::BindTcp;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(tcp)?
        .create()?
        .add_rule(NetPort::new(port, AccessNet::ConnectTcp))?
        .restrict_self()?;
    Ok(())
}

fn created(readable: &[PathBuf]) -> Result<Option<OwnedFd>, landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in readable {
        let Ok(file) = PathFd::new(path) else { continue };
        // ReadDir is left out for a file.
        ruleset = ruleset.add_rule(PathBeneath::new(file, read))?;
    }
    Ok(ruleset.into())
}
