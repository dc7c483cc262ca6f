//! The keys of an event and of the objects in it, but for the process object.

#[cfg(test)]
use super::describe::*;
use super::keys;

keys! {
    /// A line of the log.
    Event {
        V "v", Is::Integer(1, 1), Null::Never,
            "Version of the format. It changes when a key is renamed or removed, not when one is added.";
        Seq "seq", Is::Integer(1, u64::MAX), Null::Never,
            "Number of the line in this run, without gaps.";
        Ts "ts", TIME, Null::Never,
            "Time of the event: RFC 3339, UTC, nanoseconds.";
        Kind "event", Is::Word(KINDS), Null::Never,
            "Kind of the event.";
        Coverage "coverage" on &["ready"], Is::Object("coverage"), Null::Never,
            "Which probes are attached, and what they do not see.";
        Seeded "seeded" on &["ready"], U64, Null::Never,
            "Number of sockets that existed before netwatch started.";
        Count "count" on &["loss"], Is::Integer(1, u64::MAX), Null::Never,
            "Number of records or events that were lost since the last `loss`.";
        Reason "reason" on &["loss"], Is::Word(LOSS_REASONS), Null::Never,
            "Where they were lost: `ring`, the ring buffer was full or the kernel skipped a probe; `undecodable`, a record was malformed; `stdout`, `store` or `rules`, this subscriber was too slow.";
        Sockets "sockets" on &["loss"], Is::Objects("loss_of_socket"), Null::Absent,
            "With the reason `limit`: the sockets with the most datagrams of flows that are not followed.";
        Kinds "kinds" on &["loss"], Is::Counts, Null::Never,
            "`count` by kind: of kernel record for `ring` and `undecodable`, of event for `stdout`, `store` and `rules`.";
        Id "id" on SOCKETS, ID, Null::Never,
            "The connection endpoint or listener: the same from its first event to its last, unique across runs and boots.";
        Flow "flow" on SOCKETS, ID, Null::Except(CONNECTIONS),
            "The connection. Both endpoints on this host have the same. Null for a listener.";
        Proto "proto" on SOCKETS, PROTOS, Null::Never,
            "Transport protocol.";
        Family "family" on SOCKETS, Is::Word(FAMILIES), Null::Never,
            "Address family on the wire: `ipv4` for an IPv4-mapped IPv6 address.";
        Mapped "mapped" on SOCKETS, Is::True, Null::Absent,
            "The socket is an IPv6 socket with IPv4-mapped addresses.";
        Netns "netns" on SOCKETS, U32, Null::Never,
            "Network namespace: its inode number.";
        Cookie "cookie" on SOCKETS, U64, Null::Never,
            "Socket cookie.";
        Inode "inode" on SOCKETS, U64, Null::Never,
            "Socket inode. 0: the socket has no file, as before accept().";
        Local "local" on SOCKETS, Is::Object("endpoint"), Null::Never,
            "Address and port on this side. For a UDP wildcard socket, the address of the datagram.";
        Remote "remote" on SOCKETS, Is::Object("endpoint"), Null::Except(CONNECTIONS),
            "Address and port on the other side. Null for a listener.";
        Device "device" on SOCKETS, Is::Text, Null::Absent,
            "The network interface that the socket is bound to: its name, or its index if it is gone. The kernel binds a TCP socket with a link-local address to the interface of the address.";
        Scope "scope" on SOCKETS, Is::Text, Null::Absent,
            "The interface of link-local addresses, likewise.";
        Service "service" on SOCKETS, Is::Text, Null::Maybe,
            "Name of the responder's port in `/etc/services`.";
        State "state" on SOCKETS, Is::Word(STATES), Null::Never,
            "Socket state after the event, as netstat spells it.";
        Origin "origin" on SOCKETS, Is::Object("origin"), Null::Except(CONNECTIONS),
            "Who originated the connection. Null for a listener.";
        Process "process" on SOCKETS, Is::Process, Null::Maybe,
            "The process at this endpoint: the one that connected or accepted; before accept(), the one that called listen().";
        ProcessBasis "process_basis" on SOCKETS, Is::Word(PROCESS_BASES), Null::Maybe,
            "How `process` is known: it called connect(), accept() or listen(), used a connection of another process, or held the socket when netwatch started.";
        Listener "listener" on SOCKETS, Is::Object("party"), Null::Except(CONNECTIONS),
            "The listener that the connection came from, with the process that called listen().";
        Peer "peer" on SOCKETS, Is::Object("party"), Null::Except(CONNECTIONS),
            "The other endpoint, if it is on this host and known.";
        Errno "errno" on SOCKETS, ERRNO, Null::Except(&["fail", "close"]),
            "Error of the attempt or of the socket: `ECONNREFUSED`; a number if it has no name.";
        HandshakeUs "handshake_us" on SOCKETS, U64, Null::Except(CONNECTIONS),
            "Microseconds from SYN to ESTABLISHED.";
        DurationUs "duration_us" on SOCKETS, U64, Null::Except(&["close"]),
            "Microseconds that the connection was established. Null if its start was not observed.";
        BytesSent "bytes_sent" on SOCKETS, U64, Null::Except(&["seed", "attempt", "open", "close"]),
            "Payload bytes sent, each counted once. On `seed`, and on a repaired `open`, those sent before.";
        BytesReceived "bytes_received" on SOCKETS, U64, Null::Except(&["seed", "attempt", "open", "close"]),
            "Payload bytes received, likewise.";
        ClosedBy "closed_by" on SOCKETS, Is::Word(CLOSED_BY), Null::Except(&["close"]),
            "Who ended the connection: the sender of an RST, else of the first FIN.";
        Via "via" on SOCKETS, Is::Word(VIAS), Null::Absent,
            "How the call was made, if not by a plain system call on a plain socket.";
        Nat "nat" on SOCKETS, Is::Object("nat"), Null::AbsentOrNull,
            "Address translation. Null if the connection tracking table was asked and knows none; absent if it could not be asked (`netwatch doctor` says why), and on listeners.";
        RemoteName "remote_name" on SOCKETS, Is::Object("host_name"), Null::Absent,
            "The name of the remote host, by which this side came to its address or which it said in TLS. Absent if not known.";
        LocalName "local_name" on SOCKETS, Is::Object("host_name"), Null::Absent,
            "What the other side of the connection calls this host, likewise.";
        CommunityId "community_id" on SOCKETS, Is::Text, Null::Absent,
            "With `--community-id`: the Community ID of the connection, version 1 with seed 0. Both endpoints on this host have the same.";
        Messages "messages" on SOCKETS, Is::Objects("message"), Null::Absent,
            "Messages over UNIX sockets or pipes by which what caused the connection reached the process that began it, the oldest first.";
        Repaired "repaired" on SOCKETS, Is::True, Null::Absent,
            "The event was lost, and reconstructed from a later snapshot.";
        Signs "signs" on SOCKETS, Is::Words(SIGNS), Null::Absent,
            "What is suspicious about a listener. A process has its own.";
        OneProcess "process" on &["process"], Is::Object("process"), Null::Never,
            "With `--processes once`: a process, before the first event that has its `key`, and again when it has changed.";
        OfRule "rule" on &["alert"], Is::Object("rule"), Null::Never,
            "The rule that raised the alert.";
        Code "code" on &["alert"], Is::Text, Null::Absent,
            "Code of a built-in detection: see docs/rules.md.";
        Detail "detail" on &["alert"], Is::Text, Null::Never,
            "What was found, as a sentence.";
        Connection "connection" on &["alert"], ID, Null::Maybe,
            "`id` of the connection endpoint or listener that the alert is about. Null if it is about a process alone.";
        AlertProto "proto" on &["alert"], PROTOS, Null::Absent,
            "Its transport protocol.";
        AlertLocal "local" on &["alert"], Is::Object("endpoint"), Null::Absent,
            "Its address and port on this side.";
        AlertRemote "remote" on &["alert"], Is::Object("endpoint"), Null::Absent,
            "Its address and port on the other side; absent for a listener.";
        AlertSide "side" on &["alert"], Is::Word(SIDES), Null::Absent,
            "Which of them originated it; absent for a listener.";
        AlertProcess "process" on &["alert"], Is::Process, Null::Maybe,
            "The process that the alert is about.";
        Suppressed "suppressed" on &["alert"], U64, Null::Never,
            "Alerts of the same rule and key that were held back before this one: see `--suppress`.";
        AlertTrace "trace" on &["alert"], Is::Opaque, Null::Maybe,
            "The walk back from the connection, as `netwatch trace --format json` has a match. Null if there is no connection or none is known.";
    }
}

