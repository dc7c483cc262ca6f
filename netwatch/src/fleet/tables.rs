//! The tables on the server: one description, from which the statements of each dialect, the rows that are sent, and
//! the rows of a store that is read back are made. See docs/fleet.md.

use super::column::Kind::{Few, Int64, Ip, List, Text, Time, Tuple, Word};
use super::column::{Column, Kind, column, joined, u};
use crate::store::Words;

/// The version of the tables.
pub(super) const VERSION: u32 = 1;

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// What a row is, for the schema.
    pub about: &'static str,
    /// The table of the store whose rows it has, and how it is joined; empty for a table that is not from the store.
    pub store: &'static str,
    /// What follows `FROM` in the store.
    pub from: &'static str,
    /// Its columns after those that every table has.
    pub columns: &'static [Column],
    /// Columns with an index of values, where the server has such.
    pub indexed: &'static [&'static str],
}

/// The number of the row in the store, and its segment.
macro_rules! of_row {
    ($table:literal, $row:literal, $segment:literal) => {
        [
            column("row", Int64, $row).to($table, "id"),
            column("segment", Int64, $segment).to($table, "segment"),
        ]
    };
}

/// Columns that every table begins with, and which no store has: the host, by a hash of its machine id and by its name,
/// and the store, since a host may begin another one.
pub(super) const HOST: [(&str, Kind); 3] = [("host_id", Few), ("host", Few), ("store", u(64))];

const C: &str = "connection";

const ENDS: [Column; 66] = joined(
    of_row!("connection", "c.id", "c.segment"),
    [
        column("boot", Few, "s.boot"),
        column("cookie", u(64), "c.cookie").to(C, "cookie"),
        column("began", u(64), "c.began").to(C, "began"),
        column("ts", Time, "c.ts").to(C, "ts"),
        column("opened", Time, "s.clock + c.began"),
        column("events", Few, "c.events").to(C, "events"),
        column(
            "over",
            u(8),
            "c.events LIKE '%close+%' OR c.events LIKE '%fail+%' OR c.events LIKE '%unlisten+%'",
        ),
        column("tuple", Tuple, "NULL"),
        column("flow_cookie", u(64), "c.flow_cookie").null().to(C, "flow_cookie"),
        column("flow_began", u(64), "c.flow_began").null().to(C, "flow_began"),
        column("proto", Word(Words::Proto), "c.proto").to(C, "proto"),
        column("family", u(8), "c.family").null().to(C, "family"),
        column("mapped", u(8), "c.mapped").to(C, "mapped"),
        column("netns", u(64), "c.netns").to(C, "netns"),
        column("socket", u(64), "c.socket").null().to(C, "socket"),
        column("inode", u(64), "c.inode").to(C, "inode"),
        column("local_ip", Ip, "c.local_ip").to(C, "local_ip"),
        column("local_port", u(16), "c.local_port").to(C, "local_port"),
        column("remote_ip", Ip, "c.remote_ip").null().to(C, "remote_ip"),
        column("remote_port", u(16), "c.remote_port").null().to(C, "remote_port"),
        column("via", Word(Words::Via), "c.via").null().to(C, "via"),
        column("state", Word(Words::State), "c.state").to(C, "state"),
        column("side", Word(Words::Side), "c.side").to(C, "side"),
        column("basis", Word(Words::Basis), "c.basis").to(C, "basis"),
        column("confidence", Word(Words::Confidence), "c.confidence").to(C, "confidence"),
        column("originator", Int64, "c.originator").null().to(C, "originator"),
        column("cause", Int64, "c.cause").null().to(C, "cause"),
        column("process", Int64, "c.process").null().to(C, "process"),
        column("process_basis", Word(Words::ProcessBasis), "c.process_basis").null().to(C, "process_basis"),
        column("listener_cookie", u(64), "c.listener_cookie").null().to(C, "listener_cookie"),
        column("listener_began", u(64), "c.listener_began").null().to(C, "listener_began"),
        column("listener_process", Int64, "c.listener_process").null().to(C, "listener_process"),
        column("peer_cookie", u(64), "c.peer_cookie").null().to(C, "peer_cookie"),
        column("peer_began", u(64), "c.peer_began").null().to(C, "peer_began"),
        column("peer_process", Int64, "c.peer_process").null().to(C, "peer_process"),
        column("errno", Few, "c.errno").null().to(C, "errno"),
        column("handshake", u(64), "c.handshake").null().to(C, "handshake"),
        column("duration", u(64), "c.duration").null().to(C, "duration"),
        column("sent", u(64), "c.sent").null().to(C, "sent"),
        column("received", u(64), "c.received").null().to(C, "received"),
        column("closed_by", Word(Words::ClosedBy), "c.closed_by").null().to(C, "closed_by"),
        column("repaired", u(8), "c.repaired").to(C, "repaired"),
        column("signs", Few, "c.signs").null().to(C, "signs"),
        column("odd", Few, "c.odd").null().to(C, "odd"),
        column("nat", u(8), "c.nat").null().to(C, "nat"),
        column("nat_local_ip", Ip, "c.nat_local_ip").null().to(C, "nat_local_ip"),
        column("nat_local_port", u(16), "c.nat_local_port").null().to(C, "nat_local_port"),
        column("nat_remote_ip", Ip, "c.nat_remote_ip").null().to(C, "nat_remote_ip"),
        column("nat_remote_port", u(16), "c.nat_remote_port").null().to(C, "nat_remote_port"),
        column("interface", u(64), "c.interface").null().to(C, "interface"),
        column("device", Few, "c.device").null().to(C, "device"),
        column("remote_name", Int64, "c.remote_name").null().to(C, "remote_name"),
        column("local_name", Int64, "c.local_name").null().to(C, "local_name"),
        column("pid", u(32), "p.pid").null(),
        column("comm", Few, "p.comm").null(),
        column("exe", Few, "i.exe").null(),
        column("uid", u(32), "p.uid").null(),
        column("originator_pid", u(32), "o.pid").null(),
        column("originator_comm", Few, "o.comm").null(),
        column("originator_exe", Few, "j.exe").null(),
        column("listener_comm", Few, "l.comm").null(),
        column("listener_exe", Few, "k.exe").null(),
        column("remote_host", Few, "n.name").null(),
        column("local_host", Few, "m.name").null(),
    ],
);

