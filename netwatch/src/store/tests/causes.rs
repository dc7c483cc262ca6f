//! Causes that came by messages, and streams of processes.

use super::*;
use crate::model::{Cookie, Stream, StreamKind, Way};
use crate::process::{Birth, Cause, Message};

fn message(writer: &Arc<Process>, at: u64, way: Way) -> Message {
    let path = (way == Way::Unix).then(|| "/run/php.sock".into());
    Message { writer: writer.clone(), at: ns(at), way, inode: 1 << 40, path }
}

#[test]
fn messages_and_streams_come_back() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    let [nginx, bus] = [10, 20].map(|pid| crate::process::tests::process(pid, None));
    let cause = Cause::new(Cookie::new(77), vec![message(&nginx, 5, Way::Unix), message(&bus, 6, Way::Pipe)]);
    let mut php = Process::clone(&crate::process::tests::process(30, Some(&bus)));
    php.birth = Some(Birth { at: ns(17), cause: cause.clone() });
    php.stdio = [None, Cookie::new(9), None];
    let stream = |kind, id, at_parent| Some(Stream { kind, id, at_parent });
    php.streams = [stream(StreamKind::Pipe, 123, true), None, stream(StreamKind::Terminal, 136 << 20, false)];
    let php = Arc::new(php);
    let mut open = story(5, 443).remove(0);
    open.endpoint.cause = cause.clone();
    open.endpoint.process = Some(Actor::leader(php.clone()));
    write(&mut writer, &[Entry::Process(php.clone(), STATUS), item(open)]);

    let reader = place.reader();
    let same = |read: &Cause| {
        assert_eq!(read.socket, Cookie::new(77));
        let messages = |cause: &Cause| {
            let of = |message: &Message| {
                (message.writer.key, message.at, message.way, message.inode, message.path.clone())
            };
            cause.messages().iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(messages(read), messages(&cause));
    };
    let states = reader.processes("0123abcd", php.key).unwrap();
    let read = &states.first().unwrap().process;
    same(&read.birth.as_ref().unwrap().cause);
    assert_eq!((read.stdio, read.streams), (php.stdio, php.streams));
    let found = reader.connections(&Query::default()).unwrap();
    same(&found.first().unwrap().events.last().unwrap().endpoint.cause);
    let checked = place.verified();
    assert_eq!((checked.broken, checked.schema, checked.index), (None, None, None));
}