keys! {
    /// Who originated a connection, and how that is known.
    Origin {
        Side "side", Is::Word(SIDES), Null::Never,
            "The originating endpoint, relative to the one of the event. `both`: simultaneous open.";
        Basis "basis", Is::Word(BASES), Null::Never,
            "The evidence for `side`, in decreasing order of trust.";
        Confidence "confidence", Is::Word(CONFIDENCES), Null::Never,
            "How reliable that is.";
        Endpoint "endpoint", Is::Object("endpoint"), Null::Maybe,
            "Address and port of the originator. Null if the side is unknown.";
        Process "process", Is::Process, Null::Maybe,
            "The originating process, if it is on this host and known. Null if `confidence` is `guessed`.";
        PortRule "port_rule", Is::Word(PORT_RULES), Null::Never,
            "What the rule of thumb says, by which the port above 1023 originated. It decides nothing.";
    }
}

keys! {
    /// The rule that raised an alert.
    Rule {
        Id "id", Is::Text, Null::Never, "Its id; of a built-in detection the code.";
        Title "title", Is::Text, Null::Never, "Its title.";
        Level "level", Is::Word(LEVELS), Null::Never, "How serious it is.";
        Tags "tags", Is::Texts, Null::Never, "Tags, such as `attack.t1059.004`.";
    }
}