const P: &str = "process";
const I: &str = "image";

const PROCESSES: [Column; 31] = joined(
    of_row!("process", "p.id", "p.segment"),
    [
        column("boot", Few, "s.boot"),
        column("ts", Time, "p.ts").to(P, "ts"),
        column("pid", u(32), "p.pid").to(P, "pid"),
        column("start", u(64), "p.start").to(P, "start"),
        column("tid", u(32), "p.tid").null().to(P, "tid"),
        column("thread", Few, "p.thread").null().to(P, "thread"),
        column("comm", Few, "p.comm").to(P, "comm"),
        column("uid", u(32), "p.uid").to(P, "uid"),
        column("auid", u(32), "p.auid").null().to(P, "auid"),
        column("ppid", u(32), "p.ppid").to(P, "ppid"),
        column("cgroup_id", u(64), "p.cgroup_id").to(P, "cgroup_id"),
        column("cgroup", Few, "p.cgroup").to(P, "cgroup"),
        column("kernel", u(8), "p.kernel").to(P, "kernel"),
        column("parent", Int64, "p.parent").null().to(P, "parent"),
        column("birth", u(64), "p.birth").null().to(P, "birth"),
        column("cause", Int64, "p.cause").null().to(P, "cause"),
        column("stdin", Int64, "p.stdin").null().to(P, "stdin"),
        column("stdout", Int64, "p.stdout").null().to(P, "stdout"),
        column("stderr", Int64, "p.stderr").null().to(P, "stderr"),
        column("exe_state", Few, "p.exe_state").null().to(P, "exe_state"),
        column("signs", Few, "p.signs").null().to(P, "signs"),
        column("image", Int64, "p.image").to(P, "image"),
        column("exe", Few, "i.exe").null().to(I, "exe"),
        column("exe_state_at_exec", Few, "i.exe_state").to(I, "exe_state"),
        column("dev", u(64), "i.dev").to(I, "dev"),
        column("ino", u(64), "i.ino").to(I, "ino"),
        column("mntns", u(64), "i.mntns").to(I, "mntns"),
        column("args", List, "i.args").to(I, "args"),
        column("parent_comm", Few, "q.comm").null(),
    ],
);

