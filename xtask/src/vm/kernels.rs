//! The kernels to test on, and where to find them in Debian.

use super::version;

/// A kernel that can be selected by its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    /// Suites that may contain it.
    pub(super) suites: &'static [&'static str],
    /// Prefix of its releases.
    series: &'static str,
    /// Prefixes of the names of its packages; a version follows, then [`FLAVOUR`] and an optional suffix.
    parts: &'static [&'static str],
    ending: &'static str,
}

/// Cloud flavours are small, and have BTF, kprobes and fentry.
const FLAVOUR: &str = "-cloud-amd64";

/// One package has everything. The unsigned one is not installed as a dependency of another.
const IMAGE: &[&str] = &["linux-image-"];
const UNSIGNED: &str = "-unsigned";

/// The slowest first, since they are started in this order.
pub(super) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "newest",
        // The newest of these: which suite has it changes from week to week.
        suites: &["sid", "forky", "trixie-backports"],
        series: "",
        // Since 6.19 linux-image-* is an empty package that depends on these.
        parts: &["linux-binary-", "linux-modules-", "linux-base-"],
        ending: "",
    },
    Kernel { name: "6.12", suites: &["trixie"], series: "6.12.", parts: IMAGE, ending: UNSIGNED },
    Kernel { name: "6.1", suites: &["bookworm"], series: "6.1.", parts: IMAGE, ending: UNSIGNED },
    Kernel { name: "5.10", suites: &["bullseye-security"], series: "5.10.", parts: IMAGE, ending: UNSIGNED },
];

/// A release of a kernel in a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// As `uname -r` prints it.
    pub(super) release: String,
    pub(super) suite: &'static str,
    pub(super) packages: Vec<String>,
}

impl Kernel {
    /// Its releases among the packages of a suite, in no particular order.
    pub(super) fn candidates(&self, suite: &'static str, packages: &[&str]) -> Vec<Candidate> {
        packages.iter().filter_map(|package| self.candidate(suite, packages, package)).collect()
    }

    /// The release that `package` belongs to, if the suite has all its parts.
    fn candidate(&self, suite: &'static str, packages: &[&str], package: &str) -> Option<Candidate> {
        let version = package
            .strip_prefix(self.parts.first()?)?
            .strip_suffix(self.ending)?
            .strip_suffix(FLAVOUR)
            // A digit, because linux-binary-unsigned-7.2 has the prefix of linux-binary-7.2.
            .filter(|version| {
                version.starts_with(self.series) && version.starts_with(|one: char| one.is_ascii_digit())
            })?;
        let named = |part: &&str| format!("{part}{version}{FLAVOUR}{}", self.ending);
        let names: Vec<_> = self.parts.iter().map(named).collect();
        let all = names.iter().all(|name| packages.contains(&name.as_str()));
        all.then(|| Candidate { release: format!("{version}{FLAVOUR}"), suite, packages: names })
    }
}

/// Sorts the newest to the front.
pub(super) fn newest_first(candidates: &mut [Candidate]) {
    candidates.sort_by(|one, other| version::compare(&other.release, &one.release));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(name: &str) -> &'static Kernel {
        KERNELS.iter().find(|kernel| kernel.name == name).unwrap()
    }

    fn releases(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.release.as_str()).collect()
    }

    #[test]
    fn only_a_kernel_s_own_releases_are_candidates() {
        let packages = [
            "linux-image-6.1.0-9-cloud-amd64-unsigned",
            "linux-image-6.1.0-50-cloud-amd64-unsigned",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64-dbg",
            "linux-image-6.1.0-50-amd64-unsigned",
            "linux-image-6.12.3-cloud-amd64-unsigned",
            "linux-image-cloud-amd64",
            "linux-image-cloud-amd64-unsigned",
        ];
        let mut candidates = kernel("6.1").candidates("bookworm", &packages);
        newest_first(&mut candidates);
        assert_eq!(releases(&candidates), ["6.1.0-50-cloud-amd64", "6.1.0-9-cloud-amd64"]);
        assert_eq!(candidates[0].packages, ["linux-image-6.1.0-50-cloud-amd64-unsigned"]);
        assert_eq!(candidates[0].suite, "bookworm");
    }

    #[test]
    fn the_newest_of_several_suites_comes_first_and_has_all_parts() {
        let newest = kernel("newest");
        let both = |release: &str| {
            ["binary", "modules", "base"].map(|part| format!("linux-{part}-{release}-cloud-amd64"))
        };
        let of = |suite, names: &[String]| {
            newest.candidates(suite, &names.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let mut sid = both("7.2.13+deb14").to_vec();
        sid.push("linux-binary-unsigned-7.2.13+deb14-cloud-amd64".to_owned());
        // The suite has no more modules for this one.
        sid.push("linux-binary-7.9+deb14-cloud-amd64".to_owned());
        let mut candidates = of("sid", &sid);
        candidates.extend(of("trixie-backports", &both("7.3.4+deb13")));
        newest_first(&mut candidates);
        assert_eq!(releases(&candidates), ["7.3.4+deb13-cloud-amd64", "7.2.13+deb14-cloud-amd64"]);
        assert_eq!(candidates[0].packages, both("7.3.4+deb13"));
        assert_eq!(candidates[0].suite, "trixie-backports");
    }
}
