-- Version 2 of the store: what it adds to version 1. docs/store.md explains it for whoever writes SQL.
--
-- Rows of version 1 have NULL in the new columns, and are hashed without them: a batch whose `steady` is NULL is of
-- version 1. Tables that are added here get a range of rows in `batch` as well.

-- Limits of retention in force, in nanoseconds and in bytes.
ALTER TABLE segment ADD COLUMN max_age INTEGER;
ALTER TABLE segment ADD COLUMN max_size INTEGER;
-- The steady clock at the start of the segment, nanoseconds: see docs/store.md. The same moment in nanoseconds since boot.
ALTER TABLE segment ADD COLUMN steady INTEGER;
ALTER TABLE segment ADD COLUMN since_boot INTEGER;
-- A step of the wall clock that does not count yet, and how long it has stood, in nanoseconds.
ALTER TABLE segment ADD COLUMN step INTEGER;
ALTER TABLE segment ADD COLUMN stood INTEGER;

-- Address translation: 0, the connection tracking table was asked and knows none; 1, the addresses as the other side saw
-- them follow; NULL, not known.
ALTER TABLE connection ADD COLUMN nat INTEGER;
ALTER TABLE connection ADD COLUMN nat_local_ip TEXT;
ALTER TABLE connection ADD COLUMN nat_local_port INTEGER;
ALTER TABLE connection ADD COLUMN nat_remote_ip TEXT;
ALTER TABLE connection ADD COLUMN nat_remote_port INTEGER;
-- The interface that the socket is bound to, or, plus 2^31, that of the first datagram; NULL: none. Its name, if it has one.
ALTER TABLE connection ADD COLUMN interface INTEGER;
ALTER TABLE connection ADD COLUMN device TEXT;

-- Rows of `host_name`: the name of the remote host, and what the client called this one. With the sign changed if a TLS
-- client said it, which is after the connection began; NULL: not known.
ALTER TABLE connection ADD COLUMN remote_name INTEGER;
ALTER TABLE connection ADD COLUMN local_name INTEGER;
CREATE INDEX connection_by_remote_name ON connection (segment, remote_name) WHERE remote_name IS NOT NULL;
CREATE INDEX connection_by_local_name ON connection (segment, local_name) WHERE local_name IS NOT NULL;

-- Why retention deleted: 'age' or 'size'. The pages in use then, and the digest of `pruned_segment`.
ALTER TABLE pruned ADD COLUMN reason TEXT;
ALTER TABLE pruned ADD COLUMN pages INTEGER;
ALTER TABLE pruned ADD COLUMN digest BLOB;

-- The steady clock when the batch was written.
ALTER TABLE batch ADD COLUMN steady INTEGER;

-- The links of deleted segments, so that older anchors are still found. In no batch; the digest in `pruned` covers it.
CREATE TABLE pruned_segment (
    id INTEGER PRIMARY KEY,        -- of the segment
    batch_from INTEGER NOT NULL, batch_to INTEGER NOT NULL,
    ended INTEGER NOT NULL,        -- by the steady clock
    links BLOB NOT NULL,           -- of each batch, 32 bytes each
    before BLOB NOT NULL           -- the digest of the segments before it
) STRICT;

-- Messages over UNIX sockets and pipes by which a cause came from one process to another. In `process` and `connection` a
-- negative `cause` is a row of this table, with its sign changed.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    before INTEGER,                -- the message that caused this one; NULL: it was the first
    cause INTEGER,                 -- of the first: cookie of the connection that its writer was about
    written INTEGER NOT NULL,      -- nanoseconds since boot
    way TEXT NOT NULL,             -- unix or pipe
    inode INTEGER NOT NULL,        -- of the writer's end
    path TEXT,                     -- name of the UNIX socket
    writer INTEGER NOT NULL        -- a row of `process`
) STRICT;
ALTER TABLE batch ADD COLUMN message_from INTEGER;
ALTER TABLE batch ADD COLUMN message_to INTEGER;

-- Names of hosts, as a DNS answer or a TLS client said them.
CREATE TABLE host_name (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    name TEXT NOT NULL,            -- in lower case
    basis TEXT NOT NULL,           -- dns-answer or tls-sni
    said INTEGER NOT NULL,         -- nanoseconds since boot
    candidates INTEGER NOT NULL,   -- how many names answers gave the address
    asker INTEGER                  -- a row of `process`: who asked; NULL: nobody, or not known
) STRICT;
CREATE INDEX host_name_by_name ON host_name (segment, name);
ALTER TABLE batch ADD COLUMN host_name_from INTEGER;
ALTER TABLE batch ADD COLUMN host_name_to INTEGER;

-- What rules and built-in detections found.
CREATE TABLE alert (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    ts INTEGER NOT NULL,           -- of what raised it, nanoseconds since the epoch
    rule TEXT NOT NULL,            -- id of the rule
    title TEXT NOT NULL,
    level TEXT NOT NULL,           -- informational, low, medium, high, critical
    tags TEXT NOT NULL,            -- a JSON array
    code TEXT,                     -- of a built-in detection
    detail TEXT NOT NULL,          -- what was found
    cookie INTEGER,                -- the endpoint that it is about, as in `connection`; NULL: a process alone
    began INTEGER,
    proto INTEGER,
    netns INTEGER,
    local_ip TEXT,
    local_port INTEGER,
    remote_ip TEXT,                -- NULL: it listens
    remote_port INTEGER,
    side INTEGER,
    basis INTEGER,
    confidence INTEGER,
    process INTEGER,               -- a row of `process`
    suppressed INTEGER NOT NULL,   -- how many more of the rule and its key were held back before
    trace TEXT                     -- the walk back, as `trace --format json` has a match
) STRICT;
ALTER TABLE batch ADD COLUMN alert_from INTEGER;
ALTER TABLE batch ADD COLUMN alert_to INTEGER;

-- Seals: each has the newest link, authenticated by a key that is erased then. In no batch.
CREATE TABLE seal (
    id INTEGER PRIMARY KEY,
    series BLOB NOT NULL,          -- which key they began with
    epoch INTEGER NOT NULL,        -- counts up without a gap within a series
    ts INTEGER NOT NULL,           -- nanoseconds since the epoch of the clock
    batch INTEGER NOT NULL,
    link BLOB NOT NULL,
    mac BLOB NOT NULL
) STRICT;
