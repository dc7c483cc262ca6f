//! The records that the kernel side would send for connections between processes of one host.

use netwatch_common::{Begin, COMM_LEN, Change, Exec, Exit, Fork, Header, Sock, Task, change_flags, kind};

/// Events per connection, both endpoints: two opens, an accept, two closes.
pub(crate) const EVENTS: u64 = 5;

/// Processes that connect in turn.
const CLIENTS: u32 = 200;

/// No process has such a pid (`include/linux/threads.h`, `PID_MAX_LIMIT`): `/proc` has none of them, on any host.
const PIDS: u32 = 1 << 22;

const SERVER: u32 = PIDS + 1;
const FIRST_CLIENT: u32 = PIDS + 2;

const LISTENER: u64 = 1;

/// `include/net/tcp_states.h`
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const LAST_ACK: u8 = 9;

/// The state of the script: next pid, connection and time.
pub(crate) struct Script {
    now: u64,
    /// Number of the last connection; its endpoints have twice that as cookie, and one more.
    connection: u64,
    next_pid: u32,
}

impl Default for Script {
    fn default() -> Self {
        Self { now: 1_000_000_000, connection: LISTENER, next_pid: FIRST_CLIENT }
    }
}

impl Script {
    /// Forks the processes, one of which listens.
    pub(crate) fn beginning(&mut self) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        self.begin_process(SERVER, &mut records);
        for _ in 0..CLIENTS {
            let pid = self.pid();
            self.begin_process(pid, &mut records);
        }
        let sock = Sock { cookie: LISTENER, inode: 7, remote: [0; 16], remote_port: 0, ..SERVER_END };
        records.push(self.begin(kind::LISTEN, sock, SERVER));
        records
    }

    /// Connections of these processes.
    pub(crate) fn connections(&mut self, count: u64) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        for client in (FIRST_CLIENT..FIRST_CLIENT + CLIENTS).cycle().take(count as usize) {
            self.connect(client, &mut records);
        }
        records
    }

    /// Processes that live for one connection each.
    pub(crate) fn processes(&mut self, count: u64) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        for _ in 0..count {
            let client = self.pid();
            self.begin_process(client, &mut records);
            self.connect(client, &mut records);
            let exit = Exit { header: self.header(kind::EXIT), start: start(client), tgid: client, code: 0 };
            records.push(bytes_of(&exit));
        }
        records
    }

    fn pid(&mut self) -> u32 {
        let pid = self.next_pid;
        self.next_pid += 1;
        pid
    }

    fn header(&mut self, kind: u16) -> Header {
        self.now += 1000;
        Header { kind, ts: self.now, ..Header::default() }
    }

    fn begin_process(&mut self, pid: u32, records: &mut Vec<Vec<u8>>) {
        let parent = if pid == SERVER { 1 } else { SERVER };
        let fork = Fork {
            header: self.header(kind::FORK),
            task: task(pid),
            parent_tgid: parent,
            parent_start: start(parent),
            ..Fork::default()
        };
        let (path, args) = (b"curl\0bin\0usr\0", b"curl\0-s\0http://127.0.0.1:6000/\0");
        let exec = Exec {
            header: self.header(kind::EXEC),
            task: task(pid),
            nlink: 1,
            ino: 17,
            path_len: path.len() as u16,
            args_len: args.len() as u16,
            ..Exec::default()
        };
        records.push(bytes_of(&fork));
        records.push([&bytes_of(&exec)[..], path, args].concat());
    }

    fn connect(&mut self, client: u32, records: &mut Vec<Vec<u8>>) {
        self.connection += 1;
        let n = self.connection;
        let port = 32_768 + (n % 28_000) as u16;
        let here = Sock { cookie: 2 * n, inode: 10 * n, local_port: port, ..CLIENT_END };
        let there = Sock { cookie: 2 * n + 1, remote_port: port, ..SERVER_END };
        let accepted = Sock { inode: 10 * n + 1, ..there };

        let connect = self.begin(kind::CONNECT, Sock { local_port: 0, ..here }, client);
        let connected = Change {
            began: self.now,
            owner_start: start(client),
            owner_tgid: client,
            owner_tid: client,
            flags: change_flags::CONNECTED,
            ..Change::default()
        };
        let child = Change {
            listener: LISTENER,
            began: self.now,
            owner_start: start(SERVER),
            owner_tgid: SERVER,
            owner_tid: SERVER,
            flags: change_flags::CHILD,
            ..Change::default()
        };
        let over =
            |change: Change, fin| Change { sent: 80, received: 2000, flags: change.flags | fin, ..change };
        records.extend([
            connect,
            self.change(here, (SYN_SENT, ESTABLISHED), connected),
            self.change(there, (SYN_RECV, ESTABLISHED), child),
            self.begin(kind::ACCEPT, accepted, SERVER),
            self.change(here, (FIN_WAIT2, CLOSE), over(connected, change_flags::FIN_LOCAL)),
            self.change(accepted, (LAST_ACK, CLOSE), over(child, change_flags::FIN_REMOTE)),
        ]);
    }

    fn begin(&mut self, kind: u16, sock: Sock, pid: u32) -> Vec<u8> {
        bytes_of(&Begin { header: self.header(kind), sock, task: task(pid), ..Begin::default() })
    }

    fn change(&mut self, sock: Sock, (old, new): (u8, u8), change: Change) -> Vec<u8> {
        bytes_of(&Change { header: self.header(kind::CHANGE), sock, old, new, ..change })
    }
}

const LOOPBACK: [u8; 16] = [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Without its own port.
const CLIENT_END: Sock = Sock {
    cookie: 0,
    inode: 0,
    netns: 1,
    family: 2,
    local_port: 0,
    remote_port: 6000,
    protocol: 6,
    flags: 0,
    device: 0,
    local: LOOPBACK,
    remote: LOOPBACK,
};

/// Without the client's port.
const SERVER_END: Sock = Sock { local_port: 6000, remote_port: 0, ..CLIENT_END };

/// Nanoseconds since boot.
fn start(pid: u32) -> u64 {
    u64::from(pid) * 10_000_000
}

fn task(pid: u32) -> Task {
    let mut comm = [0; COMM_LEN];
    let name = if pid == SERVER { "redis-server" } else { "curl" };
    comm[..name.len()].copy_from_slice(name.as_bytes());
    let ppid = if pid == SERVER { 1 } else { SERVER };
    Task {
        start: start(pid),
        tgid: pid,
        tid: pid,
        ppid,
        auid: u32::MAX,
        comm,
        thread: comm,
        ..Task::default()
    }
}

/// As the kernel side writes it.
fn bytes_of<T: Copy>(record: &T) -> Vec<u8> {
    // SAFETY: the contract's types are integers and byte arrays without hidden padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }.to_vec()
}
