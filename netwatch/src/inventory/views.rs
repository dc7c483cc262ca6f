//! Takes and compares the views of the host.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use procfs::process::Process;

use super::hidden::Hidden;
use crate::audit::views::{Disagreement, Shown, View, What};
use crate::hash::Map;
use crate::model::{Holder, Holders, Lister, NetnsId, RawRow, SocketRow};
use crate::proc::{self, Mounts};
use crate::snapshot::tables::Tables;
use crate::snapshot::{Mptcp, NetFiles, Note, Scope, Sockets, holders, net_files, processes, sockets};
use crate::{bounded, limits};

/// All views of the host, taken one after another.
pub(super) struct Views {
    pub(super) diag: Sockets,
    pub(super) iter: Option<Sockets>,
    pub(super) files: NetFiles,
    /// Descriptors by `/proc`, of sockets of all families.
    pub(super) by_proc: Holders,
    /// Descriptors by iterators, of network sockets.
    pub(super) by_iter: Option<Holders>,
    /// Why the iterators failed.
    pub(super) unlisted: Option<String>,
    pub(super) pids: HashSet<u32>,
    /// Processes over whose directories in `/proc` something is mounted.
    covered: Vec<u32>,
    /// See [`hides_processes`].
    pub(super) hides_processes: bool,
    /// All sockets, see [`Views::joined`].
    pub(super) rows: Vec<SocketRow>,
}

/// Time between two comparisons, in which transient differences disappear.
const BETWEEN: Duration = Duration::from_millis(60);

impl Views {
    /// `first`: the first comparison, not the second one.
    pub(super) fn take(lister: Option<&Arc<dyn Lister>>, hidden: &[Hidden], first: bool) -> Result<Self> {
        let mounts = Mounts::read();
        let covered = proc::find_covered(&mounts);
        let every = Scope::AllNetns(&mounts);
        let lister = lister.map(|lister| &**lister);
        let mut views = Self {
            diag: sockets(every, Mptcp::Whole, None)?,
            iter: lister.map(|lister| sockets(every, Mptcp::Whole, Some(lister))).transpose()?,
            files: net_files(&mounts)?,
            by_iter: None,
            unlisted: None,
            by_proc: holders::all(None)?,
            pids: processes::pids()?.into_iter().collect(),
            covered,
            hides_processes: hides_processes(),
            rows: Vec::new(),
        };
        match lister.map(holders::listed_by) {
            Some(Ok(held)) => views.by_iter = Some(held),
            Some(Err(error)) => {
                views.unlisted = Some(format!("cannot list descriptors by BPF iterators: {error}"));
            }
            None => {}
        }
        let hidden: Vec<_> = hidden.iter().filter(|hidden| first || !hidden.is_once()).collect();
        let shows = |view, row: &SocketRow| !hidden.iter().any(|hidden| hidden.hides_socket(view, row));
        views.files.rows.retain(|row| shows(View::NetFiles, row));
        views.diag.rows.retain(|row| shows(View::SockDiag, row));
        views.iter.iter_mut().for_each(|iter| iter.rows.retain(|row| shows(View::Iterators, row)));
        views.pids.retain(|pid| !hidden.iter().any(|hidden| hidden.hides_process(*pid)));
        views.rows = views.joined();
        Ok(views)
    }

    /// Sockets of the best view, and those that only others show.
    fn joined(&self) -> Vec<SocketRow> {
        let mut rows = self.best().rows.clone();
        let mut seen: HashSet<What> = rows.iter().filter_map(of_row).collect();
        let others = self.diag.rows.iter().chain(&self.files.rows);
        rows.extend(others.filter(|row| of_row(row).is_some_and(|what| seen.insert(what))).cloned());
        rows
    }

    /// The better of the views that have cookies.
    fn best(&self) -> &Sockets {
        self.iter.as_ref().unwrap_or(&self.diag)
    }

    pub(super) fn raw(&self) -> &[RawRow] {
        &self.files.raw
    }

