//! BPF iterators: programs that are not attached, and run on each object when the iterator is read.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use aya::Ebpf;
use aya::programs::ProgramFd;
use netwatch_common::Offsets;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::load::{Helpers, Prepared, global, load};
use super::plan::{self, Sockets};
use super::{Attacher, DEFAULT_UDP_FLOWS, KernelError, Options, attach};
use crate::model::{Lister, Listing};

/// The loaded programs. They are unloaded when this is dropped.
#[derive(Debug)]
pub struct Iterators {
    tcp: ProgramFd,
    udp: ProgramFd,
    files: ProgramFd,
    tasks: ProgramFd,
}

/// Reads one offset of the table.
type Member = fn(&Offsets) -> u32;

/// Members without which the iterators would report zeros.
const NEEDED: [(Member, &str); 10] = [
    (|offsets| offsets.sk_ack_backlog, "sock.sk_ack_backlog"),
    (|offsets| offsets.sk_max_ack_backlog, "sock.sk_max_ack_backlog"),
    (|offsets| offsets.sk_rmem_alloc, "sock.sk_backlog.rmem_alloc"),
    (|offsets| offsets.sk_wmem_alloc, "sock.sk_wmem_alloc"),
    (|offsets| offsets.tw_substate, "inet_timewait_sock.tw_substate"),
    (|offsets| offsets.tcp_rcv_nxt, "tcp_sock.rcv_nxt"),
    (|offsets| offsets.tcp_copied_seq, "tcp_sock.copied_seq"),
    (|offsets| offsets.tcp_write_seq, "tcp_sock.write_seq"),
    (|offsets| offsets.tcp_snd_una, "tcp_sock.snd_una"),
    (|offsets| offsets.udp_deficit, "udp_sock.forward_deficit"),
];

/// The first member that this kernel does not have.
pub(super) fn missing(offsets: &Offsets) -> Option<&'static str> {
    NEEDED.iter().find(|(of, _)| of(offsets) == Offsets::MISSING).map(|(_, name)| *name)
}

impl Iterators {
    /// The iterators of a loaded object.
    pub(super) fn of(ebpf: &Ebpf) -> Option<Self> {
        let program = |name| ebpf.program(name)?.fd().ok()?.try_clone().ok();
        Some(Self {
            tcp: program(plan::LIST_TCP)?,
            udp: program(plan::LIST_UDP)?,
            files: program(plan::LIST_FILES)?,
            tasks: program(plan::LIST_TASKS)?,
        })
    }

    /// Loads an object with only the iterators.
    ///
    /// # Errors
    /// If capabilities, BTF or a member are missing, or the kernel rejects the object.
    pub fn alone() -> Result<Self, KernelError> {
        attach::check_capabilities()?;
        let Prepared { offsets, btf, loader } = Prepared::read()?;
        if let Some(member) = missing(&offsets) {
            return Err(KernelError::Member(member));
        }
        let options = Options {
            ring_bytes: 1,
            all_states: false,
            udp_flows: DEFAULT_UDP_FLOWS,
            udp_idle: std::time::Duration::ZERO,
            forced: Vec::new(),
            sabotage: None,
        };
        let offsets = global(&offsets.to_members());
        let mut ebpf = load(loader, &options, &offsets, &btf, Helpers::probe(), Sockets::Helpers, true)?;
        let mut attacher = Attacher {
            ebpf: &mut ebpf,
            btf: &btf,
            sockets: Sockets::Helpers,
            no_helpers: None,
            no_iterators: None,
            leaves_out: true,
            forced: &[],
            attached: &mut std::collections::HashSet::new(),
        };
        let probes = plan::SNAPSHOT.rungs.iter().flat_map(|rung| rung.probes);
        for probe in probes {
            attacher.load(probe).map_err(KernelError::Load)?;
        }
        Self::of(&ebpf).ok_or_else(|| KernelError::Load("no iterators".into()))
    }
}

impl Lister for Iterators {
    fn list(&self, what: Listing) -> io::Result<Vec<u8>> {
        let program = match what {
            Listing::Tcp => &self.tcp,
            Listing::Udp => &self.udp,
            Listing::Files => &self.files,
            Listing::Tasks => &self.tasks,
        };
        // Lists the network namespace of the thread that opens it (kernel/bpf/bpf_iter.c, prepare_seq_file(), v6.12).
        let link = bpf(BPF_LINK_CREATE, &[program.as_fd().as_raw_fd().cast_unsigned(), 0, BPF_TRACE_ITER])?;
        let iterator = bpf(BPF_ITER_CREATE, &[link.as_raw_fd().cast_unsigned()])?;
        let mut bytes = Vec::new();
        loop {
            bytes.reserve(READ);
            match rustix::io::read(&iterator, spare_capacity(&mut bytes)) {
                Ok(0) => return Ok(bytes),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Bytes per read; more than the kernel returns at once, which is eight pages (kernel/bpf/bpf_iter.c, bpf_seq_read(),
/// v6.12). Each read resumes by counting within a hash bucket (net/ipv4/tcp_ipv4.c, tcp_seek_last_pos(), v6.12), so
/// sockets may be missed or listed twice if the bucket changed meanwhile. Large reads make that rare; `read_to_end`
/// would begin with 32 bytes.
const READ: usize = 64 << 10;

/// Commands and an attach type of `include/uapi/linux/bpf.h`. aya consumes the link when it creates an iterator from
/// it; here each snapshot creates its own, in any thread.
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// Size of the attributes in words; unused ones are zero.
const ATTR_WORDS: usize = 16;

fn bpf(command: libc::c_long, words: &[u32]) -> io::Result<OwnedFd> {
    let mut attr = [0_u32; ATTR_WORDS];
    for (slot, word) in attr.iter_mut().zip(words) {
        *slot = *word;
    }
    // SAFETY: the kernel reads `attr`, whose size is passed, and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(&attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and not owned by anything else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
