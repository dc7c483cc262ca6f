//! The process object as it is printed: one shape for `list`, the events and everything after them.
//! Borrowed, so that printing an event copies no arguments and no tree.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::super::keys::{self, Key};
use crate::clock::BootClock;
use crate::model::{Arguments, ExeState, ProcessKey};
use crate::process::{Actor, ExeStatus, Process};
use crate::signs::{self, Sign};
use crate::where_it_runs;

/// A process, with the keys of [`keys::Process`].
#[derive(Clone, Debug)]
pub struct ProcessView<'a> {
    /// Thread group, as netwatch's own pid namespace numbers it.
    pub pid: u32,
    /// The thread that acted; the group's leader where no thread is known.
    pub tid: u32,
    /// Survives the reuse of a pid.
    pub key: ProcessKey,
    /// When it started; `null` where not known.
    pub start: Option<Timestamp>,
    /// Name of the thread-group leader.
    pub comm: &'a str,
    /// Name of the thread that acted, where it was another.
    pub thread: Option<&'a str>,
    /// See [`crate::model::Image::exe`].
    pub exe: Option<&'a str>,
    /// At the time of the event.
    pub exe_state: ExeState,
    /// As at exec, with what is missing.
    pub args: &'a Arguments,
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
    pub signs: Vec<Sign>,
    /// Nearest first.
    pub ancestors: Vec<AncestorView<'a>>,
}

/// An ancestor of a process, with the keys of [`keys::Ancestor`].
#[derive(Clone, Debug)]
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

impl<'a> ProcessView<'a> {
    /// The object of a process, with the status of its executable at the time of the event, the name of its user, and
    /// the clock by which its start becomes a time of day.
    #[must_use]
    pub fn new(actor: &'a Actor, status: ExeStatus, user: Option<Arc<str>>, clock: BootClock) -> Self {
        let process = &actor.process;
        let place = where_it_runs::of_cgroup(&process.cgroup);
        Self {
            pid: process.key.pid,
            tid: actor.tid(),
            key: process.key,
            start: clock.time(process.key.start),
            comm: &process.comm,
            thread: actor.thread().map(AsRef::as_ref),
            exe: process.image.exe.as_deref(),
            exe_state: status.state,
            args: &process.image.args,
            uid: process.uid,
            user,
            auid: process.auid,
            ppid: process.ppid,
            cgroup: &process.cgroup,
            container: place.container,
            unit: place.unit.map(Into::into),
            kernel: process.kernel,
            signs: signs::of_process(process, status).collect(),
            ancestors: process.ancestors().map(|ancestor| AncestorView::of(ancestor)).collect(),
        }
    }
}

impl Serialize for ProcessView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use keys::Process as P;
        let mut object = Fields(serializer.serialize_struct("Process", 21)?);
        object.put(P::Pid, &self.pid)?;
        object.put(P::Tid, &self.tid)?;
        object.put(P::Key, &self.key)?;
        object.put(P::Start, &self.start.map(NineDigits))?;
        object.put(P::Comm, self.comm)?;
        if let Some(thread) = self.thread {
            object.put(P::Thread, thread)?;
        }
        object.put(P::Exe, &self.exe)?;
        object.put(P::ExeState, &self.exe_state)?;
        object.put(P::Args, self.args)?;
        if let Some(cut) = self.args.cut() {
            object.put(P::ArgsTruncated, &true)?;
            if let Some(bytes) = cut.bytes {
                object.put(P::ArgsBytes, &bytes)?;
            }
        }
        object.put(P::Uid, &self.uid)?;
        object.put(P::User, &self.user)?;
        object.put(P::Auid, &self.auid)?;
        object.put(P::Ppid, &self.ppid)?;
        object.put(P::Cgroup, self.cgroup)?;
        object.put(P::Container, &self.container)?;
        object.put(P::Unit, &self.unit)?;
        object.put(P::Kernel, &self.kernel)?;
        if !self.signs.is_empty() {
            object.put(P::Signs, &self.signs)?;
        }
        object.put(P::Ancestors, &self.ancestors)?;
        object.0.end()
    }
}

impl<'a> AncestorView<'a> {
    /// Of a process.
    #[must_use]
    pub fn of(process: &'a Process) -> Self {
        Self {
            pid: process.key.pid,
            key: process.key,
            comm: &process.comm,
            exe: process.image.exe.as_deref(),
        }
    }
}

impl Serialize for AncestorView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use keys::Ancestor as A;
        let mut object = Fields(serializer.serialize_struct("Ancestor", 4)?);
        object.put(A::Pid, &self.pid)?;
        object.put(A::Key, &self.key)?;
        object.put(A::Comm, self.comm)?;
        object.put(A::Exe, &self.exe)?;
        object.0.end()
    }
}

/// RFC 3339 with nine digits, as `ts`, so that times sort as strings.
struct NineDigits(Timestamp);

impl Serialize for NineDigits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.9}", self.0))
    }
}

/// A serialiser of an object whose keys are those of one enum.
struct Fields<S>(S);

impl<S: SerializeStruct> Fields<S> {
    fn put<T: Serialize + ?Sized>(&mut self, key: impl Key, value: &T) -> Result<(), S::Error> {
        self.0.serialize_field(key.name(), value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::ns;

    #[test]
    fn keys_match_the_contract() {
        let args: Arguments = ["sleep", "1"].into_iter().collect();
        let view = ProcessView {
            pid: 4242,
            tid: 4242,
            key: ProcessKey::new(4242, ns(17)),
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
            ancestors: vec![AncestorView { pid: 1, key: ProcessKey::new(1, ns(0)), comm: "init", exe: None }],
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
        for (length, expected) in [
            (Some(9000), r#""args":["sh","…","end"],"args_truncated":true,"args_bytes":9000,"uid""#),
            (None, r#""args":["sh","…","end"],"args_truncated":true,"uid""#),
        ] {
            let args = Arguments::of_ends("sh\0…".as_bytes(), b"end\0", length);
            let line = serde_json::to_string(&ProcessView { args: &args, ..view.clone() }).unwrap();
            assert!(line.contains(expected), "{line}");
        }
    }
}
