//! Facts about the host that the tracker does not know: stages between a source and the filter. Each stage completes
//! the events of a batch in place; subscribers and `output` then read no files and ask no services.

mod devices;
mod executables;
mod services;
mod users;

pub use devices::Devices;
pub use executables::Executables;
pub use services::{ServiceNames, service_of};
pub use users::Users;

use crate::stream::Batch;

/// One kind of fact.
pub trait Stage: Send {
    /// Completes the items of a batch.
    fn enrich(&mut self, batch: &mut Batch);
}

/// The stages of the live event stream, in their order.
#[must_use]
pub fn live() -> Vec<Box<dyn Stage>> {
    vec![
        Box::new(Executables::default()),
        Box::new(Users::of_host()),
        Box::new(ServiceNames),
        Box::new(Devices::default()),
    ]
}

/// The stages for records read from a store: the status of executables is part of the record.
#[must_use]
pub fn recorded() -> Vec<Box<dyn Stage>> {
    vec![Box::new(Users::of_host()), Box::new(ServiceNames)]
}
