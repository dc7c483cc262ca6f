//! The state of a run.

use anyhow::{Result, bail};

use super::complain;
use crate::agent::SelfTest;
use crate::bus::Depth;

/// What the engine reports at each tick.
#[derive(Debug)]
pub struct Vitals {
    /// Number of records that were read from the ring.
    pub records: u64,
    /// The queue of each subscriber.
    pub queues: Vec<Depth>,
}

/// Reports a self-test that did not pass.
pub(super) fn report_self_test(self_test: &SelfTest) -> Result<()> {
    match self_test {
        SelfTest::Passed(_) => {}
        SelfTest::Missing(missing) => complain(&format!(
            "self-test failed: the probes are attached, but these records of a test connection did not arrive: {}; \
             run `netwatch doctor`",
            missing.join(", ")
        )),
        // If fields of a known connection are misread, no record can be trusted.
        SelfTest::Misread(wrong) => bail!(
            "self-test failed: the kernel side misreads kernel structures, so no record can be trusted: {}; please \
             report this with the kernel version",
            wrong.join(", ")
        ),
        SelfTest::NotDone(why) => {
            complain(&format!("the self-test could not be run (is loopback up?): {why}"));
        }
    }
    Ok(())
}