const M: &str = "message";

const MESSAGES: [Column; 10] = joined(
    of_row!("message", "m.id", "m.segment"),
    [
        column("ts", Time, "s.started"),
        column("before", Int64, "m.before").null().to(M, "before"),
        column("cause", Int64, "m.cause").null().to(M, "cause"),
        column("written", u(64), "m.written").to(M, "written"),
        column("way", Few, "m.way").to(M, "way"),
        column("inode", u(64), "m.inode").to(M, "inode"),
        column("path", Few, "m.path").null().to(M, "path"),
        column("writer", Int64, "m.writer").to(M, "writer"),
    ],
);

const N: &str = "host_name";

const NAMES: [Column; 8] = joined(
    of_row!("host_name", "n.id", "n.segment"),
    [
        column("ts", Time, "s.started"),
        column("name", Few, "n.name").to(N, "name"),
        column("basis", Few, "n.basis").to(N, "basis"),
        column("said", u(64), "n.said").to(N, "said"),
        column("candidates", u(32), "n.candidates").to(N, "candidates"),
        column("asker", Int64, "n.asker").null().to(N, "asker"),
    ],
);

const A: &str = "alert";

const ALERTS: [Column; 23] = joined(
    of_row!("alert", "a.id", "a.segment"),
    [
        column("ts", Time, "a.ts").to(A, "ts"),
        column("rule", Few, "a.rule").to(A, "rule"),
        column("title", Few, "a.title").to(A, "title"),
        column("level", Few, "a.level").to(A, "level"),
        column("tags", List, "a.tags").to(A, "tags"),
        column("code", Few, "a.code").null().to(A, "code"),
        column("detail", Text, "a.detail").to(A, "detail"),
        column("cookie", u(64), "a.cookie").null().to(A, "cookie"),
        column("began", u(64), "a.began").null().to(A, "began"),
        column("proto", Word(Words::Proto), "a.proto").null().to(A, "proto"),
        column("netns", u(64), "a.netns").null().to(A, "netns"),
        column("local_ip", Ip, "a.local_ip").null().to(A, "local_ip"),
        column("local_port", u(16), "a.local_port").null().to(A, "local_port"),
        column("remote_ip", Ip, "a.remote_ip").null().to(A, "remote_ip"),
        column("remote_port", u(16), "a.remote_port").null().to(A, "remote_port"),
        column("side", Word(Words::Side), "a.side").null().to(A, "side"),
        column("basis", Word(Words::Basis), "a.basis").null().to(A, "basis"),
        column("confidence", Word(Words::Confidence), "a.confidence").null().to(A, "confidence"),
        column("process", Int64, "a.process").null().to(A, "process"),
        column("suppressed", u(64), "a.suppressed").to(A, "suppressed"),
        column("trace", Text, "a.trace").null().to(A, "trace"),
    ],
);

const L: &str = "loss";

const LOSSES: [Column; 6] = joined(
    of_row!("loss", "l.id", "l.segment"),
    [
        column("ts", Time, "l.ts").to(L, "ts"),
        column("reason", Few, "l.reason").to(L, "reason"),
        column("kind", Few, "l.kind").to(L, "kind"),
        column("count", u(64), "l.count").to(L, "count"),
    ],
);

const S: &str = "segment";

const SEGMENTS: [Column; 9] = [
    column("row", Int64, "s.id").to(S, "id"),
    column("ts", Time, "s.started").to(S, "started"),
    column("run", Int64, "s.run").to(S, "run"),
    column("boot", Few, "s.boot").to(S, "boot"),
    column("clock", Int64, "s.clock").to(S, "clock"),
    column("run_clock", Int64, "s.run_clock").to(S, "run_clock"),
    column("version", Few, "s.version").to(S, "version"),
    column("kernel", Few, "s.kernel").to(S, "kernel"),
    column("filter", Few, "s.filter").null().to(S, "filter"),
];

const STOPS: [Column; 3] =
    joined(of_row!("stopped", "t.id", "t.segment"), [column("ts", Time, "t.ts").to("stopped", "ts")]);

