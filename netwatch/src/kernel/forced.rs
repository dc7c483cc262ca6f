//! `--probe JOB=RUNG`: selects a rung, for tests and for support.

use super::plan::JOBS;

/// The value of RUNG for no rung.
pub(super) const NONE: &str = "none";

/// A job with the rung that the user chose by `--probe JOB=RUNG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    /// A job of the plan.
    job: &'static str,
    /// One of its rungs; `None` for no rung.
    rung: Option<&'static str>,
}

impl Forced {
    /// Used if only TCP is shown, since the UDP probes see every packet.
    pub const NO_UDP: Self = Self { job: "udp", rung: None };

    /// Used for `--no-names`.
    pub const NO_NAMES: Self = Self { job: "names", rung: None };

    /// Parses `JOB=RUNG`; `none` as RUNG means no rung.
    ///
    /// # Errors
    /// Names the valid values.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (job, rung) = text.split_once('=').unwrap_or((text, ""));
        let Some(job) = JOBS.iter().find(|known| known.name == job) else {
            let names: Vec<_> = JOBS.iter().map(|job| job.name).collect();
            return Err(format!("expected JOB=RUNG, with one of the jobs {}", names.join(", ")));
        };
        if rung == NONE && !job.required {
            return Ok(Self { job: job.name, rung: None });
        }
        let keys = || job.rungs.iter().map(|rung| rung.key);
        match keys().find(|key| *key == rung) {
            Some(key) => Ok(Self { job: job.name, rung: Some(key) }),
            None => {
                let none = (!job.required).then_some(NONE);
                let keys: Vec<_> = keys().chain(none).collect();
                Err(format!("the rungs of `{}` are {}", job.name, keys.join(", ")))
            }
        }
    }

    /// The last choice for a job: `None` if there is none, `Some(None)` for no rung.
    pub(super) fn of(forced: &[Self], job: &str) -> Option<Option<&'static str>> {
        forced.iter().rev().find(|forced| forced.job == job).map(|forced| forced.rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_a_job_that_may_be() {
        assert_eq!(Forced::parse("udp=none"), Ok(Forced::NO_UDP));
        assert_eq!(Forced::parse("names=none"), Ok(Forced::NO_NAMES));
    }

    #[test]
    fn forced_rungs_are_read() {
        let forced = |text| Forced::parse(text);
        assert_eq!(forced("accept=kprobe"), Ok(Forced { job: "accept", rung: Some("kprobe") }));
        assert_eq!(forced("udp=none"), Ok(Forced { job: "udp", rung: None }));
        assert_eq!(forced("accept=x").unwrap_err(), "the rungs of `accept` are fexit, kprobe, syscall, none");
        assert_eq!(forced("state=none").unwrap_err(), "the rungs of `state` are storage, address");
        assert!(forced("nothing=x").unwrap_err().contains("jobs process, cgroup, state"));
        assert!(forced("accept").is_err() && forced("").is_err());
        let several = [forced("use=none").unwrap(), forced("use=fexit").unwrap()];
        assert_eq!(Forced::of(&several, "use"), Some(Some("fexit")));
        assert_eq!(Forced::of(&several[..1], "use"), Some(None));
        assert_eq!(Forced::of(&several, "udp"), None);
    }
}
