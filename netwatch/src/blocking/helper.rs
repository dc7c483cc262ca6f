//! The helper: answers questions, each on a thread, until netwatch closes the socket.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::unistd::{Uid, User};
use rustix::fs::ResolveFlags;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::{Place, look_up};
use super::message::{Answer, LONGEST, Packet, Question};
use crate::limits;

/// What answers a question.
pub(super) type Host = Arc<dyn Fn(&Question) -> Answer + Send + Sync>;

/// Threads that wait for a question or work on one. Every question that netwatch may leave unanswered occupies one, and
/// the callers that wait need others.
const MOST_THREADS: usize = limits::MOST_STUCK + 8;

struct Threads {
    socket: OwnedFd,
    host: Host,
    all: AtomicUsize,
    busy: AtomicUsize,
}

/// Answers questions until the other end of the socket is closed.
pub(super) fn serve(socket: OwnedFd, host: Host) {
    work(&Arc::new(Threads { socket, host, all: AtomicUsize::new(1), busy: AtomicUsize::new(0) }));
}

/// All threads receive from the one socket, so a question is always taken by a thread that does nothing else.
fn work(threads: &Arc<Threads>) {
    while let Some(Packet { id, body }) = receive::<Packet<Question>>(&threads.socket) {
        let busy = threads.busy.fetch_add(1, Ordering::SeqCst) + 1;
        let all = threads.all.load(Ordering::SeqCst);
        if busy >= all && all < MOST_THREADS {
            start(threads);
        }
        let answer = (threads.host)(&body);
        threads.busy.fetch_sub(1, Ordering::SeqCst);
        transmit(&threads.socket, &Packet { id, body: answer });
    }
}

fn start(threads: &Arc<Threads>) {
    threads.all.fetch_add(1, Ordering::SeqCst);
    let own = threads.clone();
    let thread = std::thread::Builder::new().name("netwatch-host".into());
    if thread.spawn(move || work(&own)).is_err() {
        threads.all.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Asks the host, for as long as it takes.
pub(super) fn answer(question: &Question) -> Answer {
    match question {
        Question::Stat { root_of, path } => {
            let place = Place { root_of: *root_of, path: Path::new(path) };
            Answer::Stat(look_up(place, ResolveFlags::empty()).map_err(|error| error.raw_os_error()))
        }
        Question::RealPath(path) => Answer::RealPath(std::fs::canonicalize(path).ok().map(Into::into)),
        Question::UserName(uid) => {
            let user = User::from_uid(Uid::from_raw(*uid)).ok().flatten();
            Answer::UserName(user.map(|user| user.name))
        }
    }
}

/// The next packet; `None` if the other end is closed.
pub(super) fn receive<T: DeserializeOwned>(socket: &OwnedFd) -> Option<T> {
    let mut buffer = vec![0; LONGEST];
    loop {
        match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => return None,
            Ok((length, _)) => {
                // The other end is netwatch; anything else is a packet that was cut.
                if let Some(Ok(packet)) = buffer.get(..length).map(serde_json::from_slice) {
                    return Some(packet);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Sends a packet without waiting; false if it could not be sent.
pub(super) fn transmit(socket: &OwnedFd, packet: &impl Serialize) -> bool {
    let Ok(bytes) = serde_json::to_vec(packet) else { return false };
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    bytes.len() <= LONGEST && send(socket, &bytes, flags).is_ok_and(|sent| sent == bytes.len())
}
