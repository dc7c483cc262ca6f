//! Causes that went from process to process: by messages, and over pipes and terminals.

use super::*;
use crate::model::{Stream, StreamKind, Way};
use crate::process::Message;

fn message(writer: &Arc<Process>, at: u64, path: Option<&str>) -> Message {
    Message { writer: writer.clone(), at: ns(at), way: Way::Unix, inode: 77, path: path.map(Into::into) }
}

/// A connection to `AWAY` by a process that had read these messages.
fn out(story: &mut Story, by: &Arc<Process>, socket: Option<u64>, messages: Vec<Message>) -> Life {
    let mut life = story.outbound(9, AWAY, 900, by, None);
    let mut open = life.last().clone();
    open.endpoint.cause = Cause::new(socket.and_then(Cookie::new), messages);
    story.0.lives.pop();
    life = story.life(vec![open]);
    life
}

/// A web server passed a request to another daemon, whose thread connected out.
#[test]
fn message_leads_to_the_client_of_its_writer() {
    let mut story = Story::new();
    let (nginx, php) = (daemon(), inside(20, &daemon(), 2, None));
    story.inbound(5, FAR, 100, None, &[&nginx]);
    let life = out(&mut story, &php, Some(5), vec![message(&nginx, 110, Some("/run/php.sock"))]);
    let trace = story.trace(&life);
    assert_eq!(from(&trace), remote(Confidence::Observed));
    assert_eq!(pids(&trace), [20, 10]);
    assert_eq!(trace.chain[1].why, "p20[20] read a message from p10[10] over /run/php.sock");
}

/// The child of the reader has the cause of its birth, and the parent is nearer to it.
#[test]
fn child_of_the_reader_leads_to_the_reader_first() {
    let mut story = Story::new();
    let (nginx, php) = (daemon(), inside(20, &daemon(), 2, None));
    story.inbound(5, FAR, 100, None, &[&nginx]);
    let cause = Cause::new(Cookie::new(5), vec![message(&nginx, 110, None)]);
    let shell = changed(&inside(21, &php, 120, None), |shell| {
        shell.birth = Some(Birth { at: ns(120), cause: cause.clone() });
    });
    let mut life = story.outbound(9, AWAY, 900, &shell, None);
    let mut open = life.last().clone();
    open.endpoint.cause = cause;
    life = story.life(vec![open]);
    let trace = story.trace(&life);
    assert_eq!(from(&trace), remote(Confidence::Observed));
    assert_eq!(pids(&trace), [21, 20, 10]);
}

/// What a client asked a daemon for has no connection, but the client has a parent.
#[test]
fn messages_without_a_connection_lead_to_the_first_writer() {
    let mut story = Story::new();
    let shell = inside(30, &daemon(), 3, None);
    let asker = inside(31, &shell, 4, None);
    let (bus, manager) = (inside(40, &daemon(), 2, None), inside(41, &daemon(), 2, None));
    story.inbound(5, FAR, 1, None, &[&daemon()]);
    let messages = vec![message(&asker, 100, Some("/run/bus")), message(&bus, 101, None)];
    let life = out(&mut story, &manager, None, messages);
    let trace = story.trace(&life);
    assert_eq!(pids(&trace), [41, 40, 31, 30, 10]);
    assert_eq!(from(&trace).0, OriginKind::Service);
}

fn fed(kind: StreamKind, parent: &Arc<Process>, streams: [bool; 3]) -> Arc<Process> {
    changed(&inside(50, parent, 200, None), |shell| {
        shell.streams = streams.map(|is| is.then_some(Stream { kind, id: 3, at_parent: true }));
    })
}

/// The program that connected to an intruder has the other end of the terminal of a shell.
#[test]
fn shell_on_a_terminal_leads_to_the_only_connection_of_its_holder() {
    let mut story = Story::new();
    let socat = inside(45, &daemon(), 150, None);
    let back = story.outbound(6, "203.0.113.1:4444", 160, &socat, None);
    let shell = fed(StreamKind::Terminal, &socat, [true; 3]);
    let life = story.outbound(9, AWAY, 900, &shell, None);
    let trace = story.trace(&life);
    let connections = trace.chain.iter().filter_map(|step| match &step.what {
        What::Connection(life) => Some(life.id()),
        _ => None,
    });
    assert_eq!(connections.collect::<Vec<_>>(), [back.id()]);
    assert_eq!(trace.origin.confidence, Confidence::Inferred);
    assert!(matches!(&trace.chain[1].what, What::Stream { kind: StreamKind::Terminal, .. }));

    // With two connections it is not known which one steers the shell.
    story.outbound(7, "203.0.113.2:4444", 161, &socat, None);
    let trace = story.trace(&life);
    assert!(trace.chain.iter().all(|step| !matches!(step.what, What::Connection(_))));
    assert_eq!(trace.origin.possible.len(), 2);
}

/// Output that goes to the parent is a tie only if the parent had just read something when it forked.
#[test]
fn output_to_the_parent_is_a_tie_if_the_parent_had_read() {
    for (cause, followed) in [(None, false), (Some(6), true)] {
        let mut story = Story::new();
        let python = inside(45, &daemon(), 150, None);
        story.outbound(6, "203.0.113.1:4444", 160, &python, None);
        let shell = changed(&fed(StreamKind::Pipe, &python, [false, true, true]), |shell| {
            shell.birth = Some(Birth { at: ns(200), cause: Cause::of_socket(cause.and_then(Cookie::new)) });
        });
        let life = story.outbound(9, AWAY, 900, &shell, None);
        let trace = story.trace(&life);
        let is_connection = |step: &Step| matches!(step.what, What::Connection(_));
        assert_eq!(trace.chain.iter().any(is_connection), followed);
    }
}

/// A worker that read a job from a queue acts for somebody, but the queue does not say for whom.
#[test]
fn answer_of_a_queue_is_possible_and_not_followed() {
    let mut story = Story::new();
    let worker = inside(45, &daemon(), 150, None);
    let queue = story.outbound(6, "10.0.0.9:6379", 160, &worker, None);
    let life = story.outbound(9, AWAY, 900, &worker, Some(6));
    let trace = story.trace(&life);
    assert_eq!(from(&trace).0, OriginKind::Service);
    assert_eq!(trace.origin.possible.iter().map(Life::id).collect::<Vec<_>>(), [queue.id()]);
}
