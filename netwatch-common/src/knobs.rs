//! What the agent tells the programs before it loads them.

/// Read-only values, switches but for the last, each 0 or 1: the verifier sees constants and never looks at
/// what is switched off, so one object file serves kernels that lack a helper, too.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// `--states`: every transition is wanted, not only those that begin or end something.
    pub all_states: u32,
    /// Programs of the tracing types may keep storage with a socket and ask for its cookie (5.12). Where not,
    /// what is known lies in a table by the socket's address, and cookies are made by other programs.
    pub socket_helpers: u32,
    /// `bpf_get_current_task_btf` (5.11): the verifier knows what the current task is.
    pub typed_current: u32,
    /// `bpf_task_pt_regs` (5.15): the system call that a task is in can be told.
    pub registers: u32,
    /// The reader is woken for a record where it was not woken for so long, nanoseconds; it looks by itself
    /// meanwhile. 0: for every record.
    pub wake_ns: u32,
}

impl Knobs {
    /// Name of the global in the object file; the wire version is part of it.
    pub const GLOBAL: &'static str = "KNOBS_V1";

    /// All off: what stands in the object file until the agent overrides it.
    pub const ZERO: Self =
        Self { all_states: 0, socket_helpers: 0, typed_current: 0, registers: 0, wake_ns: 0 };

    /// The fields in their order.
    #[must_use]
    pub const fn to_members(&self) -> [u32; 5] {
        [self.all_states, self.socket_helpers, self.typed_current, self.registers, self.wake_ns]
    }
}

const _: () = assert!(crate::WIRE_VERSION == 1, "Knobs::GLOBAL names the version");
const _: () = assert!(size_of::<Knobs>() == 20 && align_of::<Knobs>() == 4);