const BATCHES: [Column; 4] = joined(
    of_row!("batch", "b.id", "b.segment"),
    [column("ts", Time, "b.ts"), column("link", Text, "lower(hex(b.hash))")],
);

/// What a host says of itself, once a minute.
const HOSTS: [Column; 9] = [
    column("ts", Time, ""),
    column("boot", Few, ""),
    column("version", Few, ""),
    column("kernel", Few, ""),
    column("labels", List, ""),
    column("recorded", Time, ""),
    column("batch", Int64, ""),
    column("waiting", u(64), ""),
    column("dropped", u(64), ""),
];

/// All tables, in the order in which they are sent: a row comes after the rows that it refers to, and a batch after
/// all of its rows.
pub(super) static TABLES: [Table; 10] = [
    Table {
        name: "segments",
        about: "a period of recording of a store, up to an hour",
        store: S,
        from: "segment s",
        columns: &SEGMENTS,
        indexed: &[],
    },
    Table {
        name: "processes",
        about: "a state of a process, with its program and arguments",
        store: P,
        from: "process p JOIN segment s ON s.id = p.segment JOIN image i ON i.id = p.image \
               LEFT JOIN process q ON q.id = p.parent",
        columns: &PROCESSES,
        indexed: &["pid", "comm", "exe", "args"],
    },
    Table {
        name: "messages",
        about: "a message by which a cause came from one process to another",
        store: M,
        from: "message m JOIN segment s ON s.id = m.segment",
        columns: &MESSAGES,
        indexed: &[],
    },
    Table {
        name: "names",
        about: "the name of a host, as a DNS answer or a TLS client said it",
        store: N,
        from: "host_name n JOIN segment s ON s.id = n.segment",
        columns: &NAMES,
        indexed: &[],
    },
    Table {
        name: "ends",
        about: "the events of one end of a connection within a moment, and its last state then; over: it is closed",
        store: C,
        from: "connection c JOIN segment s ON s.id = c.segment LEFT JOIN process p ON p.id = c.process \
               LEFT JOIN image i ON i.id = p.image LEFT JOIN process o ON o.id = c.originator \
               LEFT JOIN image j ON j.id = o.image LEFT JOIN process l ON l.id = c.listener_process \
               LEFT JOIN image k ON k.id = l.image \
               LEFT JOIN host_name n ON n.id = abs(c.remote_name) LEFT JOIN host_name m ON m.id = abs(c.local_name)",
        columns: &ENDS,
        indexed: &["cookie", "tuple", "local_ip", "local_port", "remote_ip", "remote_port", "comm", "exe"],
    },
    Table { name: "alerts", about: "an alert", store: A, from: "alert a", columns: &ALERTS, indexed: &[] },
    Table {
        name: "losses",
        about: "what a recorder lost",
        store: L,
        from: "loss l",
        columns: &LOSSES,
        indexed: &[],
    },
    Table {
        name: "stops",
        about: "a recorder was stopped in good order",
        store: "stopped",
        from: "stopped t",
        columns: &STOPS,
        indexed: &[],
    },
    Table {
        name: "batches",
        about: "a link of the chain of a store; it comes after all rows of its batch",
        store: "batch",
        from: "batch b",
        columns: &BATCHES,
        indexed: &[],
    },
    Table {
        name: "hosts",
        about: "what a host says of itself once a minute",
        store: "",
        from: "",
        columns: &HOSTS,
        indexed: &[],
    },
];

/// The table of a name of this room.
pub(super) fn table(name: &str) -> &'static Table {
    TABLES.iter().find(|table| table.name == name).unwrap_or(&TABLES[0])
}

impl Table {
    /// Names of all its columns, in the order of a row.
    pub fn names(&self) -> Vec<&'static str> {
        HOST.iter().map(|(name, _)| *name).chain(self.columns.iter().map(|column| column.name)).collect()
    }

    /// The query of the rows of a range in the store.
    pub fn select(&self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| column.of).collect();
        let id = self.columns.first().map_or("", |column| column.of);
        format!("SELECT {} FROM {} WHERE {id} BETWEEN ?1 AND ?2 ORDER BY {id}", columns.join(", "), self.from)
    }
}
