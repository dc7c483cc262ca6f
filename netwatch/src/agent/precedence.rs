//! Precedence during the start. Loading and checking the programs takes half a second of processor time: with 24 busy
//! programs on two processors, 16 s passed until netwatch was ready.

use rustix::process::{getpriority_process, setpriority_process};

/// Scheduling priority of the start.
const NICE: i32 = -10;

/// Raises the priority of the calling thread, and of those that it starts, until it is dropped. Without the privilege the
/// start takes as long as it takes.
pub(super) struct Precedence {
    before: Option<i32>,
}

impl Precedence {
    pub(super) fn take() -> Self {
        let before = getpriority_process(None).ok().filter(|before| *before > NICE);
        let raised = before.filter(|_| setpriority_process(None, NICE).is_ok());
        Self { before: raised }
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        if let Some(before) = self.before
            && let Err(error) = setpriority_process(None, before)
        {
            log::info!("cannot lower the scheduling priority again: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_is_as_before_afterwards() {
        let before = getpriority_process(None).unwrap();
        let precedence = Precedence::take();
        if precedence.before.is_some() {
            assert_eq!(getpriority_process(None).unwrap(), NICE);
        }
        drop(precedence);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