    /// Descriptors from all views.
    pub(super) fn holders(&self, inode: u64) -> Vec<Holder> {
        let by_iter = self.by_iter.as_ref().map(|holders| holders.of(inode)).unwrap_or_default();
        let mut all: Vec<_> = by_iter.iter().chain(self.by_proc.of(inode)).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn port_ranges(&self) -> &Map<NetnsId, (u16, u16)> {
        &self.best().port_ranges
    }

    /// The descriptors of all processes could be read.
    pub(super) fn holders_seen(&self) -> bool {
        self.by_proc.refused() == 0
    }

    /// Notes about what could not be read, which is never a disagreement.
    pub(super) fn notes(&self) -> impl Iterator<Item = &Note> {
        let iter = self.iter.iter().flat_map(|iter| &iter.notes);
        self.diag.notes.iter().chain(iter).chain(&self.files.notes)
    }

    /// Namespaces that every view listed completely.
    pub(super) fn whole(&self) -> HashSet<NetnsId> {
        let noted: HashSet<NetnsId> = self.notes().filter_map(|note| note.netns).collect();
        let is_whole = |netns: &NetnsId| {
            !noted.contains(netns)
                && self.diag.port_ranges.contains_key(netns)
                && self
                    .iter
                    .as_ref()
                    .is_none_or(|iter| iter.port_ranges.contains_key(netns) && !iter.unlisted.contains(netns))
        };
        self.files.whole.iter().copied().filter(is_whole).collect()
    }

    /// Available views of sockets.
    pub(super) fn of_sockets(&self) -> Vec<View> {
        let mut views = View::OF_SOCKETS.to_vec();
        views.retain(|view| *view != View::Iterators || self.iter.is_some());
        views
    }

    /// Sockets of the namespaces that every view listed completely.
    fn sockets_shown(&self, is_meant: &dyn Fn(NetnsId) -> bool) -> Shown {
        let whole = self.whole();
        let seen = |netns: NetnsId| is_meant(netns) && whole.contains(&netns);
        let rows = |rows: &[SocketRow]| -> Vec<What> {
            rows.iter().filter(|row| !row.is_mptcp() && seen(row.netns)).filter_map(of_row).collect()
        };
        let mut shown = Shown::default();
        shown.add(View::SockDiag, rows(&self.diag.rows));
        if let Some(iter) = &self.iter {
            shown.add(View::Iterators, rows(&iter.rows));
        }
        shown.add(View::NetFiles, rows(&self.files.rows));
        shown
    }

    /// Processes that have network sockets open, and their descriptors.
    fn processes_shown(&self, is_meant: &dyn Fn(u64) -> bool) -> Shown {
        let mut shown = Shown::default();
        let Some(by_iter) = &self.by_iter else { return shown };
        if self.hides_processes {
            return shown;
        }
        shown.add(View::Iterators, []);
        shown.add(View::Processes, []);
        let by_proc = &self.by_proc;
        let held: HashSet<(u64, u32)> = by_iter
            .all()
            .chain(by_proc.all())
            .filter(|(inode, _)| is_meant(*inode))
            .map(|(inode, holder)| (inode, holder.pid))
            .collect();
        let mut tables = Tables::default();
        for (inode, pid) in held {
            let has = |holders: &Holders| holders.has(inode, pid);
            let is_refused = by_proc.was_refused(pid);
            // Its directory may be listed while something is mounted over it.
            let is_there = self.pids.contains(&pid) && (is_refused || by_proc.could_be_read(pid));
            if has(by_iter) {
                shown.add(View::Iterators, [What::Process { pid }]);
                if is_there {
                    shown.add(View::Processes, [What::Process { pid }]);
                }
            }
            if !is_there || is_refused {
                continue;
            }
            let what = What::Descriptor { pid, inode };
            if has(by_iter) {
                shown.add(View::Iterators, [what]);
            }
            if has(by_proc) || tables.have(pid, inode) == Some(true) {
                shown.add(View::Processes, [what]);
            }
        }
        shown
    }
}

/// Inode numbers of the sockets that any view currently shows.
///
/// # Errors
/// If sockets cannot be listed.
pub(super) fn inodes_now(lister: Option<&Arc<dyn Lister>>) -> Result<HashSet<u64>> {
    let mounts = Mounts::read();
    let every = Scope::AllNetns(&mounts);
    let mut rows = sockets(every, Mptcp::Whole, None)?.rows;
    if let Some(lister) = lister {
        rows.extend(sockets(every, Mptcp::Whole, Some(&**lister))?.rows);
    }
    rows.extend(net_files(&mounts)?.rows);
    Ok(rows.iter().map(|row| row.inode).collect())
}

/// Differences between the views that persist when the views are taken again, which is done only if there are any.
pub(super) fn compare(
    first: &Views,
    lister: Option<&Arc<dyn Lister>>,
    hidden: &[Hidden],
    only: Option<NetnsId>,
) -> Result<Vec<Disagreement>> {
    let in_netns = |netns: NetnsId| only.is_none_or(|only| netns == only);
    let shown = |views: &Views| {
        let inodes: HashSet<u64> = views
            .rows
            .iter()
            .filter(|row| in_netns(row.netns) && row.inode != 0)
            .map(|row| row.inode)
            .collect();
        (views.sockets_shown(&in_netns), views.processes_shown(&|inode| inodes.contains(&inode)))
    };
    let covered = first.covered.iter().map(|pid| Disagreement {
        what: What::Process { pid: *pid },
        shown_by: vec![View::OwnProc],
        hidden_by: vec![View::Processes],
        program: None,
    });
    let (sockets, processes) = shown(first);
    if sockets.differences().is_empty() && processes.differences().is_empty() {
        return Ok(covered.collect());
    }
    std::thread::sleep(BETWEEN);
    let (sockets_then, processes_then) = shown(&Views::take(lister, hidden, false)?);
    let mut standing = sockets.standing(&sockets_then);
    standing.extend(processes.standing(&processes_then));
    standing.extend(covered);
    Ok(standing)
}

/// `include/uapi/linux/capability.h`
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// Whether `/proc` is mounted with hidepid and netwatch lacks the privilege to see all processes; missing processes are
/// then no disagreement (fs/proc/base.c, has_pid_permissions(), v6.12).
fn hides_processes() -> bool {
    let status = Process::myself().and_then(|process| process.status());
    if status.is_ok_and(|status| status.capeff & CAP_SYS_PTRACE != 0) {
        return false;
    }
    let mounts = bounded::read("/proc/self/mounts", limits::MOUNTS_FILE).map(|file| file.bytes);
    let mounts = mounts.unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let hides = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/proc")
            && fields.nth(1).is_some_and(|options| {
                let how = options.split(',').find_map(|option| option.strip_prefix("hidepid="));
                how.is_some_and(|how| !matches!(how, "0" | "off"))
            })
    };
    mounts.lines().any(hides)
}

/// Sockets with a file; others are transient.
fn of_row(row: &SocketRow) -> Option<What> {
    let local = (row.local.ip, row.local.port);
    let what = What::Socket { netns: row.netns, proto: row.proto, inode: row.inode, local };
    (row.inode != 0).then_some(what)
}
