//! Loads the BPF object with the offsets of the running kernel.

use std::collections::HashSet;
use std::error::Error;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Btf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel};
use netwatch_common::{Knobs, Offsets};

use super::attach::Attacher;
use super::forced::Forced;
use super::offsets::Vmlinux;
use super::plan::{self, Sockets};
use super::{KernelError, Options, Sabotage, WAKE, chain, types};

/// The object that build.rs compiled, aligned for the ELF reader.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netwatch-ebpf"));

/// A smaller ring may fill up within [`WAKE`], so each record wakes the reader.
const SMALL_RING: u32 = 1 << 20;

/// What loading needs: offsets and BTF of the running kernel, and the loader.
pub(super) struct Prepared {
    pub(super) offsets: Offsets,
    /// The types that programs are attached to: see [`types::Layouts::extract`].
    pub(super) btf: Btf,
    /// The loader.
    pub(super) loader: EbpfLoader<'static>,
}

impl Prepared {
    pub(super) fn read() -> Result<Self, KernelError> {
        let no_btf = |error: &dyn Error| KernelError::NoBtf(error.to_string());
        // In a thread of its own: the loader parses the BTF of the kernel by itself, which takes as long as the rest.
        let loader = std::thread::spawn(EbpfLoader::new);
        let vmlinux = Vmlinux::open().map_err(|error| no_btf(&error))?;
        let found = types::find(&vmlinux.bytes, &plan::attached_to());
        let offsets = vmlinux.offsets(found.as_ref().map(|found| &found.structures))?;
        // All of the BTF if it has kinds of types that the extract does not support.
        let btf = found.as_ref().map_or(&vmlinux.bytes[..], |found| &found.extract);
        let btf = Btf::parse(btf, Endianness::default()).map_err(|error| no_btf(&error))?;
        Ok(Self { offsets, btf, loader: loader.join().unwrap_or_default() })
    }
}

/// Helpers that not every kernel has.
#[derive(Clone, Copy)]
pub(super) struct Helpers {
    typed_current: bool,
    pub(super) registers: bool,
    unix: bool,
}

impl Helpers {
    pub(super) fn probe() -> Self {
        let has = |program, helper| {
            // If this cannot be determined, do without; the coverage reports what is not seen.
            is_helper_supported(program, helper).inspect_err(|error| log::info!("{error}")).unwrap_or(false)
        };
        Self {
            typed_current: has(ProgramType::RawTracePoint, BpfHelper::BPF_FUNC_get_current_task_btf),
            registers: has(ProgramType::RawTracePoint, BpfHelper::BPF_FUNC_task_pt_regs),
            // Programs with types have it since the same version, but cannot be tried without a function
            // (kernel/trace/bpf_trace.c, tracing_prog_func_proto(), net/core/filter.c, bpf_sk_base_func_proto(), v6.12).
            unix: has(ProgramType::SocketFilter, BpfHelper::BPF_FUNC_skc_to_unix_sock),
        }
    }
}

/// Maps that are not used if only the iterators are loaded.
const IDLE_MAPS: [&str; 13] = [
    "NOTES_BY_ADDRESS",
    "PAIRS",
    "FLOWS",
    "REMOVED_FLOWS",
    "NOT_FOLLOWED_BY",
    "SENDING",
    "KNOWN_BY_ADDRESS",
    "USERS_BY_ADDRESS",
    "CALLS",
    "ABOUT",
    "ACCEPTED",
    "SCRATCH",
    "CALLED",
];

/// Loads the object for one of the two modes. `idle`: only for the iterators.
pub(super) fn load(
    loader: EbpfLoader<'static>,
    options: &Options,
    offsets: &[u8],
    btf: &Btf,
    helpers: Helpers,
    sockets: Sockets,
    idle: bool,
) -> Result<Ebpf, KernelError> {
    let knobs = Knobs {
        all_states: options.all_states.into(),
        socket_helpers: u32::from(sockets == Sockets::Helpers),
        typed_current: helpers.typed_current.into(),
        registers: helpers.registers.into(),
        names: u32::from(Forced::of(&options.forced, "names") != Some(None)),
        unix_helper: u32::from(helpers.unix && sockets == Sockets::Helpers),
        wake_ns: if options.ring_bytes < SMALL_RING { 0 } else { WAKE.as_nanos() as u32 },
    };
    let knobs = global(&knobs.to_members());
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| KernelError::Load(format!("{what}: {error}")))?;
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    // Shortens the lifetime, since it borrows local values below.
    let mut loader: EbpfLoader<'_> = loader;
    loader
        .btf(Some(btf))
        .override_global(Offsets::GLOBAL, offsets, true)
        .override_global(Knobs::GLOBAL, knobs.as_slice(), true)
        .map_max_entries("RECORDS", ring_size(options.ring_bytes))
        .map_max_entries("FLOWS", options.udp_flows)
        .map_max_entries("REMOVED_FLOWS", options.udp_flows)
        .map_max_entries("LOST", cpus)
        .map_max_entries("CAUGHT", cpus)
        .map_max_entries("UNBEGUN", cpus)
        .map_max_entries("NOT_FOLLOWED", cpus)
        .verifier_log_level(VerifierLogLevel::STATS);
    if sockets == Sockets::Helpers {
        loader.map_max_entries("KNOWN_BY_ADDRESS", 1).map_max_entries("USERS_BY_ADDRESS", 1);
    }
    if idle {
        for map in IDLE_MAPS {
            loader.map_max_entries(map, 1);
        }
    }
    if let Some((map, entries)) = options.sabotage.and_then(Sabotage::full) {
        loader.map_max_entries(map, entries);
    }
    loader.load(OBJECT).map_err(|error| KernelError::Load(chain(&error)))
}

/// Checks whether the kernel loads the programs of the job `state` with the socket helpers.
pub(super) fn takes_helpers(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), String> {
    let attached = &mut HashSet::new();
    let mut attacher = Attacher {
        ebpf,
        btf,
        sockets: Sockets::Helpers,
        no_helpers: None,
        no_iterators: None,
        leaves_out: true,
        forced: &[],
        attached,
    };
    plan::STATE_PROBES.iter().try_for_each(|probe| attacher.load(probe))
}

/// The kernel requires a power of two of at least a page (kernel/bpf/ringbuf.c, ringbuf_map_alloc(), v6.12).
fn ring_size(bytes: u32) -> u32 {
    bytes.clamp(4096, 1 << 30).next_power_of_two()
}

/// The bytes of a global from its fields in order.
pub(super) fn global(members: &[u32]) -> Vec<u8> {
    members.iter().flat_map(|member| member.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_a_power_of_two_of_at_least_a_page() {
        assert_eq!(ring_size(0), 4096);
        assert_eq!(ring_size(4097), 8192);
        assert_eq!(ring_size(u32::MAX), 1 << 30);
    }
}
