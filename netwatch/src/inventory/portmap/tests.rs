//! Portmappers of every kind, on real sockets of the loopback interface.

use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use proptest::prelude::*;

use super::*;

/// Longer than any exchange here takes.
const LONG: Duration = Duration::from_secs(60);

/// For portmappers that never answer.
const SHORT: Duration = Duration::from_millis(300);

const NFS: Mapping = Mapping { program: 100_003, version: 4, proto: Proto::Tcp, port: 2049 };

/// As [`dump`], for a portmapper at another address.
fn dump_from(address: SocketAddr, timeout: Duration) -> Result<Vec<Mapping>, PortmapError> {
    let deadline = Deadline::new(timeout);
    match by_tcp(address, deadline) {
        Err(PortmapError::Nothing) => by_udp(address, deadline),
        answer => answer,
    }
}

/// A portmapper that accepts one connection, reads the call, and runs `answer` with its xid.
fn portmapper(answer: impl FnOnce(TcpStream, u32) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut call = [0; 44];
        stream.read_exact(&mut call).unwrap();
        let word = |at: usize| u32::from_be_bytes(call[at..at + 4].try_into().unwrap());
        let words: Vec<u32> = (0..44).step_by(4).map(word).collect();
        assert_eq!(words[0], 1 << 31 | 40);
        assert_eq!(words[2..], [0, 2, 100_000, 2, 4, 0, 0, 0, 0]);
        answer(stream, words[1]);
    });
    (address, server)
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The reply up to the beginning of the list.
fn accepted(xid: u32) -> Vec<u32> {
    vec![xid, 1, 0, 0, 0, 0]
}

fn good(xid: u32) -> Vec<u8> {
    bytes(&[accepted(xid), vec![1, 100_003, 4, 6, 2049, 0]].concat())
}

fn fragment(last: bool, content: &[u8]) -> Vec<u8> {
    let mark = u32::from(last) << 31 | u32::try_from(content.len()).unwrap();
    [&mark.to_be_bytes(), content].concat()
}

/// The error for a portmapper that answers with these bytes and closes.
fn reported(answer: impl FnOnce(u32) -> Vec<u8> + Send + 'static) -> Result<Vec<Mapping>, String> {
    let (address, server) = portmapper(move |mut stream, xid| {
        // The client may close before it has read everything.
        let _ = stream.write_all(&answer(xid));
    });
    let reported = dump_from(address, LONG).map_err(|error| error.to_string());
    server.join().unwrap();
    reported
}

/// The same for one message in one fragment.
fn answer_of(message: impl FnOnce(u32) -> Vec<u32> + Send + 'static) -> Result<Vec<Mapping>, String> {
    reported(|xid| fragment(true, &bytes(&message(xid))))
}

fn nonsense(why: &str) -> Result<Vec<Mapping>, String> {
    Err(format!("invalid answer from the portmapper: {why}"))
}

fn refused(why: &str) -> Result<Vec<Mapping>, String> {
    Err(format!("the portmapper rejected the query: {why}"))
}

#[test]
fn a_good_answer() {
    assert_eq!(reported(|xid| fragment(true, &good(xid))), Ok(vec![NFS]));
    assert_eq!(answer_of(|xid| [accepted(xid), vec![0]].concat()), Ok(vec![]));
    // A verifier of five bytes, and what follows the list is ignored.
    let list = vec![1, 1, 1, 6, 65536, 1, 2, 1, 132, 80, 1, 3, 1, 17, 53, 0];
    let dns = Mapping { program: 3, version: 1, proto: Proto::Udp, port: 53 };
    assert_eq!(answer_of(|xid| [vec![xid, 1, 0, 7, 5, 1, 2, 0], list].concat()), Ok(vec![dns]));
}

#[test]
fn long_verifier_is_not_read() {
    let verified = |length: u32| {
        move |xid| [vec![xid, 1, 0, 7, length], vec![0; length.div_ceil(4) as usize], vec![0, 0]].concat()
    };
    assert_eq!(answer_of(verified(400)), Ok(vec![]));
    assert_eq!(answer_of(verified(401)), nonsense("verifier too long"));
}

#[test]
fn fragments_are_put_together() {
    let each = |xid| {
        let message = good(xid);
        let mut sent: Vec<u8> = message.iter().flat_map(|byte| fragment(false, &[*byte])).collect();
        sent.extend(fragment(true, &[]));
        sent
    };
    assert_eq!(reported(each), Ok(vec![NFS]));
}

#[test]
fn endless_answer_is_cut_off() {
    let too_many = "more than 4096 entries";
    assert_eq!(answer_of(|xid| [accepted(xid), [1, 1, 1, 6, 1].repeat(5000)].concat()), nonsense(too_many));
    let most = |xid| [accepted(xid), [1, 1, 1, 6, 1].repeat(4096), vec![0]].concat();
    assert_eq!(answer_of(most).map(|mappings| mappings.len()), Ok(4096));

    let too_long = nonsense("longer than 1 MiB");
    assert_eq!(reported(|_| fragment(false, &[0; 1000]).repeat(1100)), too_long);
    assert_eq!(reported(|_| fragment(false, &[]).repeat(300_000)), too_long);
    // 4 GiB, and 2 GiB as a last fragment.
    assert_eq!(reported(|_| vec![0xff; 8]), too_long);
    assert_eq!(reported(|_| vec![0x7f, 0xff, 0xff, 0xff]), too_long);
}

