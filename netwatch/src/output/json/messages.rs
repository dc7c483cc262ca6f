//! The messages by which the cause of a connection reached the process that began it.

use std::io;

use crate::clock::BootClock;
use crate::output::keys::{Event, Message as Keys};
use crate::output::object::Object;
use crate::process::Message;

/// Writes them, unless there are none.
pub(super) fn write(
    messages: &[Message],
    clock: BootClock,
    object: &mut Object<'_, Event>,
) -> io::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    object.array(Event::Messages, messages, |message, out| {
        let mut object = Object::begin(out);
        let written = clock.time(message.at).map(|time| format!("{time:.9}"));
        object.value(Keys::Ts, &written)?;
        object.word(Keys::Over, message.way.name());
        object.number(Keys::Inode, message.inode);
        object.option_text(Keys::Path, message.path.as_deref());
        object.value(Keys::Process, &message.writer.key)?;
        object.option_text(Keys::Comm, Some(&message.writer.comm));
        object.end();
        Ok(())
    })
}
