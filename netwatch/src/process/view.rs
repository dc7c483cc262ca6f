//! The process object as it is printed: one shape for `list`, the events and everything after them.
//! Borrowed, so that printing an event copies no arguments and no tree.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use nix::unistd::{Uid, User};
use serde::{Serialize, Serializer};

use super::signs::{self, Sign};
use super::{Actor, Found};
use crate::model::{BootTime, ExeState, ProcessKey};
use crate::where_it_runs;

/// A process, with the keys of the contract in its order.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessView<'a> {
    /// Thread group, as netwatch's own pid namespace numbers it.
    pub pid: u32,
    /// The thread that acted; the group's leader where no thread is known.
    pub tid: u32,
    /// Survives the reuse of a pid.
    pub key: ProcessKey,
    /// When it started; `null` where not known.
    #[serde(serialize_with = "rfc3339")]
    pub start: Option<Timestamp>,
    /// Name of the thread-group leader.
    pub comm: &'a str,
    /// Name of the thread that acted, where it was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<&'a str>,
    /// See [`crate::model::Image::exe`].
    pub exe: Option<&'a str>,
    /// At the time of the event.
    pub exe_state: ExeState,
    /// As at exec.
    pub args: &'a [Arc<str>],
    /// Effective user.
    pub uid: u32,
    /// Its name, where it has one.
    pub user: Option<Arc<str>>,
    /// Login user.
    pub auid: Option<u32>,
    /// Present parent.
    pub ppid: u32,
    /// Path in the cgroup tree.
    pub cgroup: &'a str,
    /// Container id.
    pub container: Option<Cow<'a, str>>,
    /// systemd unit.
    pub unit: Option<Cow<'a, str>>,
    /// It is a kernel thread.
    pub kernel: bool,
    /// What speaks against it; absent where nothing does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signs: Vec<Sign>,
    /// Nearest first.
    pub ancestors: Vec<AncestorView<'a>>,
}

/// A forebear of a process.
#[derive(Clone, Debug, Serialize)]
pub struct AncestorView<'a> {
    /// Thread group.
    pub pid: u32,
    /// Survives the reuse of a pid.
    pub key: ProcessKey,
    /// Name of the leader.
    pub comm: &'a str,
    /// See [`crate::model::Image::exe`].
    pub exe: Option<&'a str>,
}

/// Makes views: what they need beside the process.
#[derive(Debug)]
pub struct Viewer {
    clock: BootClock,
    users: Users,
}

impl Viewer {
    /// Tells times by `clock`.
    #[must_use]
    pub fn new(clock: BootClock) -> Self {
        Self { clock, users: Users::default() }
    }

    /// The object of a process, with what was found to have become of its file.
    pub fn view<'a>(&mut self, actor: &'a Actor, found: Found) -> ProcessView<'a> {
        let process = &actor.process;
        let place = where_it_runs::of_cgroup(&process.cgroup);
        ProcessView {
            pid: process.key.pid,
            tid: actor.tid(),
            key: process.key,
            start: self.clock.time(process.key.start),
            comm: &process.comm,
            thread: actor.thread().map(AsRef::as_ref),
            exe: process.image.exe.as_deref(),
            exe_state: found.exe_state,
            args: &process.image.args,
            uid: process.uid,
            user: self.users.name(process.uid),
            auid: process.auid,
            ppid: process.ppid,
            cgroup: &process.cgroup,
            container: place.container,
            unit: place.unit.map(Into::into),
            kernel: process.kernel,
            signs: signs::of_process(process, found).collect(),
            ancestors: process
                .ancestors()
                .map(|ancestor| AncestorView {
                    pid: ancestor.key.pid,
                    key: ancestor.key,
                    comm: &ancestor.comm,
                    exe: ancestor.image.exe.as_deref(),
                })
                .collect(),
        }
    }
}

/// As `ts` is spelled: nine digits, so that columns and sorting hold.
fn rfc3339<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&format_args!("{time:.9}")),
        None => serializer.serialize_none(),
    }
}

/// Turns moments of this boot into times of day. One reading of the clocks serves a whole run: two
/// readings differ by some nanoseconds, and a process has but one start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootClock {
    boot: i128,
}