keys! {
    /// The addresses of a connection as the other side sees them.
    Nat {
        Local "local", Is::Object("endpoint"), Null::Never, "Of this endpoint.";
        Remote "remote", Is::Object("endpoint"), Null::Never, "Of the other endpoint: its own address and port.";
        Basis "basis", Is::Word(NAT_BASES), Null::Never, "How that is known.";
    }
}

keys! {
    /// The name of a host.
    HostName {
        Name "name", Is::Text, Null::Never,
            "In lower case, without a dot at the end. Other characters than letters, digits, `-` and `_` in a label are written `\\DDD`, in decimal.";
        Basis "basis", Is::Word(NAME_BASES), Null::Never,
            "How it is known: a DNS answer that a process on this host asked for had the address, or the client said the name in its TLS ClientHello.";
        AskedBy "asked_by", Is::Object("ancestor"), Null::Maybe,
            "The process that asked DNS, which may be another one than that of the connection. Null with `tls-sni`, or if not known.";
        AgeMs "age_ms", U64, Null::Maybe,
            "Milliseconds from the answer to the beginning of the connection. Null with `tls-sni`.";
        Candidates "candidates", U32, Null::Never,
            "How many names answers gave the address, this one included.";
    }
}

keys! {
    /// Another endpoint or listener.
    Party {
        Id "id", ID, Null::Never, "Its `id`.";
        Process "process", Is::Process, Null::Maybe, "Its process.";
    }
}

keys! {
    /// An address and a port.
    Endpoint {
        Ip "ip", Is::Address, Null::Never, "IPv4 or IPv6 address. An IPv4-mapped one is written as IPv4.";
        Port "port", U16, Null::Never, "Port.";
    }
}

keys! {
    /// The part of a loss that concerns one socket.
    LossOfSocket {
        Cookie "cookie", U64, Null::Never, "Cookie of the socket.";
        Process "process", PROCESS_KEY, Null::Maybe, "`key` of the process that created it or used it last.";
        Comm "comm", Is::Text, Null::Maybe, "Name of that process.";
        Count "count", U64, Null::Never, "Number of datagrams.";
    }
}

keys! {
    /// A message that led to a connection.
    Message {
        Ts "ts", TIME, Null::Never, "When it was written.";
        Over "over", Is::Word(WAYS), Null::Never, "What it was written to.";
        Inode "inode", U64, Null::Never, "Inode number of the writer's end.";
        Path "path", Is::Text, Null::Maybe, "Name of the UNIX socket; an abstract one begins with `@`.";
        Process "process", PROCESS_KEY, Null::Never, "`key` of the process that wrote it.";
        Comm "comm", Is::Text, Null::Never, "Name of that process.";
    }
}

keys! {
    /// What the kernel side observes.
    Coverage {
        Probes "probes", Is::Names, Null::Never, "Each job, and the probe that does it; null if none does.";
        Unseen "unseen", Is::Texts, Null::Never, "What is not observed on this kernel.";
    }
}
