//! The helper: answers questions, each on a thread, until netwatch closes the socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::unistd::{Uid, User};
use rustix::fs::ResolveFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::{Place, look_up, of_process, open_namespace};
use super::message::{Answer, Body, LONGEST, Opened, Packet, Question};
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
    while let Some(Packet { id, body }) = receive::<Question>(&threads.socket) {
        let busy = threads.busy.fetch_add(1, Ordering::SeqCst) + 1;
        let all = threads.all.load(Ordering::SeqCst);
        if busy >= all && all < MOST_THREADS {
            start(threads);
        }
        let answer = (threads.host)(&body);
        threads.busy.fetch_sub(1, Ordering::SeqCst);
        transmit(&threads.socket, Packet { id, body: answer });
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
        Question::OfProcess { pid, fd } => {
            Answer::Stat(of_process(*pid, *fd).map_err(|error| error.raw_os_error()))
        }
        Question::RealPath(path) => Answer::RealPath(std::fs::canonicalize(path).ok().map(Into::into)),
        Question::UserName(uid) => {
            let user = User::from_uid(Uid::from_raw(*uid)).ok().flatten();
            Answer::UserName(user.map(|user| user.name))
        }
        Question::Namespace { path, inode } => {
            let file = open_namespace(Path::new(path), *inode);
            let opened = file.map(|file| Opened { file: Some(file) });
            Answer::Namespace(opened.map_err(|error| error.raw_os_error()))
        }
    }
}

/// The next packet; `None` if the other end is closed.
pub(super) fn receive<T: Body + DeserializeOwned>(socket: &OwnedFd) -> Option<Packet<T>> {
    let mut buffer = vec![0; LONGEST];
    loop {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut room);
        let received =
            recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut beside, RecvFlags::CMSG_CLOEXEC);
        match received.map(|received| received.bytes) {
            Ok(0) => return None,
            Ok(length) => {
                let file = beside.drain().find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut files) => files.next(),
                    _ => None,
                });
                // The other end is netwatch; anything else is a packet that was cut.
                if let Some(Ok(mut packet)) = buffer.get(..length).map(serde_json::from_slice::<Packet<T>>) {
                    if let Some(opened) = packet.body.file() {
                        opened.file = file;
                    }
                    return Some(packet);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Sends a packet without waiting; false if it could not be sent.
pub(super) fn transmit<T: Body + Serialize>(socket: &OwnedFd, mut packet: Packet<T>) -> bool {
    let Ok(bytes) = serde_json::to_vec(&packet) else { return false };
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    let files = packet.body.file().and_then(|opened| opened.file.as_ref()).map(|file| [file.as_fd()]);
    if let Some(files) = &files {
        beside.push(SendAncillaryMessage::ScmRights(files));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    bytes.len() <= LONGEST
        && sendmsg(socket, &[IoSlice::new(&bytes)], &mut beside, flags).is_ok_and(|sent| sent == bytes.len())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    use std::sync::mpsc::channel;
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn threads_are_limited_and_further_questions_wait() {
        let (ours, theirs) = pair();
        let (begun, begins) = channel();
        let (go, gone) = channel::<()>();
        let gone = Mutex::new(gone);
        let begun = Mutex::new(begun);
        let host = move |_: &Question| {
            let _ = begun.lock().unwrap_or_else(PoisonError::into_inner).send(());
            let _ = gone.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Answer::UserName(None)
        };
        let server = std::thread::spawn(move || serve(theirs, Arc::new(host)));
        let all = MOST_THREADS as u64 + 1;
        (0..all).for_each(|id| assert!(transmit(&ours, Packet { id, body: Question::UserName(1) })));
        let long = Duration::from_secs(20);
        (0..MOST_THREADS).for_each(|_| begins.recv_timeout(long).unwrap());
        // All are busy: the last question is taken when one returns.
        assert!(begins.recv_timeout(Duration::from_millis(20)).is_err());
        go.send(()).unwrap();
        begins.recv_timeout(long).unwrap();
        drop(go);
        let mut answered: Vec<_> = (0..all).map(|_| receive::<Answer>(&ours).unwrap().id).collect();
        answered.sort_unstable();
        assert_eq!(answered, (0..all).collect::<Vec<_>>());
        drop(ours);
        server.join().unwrap();
    }

    #[test]
    fn longest_path_fits_and_what_is_longer_is_not_sent() {
        let (ours, theirs) = pair();
        let question = |length| Packet {
            id: u64::MAX,
            body: Question::Stat { root_of: Some(u32::MAX), path: OsString::from_vec(vec![0xff; length]) },
        };
        assert!(transmit(&ours, question(4096)));
        assert_eq!(receive::<Question>(&theirs).unwrap().body, question(4096).body);
        assert!(!transmit(&ours, question(LONGEST)));
    }

    #[test]
    fn files_of_a_process_are_found() {
        let pid = std::process::id();
        let exe = of_process(pid, None).unwrap();
        assert_eq!(answer(&Question::OfProcess { pid, fd: None }), Answer::Stat(Ok(exe)));
        assert!(
            matches!(answer(&Question::OfProcess { pid, fd: Some(0) }), Answer::Stat(Ok(open)) if open != exe)
        );
        assert!(matches!(answer(&Question::OfProcess { pid: 0, fd: None }), Answer::Stat(Err(_))));
    }

    #[test]
    fn only_the_namespace_that_is_asked_for_is_opened() {
        let path: OsString = "/proc/thread-self/ns/net".into();
        let inode = crate::snapshot::netns::own().unwrap().number().into();
        let opened = |question| matches!(answer(&question), Answer::Namespace(Ok(Opened { file: Some(_) })));
        assert!(opened(Question::Namespace { path: path.clone(), inode }));
        assert!(!opened(Question::Namespace { path, inode: inode + 1 }));
        assert!(!opened(Question::Namespace { path: "/dev/null".into(), inode }));
    }
}