impl BootClock {
    /// Reads both clocks. `CLOCK_BOOTTIME` counts suspension, as a process's start time does.
    ///
    /// # Errors
    /// Where the kernel has no such clock.
    pub fn now() -> nix::Result<Self> {
        use nix::time::{ClockId, clock_gettime};
        let nanoseconds = |clock| {
            clock_gettime(clock).map(|t| i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec()))
        };
        let boot = nanoseconds(ClockId::CLOCK_BOOTTIME)?;
        Ok(Self { boot: nanoseconds(ClockId::CLOCK_REALTIME)? - boot })
    }

    /// The same reading, or another where the wall clock was set meanwhile: two readings differ by some
    /// microseconds, and times of events should not go to and fro.
    ///
    /// # Errors
    /// As [`BootClock::now`].
    pub fn corrected(self) -> nix::Result<Self> {
        const SET: u128 = 1_000_000;
        let now = Self::now()?;
        Ok(if now.boot.abs_diff(self.boot) > SET { now } else { self })
    }

    /// A reading that was written down: when the system booted, nanoseconds since the epoch.
    #[must_use]
    pub fn of_boot(boot: i64) -> Self {
        Self { boot: boot.into() }
    }

    /// When the system booted by this reading, nanoseconds since the epoch; `None` beyond the year 2262.
    #[must_use]
    pub fn boot(&self) -> Option<i64> {
        self.boot.try_into().ok()
    }

    /// `None` where the result is no date.
    #[must_use]
    pub fn time(&self, at: BootTime) -> Option<Timestamp> {
        Timestamp::from_nanosecond(self.boot + i128::from(at.nanos())).ok()
    }
}

/// User names, asked for once each: the name service may be a network away.
#[derive(Debug, Default)]
pub struct Users {
    names: HashMap<u32, Option<Arc<str>>>,
}

impl Users {
    /// `None` where the user database has no such user, or cannot be read.
    pub fn name(&mut self, uid: u32) -> Option<Arc<str>> {
        self.names
            .entry(uid)
            .or_insert_with(|| User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name.into()))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::ns;

    #[test]
    fn keys_are_the_contract_s() {
        let args: Vec<Arc<str>> = vec!["sleep".into(), "1".into()];
        let view = ProcessView {
            pid: 4242,
            tid: 4242,
            key: ProcessKey { pid: 4242, start: ns(17) },
            start: Timestamp::from_nanosecond(1_500_000_000_000_000_000).ok(),
            comm: "sleep",
            thread: None,
            exe: Some("/usr/bin/sleep"),
            exe_state: ExeState::Ok,
            args: &args,
            uid: 0,
            user: Some("root".into()),
            auid: None,
            ppid: 1,
            cgroup: "/",
            container: None,
            unit: None,
            kernel: false,
            signs: Vec::new(),
            ancestors: vec![AncestorView {
                pid: 1,
                key: ProcessKey { pid: 1, start: ns(0) },
                comm: "init",
                exe: None,
            }],
        };
        assert_eq!(
            serde_json::to_string(&view).unwrap(),
            concat!(
                r#"{"pid":4242,"tid":4242,"key":"4242@17","start":"2017-07-14T02:40:00.000000000Z","#,
                r#""comm":"sleep","exe":"/usr/bin/sleep","exe_state":"ok","args":["sleep","1"],"uid":0,"#,
                r#""user":"root","auid":null,"ppid":1,"cgroup":"/","container":null,"unit":null,"#,
                r#""kernel":false,"ancestors":[{"pid":1,"key":"1@0","comm":"init","exe":null}]}"#
            )
        );
    }

    #[test]
    fn boot_clock_tells_the_time() {
        let clock = BootClock::now().unwrap();
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
        let since_boot = u64::try_from(now.tv_sec()).unwrap() * 1_000_000_000;
        let told = clock.time(ns(since_boot)).unwrap();
        assert!(Timestamp::now().duration_since(told).as_secs().abs() < 3);
    }

    #[test]
    fn root_has_a_name() {
        assert_eq!(Users::default().name(0).as_deref(), Some("root"));
    }
}
