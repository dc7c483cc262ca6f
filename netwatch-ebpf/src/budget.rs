//! A budget of records: a number in advance, and some more each second.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;

/// What was taken so far. Two CPUs that take from the same budget at once may take one for two.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    /// Number of records.
    taken: u32,
    /// When some were last given back, in units of about a second.
    refilled: u32,
}

impl Budget {
    /// Nothing was taken.
    pub(crate) const WHOLE: Self = Self { taken: 0, refilled: 0 };

    /// Takes one record, if there is one. `most`: in advance; `refill`: what is given back each second.
    #[inline(always)]
    pub(crate) fn take(&mut self, most: u32, refill: u32) -> bool {
        if self.taken < most {
            self.taken += 1;
            return true;
        }
        // SAFETY: a helper without arguments.
        let now = (unsafe { bpf_ktime_get_boot_ns() } >> 30) as u32;
        if self.refilled == now {
            return false;
        }
        *self = Self { taken: most - refill + 1, refilled: now };
        true
    }
}
