//! Who this host is in the fleet.

use std::path::Path;

use crate::{bounded, limits};

/// The host as rows name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// A hash of the machine id: the id itself is confidential, machine-id(5), and another application of the same idea
    /// has another one.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Labels, each `KEY=VALUE`.
    pub labels: Vec<String>,
    /// The release of its kernel.
    pub kernel: String,
}

/// Context of the key derivation; a change makes every host a new one.
const CONTEXT: &str = "netwatch 2026-12-01 id of a host in a fleet";

impl Identity {
    /// Of this host. `name`: the name to use; recorders of one machine, and machines that are copies of one another, are
    /// told apart by it.
    ///
    /// # Errors
    /// If there is no machine id.
    pub(super) fn of_this_host(name: Option<&str>, labels: &[String]) -> Result<Self, String> {
        Self::of(Path::new("/etc/machine-id"), name, labels)
    }

    fn of(file: &Path, name: Option<&str>, labels: &[String]) -> Result<Self, String> {
        let machine = bounded::text(file, limits::PROC_FILE).unwrap_or_default();
        let machine = machine.trim();
        if machine.len() != 32 || !machine.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(format!(
                "{} has no machine id, by which a server tells hosts apart: make one with `systemd-machine-id-setup`",
                file.display()
            ));
        }
        let host = rustix::system::uname();
        let own = name.map_or_else(|| host.nodename().to_string_lossy().into_owned(), str::to_owned);
        let key = format!("{machine} {}", name.unwrap_or_default());
        let id = blake3::derive_key(CONTEXT, key.as_bytes());
        let id = id.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let kernel = host.release().to_string_lossy().into_owned();
        Ok(Self { id, name: own, labels: labels.to_vec(), kernel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_a_hash_of_its_machine_id_and_the_name_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine-id");
        assert!(Identity::of(&file, None, &[]).unwrap_err().contains("systemd-machine-id-setup"));
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        let one = Identity::of(&file, None, &["rack=7".into()]).unwrap();
        assert_eq!((one.id.len(), &*one.labels), (32, &["rack=7".to_owned()][..]));
        assert!(!one.id.contains("0123456789abcdef") && !one.name.is_empty());
        assert_eq!(one.id, Identity::of(&file, None, &[]).unwrap().id);
        let named = Identity::of(&file, Some("b"), &[]).unwrap();
        assert_ne!((&one.id, &*named.name), (&named.id, "a"));
        assert_eq!(named.name, "b");
    }
}
