//! Options of the programs, which the agent sets before it loads them.

/// Read-only values. All but the last are switches, 0 or 1. The verifier sees constants and does not check code that is
/// switched off, so one object file also serves kernels that lack a helper.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// `--states`: send every state transition, not only those that begin or end a connection.
    pub all_states: u32,
    /// Tracing programs can use socket storage and generate cookies (since 5.12). Otherwise state is kept in a map by
    /// socket address, and other programs generate the cookies.
    pub socket_helpers: u32,
    /// `bpf_get_current_task_btf` is available (since 5.11): the verifier knows the type of the current task.
    pub typed_current: u32,
    /// `bpf_task_pt_regs` is available (since 5.15), which gives the system call that a task is in.
    pub registers: u32,
    /// `bpf_skc_to_unix_sock` is available (since 5.16), and with it the other end of a UNIX socket as a socket.
    pub unix_helper: u32,
    /// Names of hosts are looked for, so that it matters whether a network namespace has the number of an older one.
    pub names: u32,
    /// Minimum time between two wake-ups of the reader, in nanoseconds; it polls meanwhile. 0: a wake-up for every
    /// record.
    pub wake_ns: u32,
}

impl Knobs {
    /// Name of the global in the object file, which contains the wire version.
    pub const GLOBAL: &'static str = "KNOBS_V6";

    /// All off: the values in the object file, which the agent overrides.
    pub const ZERO: Self = Self {
        all_states: 0,
        socket_helpers: 0,
        typed_current: 0,
        registers: 0,
        unix_helper: 0,
        names: 0,
        wake_ns: 0,
    };

    /// The fields in order.
    #[must_use]
    pub const fn to_members(&self) -> [u32; 7] {
        [
            self.all_states,
            self.socket_helpers,
            self.typed_current,
            self.registers,
            self.unix_helper,
            self.names,
            self.wake_ns,
        ]
    }
}

const _: () = assert!(crate::WIRE_VERSION == 6, "Knobs::GLOBAL names the version");
const _: () = assert!(size_of::<Knobs>() == 28 && align_of::<Knobs>() == 4);