#[test]
fn truncated_answer_is_reported() {
    let cut = nonsense("truncated");
    assert_eq!(reported(|_| vec![]), cut);
    assert_eq!(reported(|_| vec![0x80, 0]), cut);
    assert_eq!(reported(|xid| fragment(true, &good(xid))[..40].to_vec()), cut);
    assert_eq!(reported(|xid| fragment(false, &good(xid))), cut);
    let short = nonsense("too short");
    assert_eq!(answer_of(|_| vec![]), short);
    assert_eq!(answer_of(|xid| vec![xid, 1, 0, 0, 0]), short);
    assert_eq!(answer_of(|xid| [accepted(xid), vec![1, 1, 1, 6]].concat()), short);
}

#[test]
fn invalid_answer_is_reported() {
    assert_eq!(reported(|_| b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), nonsense("longer than 1 MiB"));
    assert_eq!(
        answer_of(|xid| vec![xid.wrapping_add(1), 1, 0, 0, 0, 0, 0]),
        nonsense("reply to another call")
    );
    assert_eq!(answer_of(|xid| vec![xid, 0, 2, 100_000]), nonsense("not a reply"));
    assert_eq!(answer_of(|xid| vec![xid, 1, 2]), nonsense("unknown reply_stat"));
    assert_eq!(answer_of(|xid| vec![xid, 1, 0, 0, u32::MAX]), nonsense("verifier too long"));
    assert_eq!(answer_of(|xid| vec![xid, 1, 0, 0, 0, 9]), nonsense("unknown accept_stat"));
    assert_eq!(answer_of(|xid| [accepted(xid), vec![2]].concat()), nonsense("malformed list"));
    assert_eq!(answer_of(|xid| [accepted(xid), vec![0, 0]].concat()), nonsense("trailing bytes"));
    assert_eq!(answer_of(|xid| vec![xid, 1, 1, 5]), nonsense("unknown reject_stat"));
}

#[test]
fn refusal_is_reported() {
    assert_eq!(answer_of(|xid| vec![xid, 1, 1, 0, 2, 2]), refused("RPC version 2 is not supported"));
    assert_eq!(answer_of(|xid| vec![xid, 1, 1, 1, 1]), refused("authentication required"));
    let mismatch = "version 2 of the portmapper protocol is not supported";
    assert_eq!(answer_of(|xid| vec![xid, 1, 0, 0, 0, 2, 3, 4]), refused(mismatch));
    assert_eq!(answer_of(|xid| vec![xid, 1, 0, 0, 0, 1]), refused("no portmapper program"));
    assert_eq!(answer_of(|xid| vec![xid, 1, 0, 0, 0, 5]), refused("system error"));
}

#[test]
fn the_time_is_for_the_whole_exchange() {
    let silent = |error: Result<_, PortmapError>| matches!(error, Err(PortmapError::Silent(SHORT)));
    // The kernel accepts, and nothing is sent.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert!(silent(dump_from(listener.local_addr().unwrap(), SHORT)));

    // A byte now and then, until the client closes.
    let (address, server) = portmapper(|mut stream, _| {
        stream.set_nodelay(true).unwrap();
        let drip = fragment(false, &[0]);
        while drip.iter().all(|byte| stream.write_all(&[*byte]).is_ok()) {
            thread::yield_now();
            if stream.peer_addr().is_err() {
                break;
            }
            thread::park_timeout(Duration::from_millis(5));
        }
    });
    let began = Instant::now();
    assert!(silent(dump_from(address, SHORT)));
    assert!(began.elapsed() < LONG);
    server.join().unwrap();

    let text = PortmapError::Silent(Duration::from_secs(2)).to_string();
    assert_eq!(text, "the portmapper did not answer within 2 s");
    assert!(matches!(dump_from(address, Duration::ZERO), Err(PortmapError::Silent(_))));
}

#[test]
fn nothing_listens() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(matches!(dump_from(address, LONG), Err(PortmapError::Nothing)));
}

#[test]
fn datagrams_are_taken_where_there_is_no_stream() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut call = [0; 64];
        let (length, from) = socket.recv_from(&mut call).unwrap();
        assert_eq!(length, 40);
        let xid = u32::from_be_bytes(call[..4].try_into().unwrap());
        // A reply to another call, garbage, an empty one, and then the answer.
        for message in [good(xid.wrapping_add(1)), vec![7; 3], vec![], good(xid)] {
            socket.send_to(&message, from).unwrap();
        }
    });
    assert_eq!(dump_from(address, LONG).unwrap(), [NFS]);
    server.join().unwrap();
}

proptest! {
    #[test]
    fn nothing_panics(message in prop::collection::vec(any::<u8>(), 0..200), xid: u32) {
        let _ = reply::answers(&message, xid);
        let _ = reply::mappings(&message, xid);
    }

    /// Words that occur in replies get further than noise.
    #[test]
    fn any_words_give_an_answer(words in prop::collection::vec(0_u32..8, 0..60), begun: bool) {
        let start = if begun { accepted(1) } else { vec![1, 1] };
        if let Ok(mappings) = reply::mappings(&bytes(&[start, words].concat()), 1) {
            prop_assert!(mappings.len() <= 12);
        }
    }
}
