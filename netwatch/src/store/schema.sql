-- Version 1 of the store. docs/store.md explains it for whoever writes SQL.
--
-- Nothing is ever updated. Every table with rows of its own (all but `batch`) has ids that count up without a gap, and
-- a batch covers a range of each: that is what its hash is over.

-- A stretch of recording: what belongs together and goes together.
CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,          -- the first segment of the same run of netwatch
    boot TEXT NOT NULL,            -- tells one boot from another; ids of events begin with it
    started INTEGER NOT NULL,      -- when, nanoseconds since the epoch
    clock INTEGER NOT NULL,        -- when the system booted by the clock of this segment, likewise
    run_clock INTEGER NOT NULL,    -- by the clock when the run began: starts of processes are told by that
    version TEXT NOT NULL,         -- of netwatch
    kernel TEXT NOT NULL,
    hostname TEXT NOT NULL,
    filter TEXT                    -- what was recorded of all there was, where not everything
) STRICT;

-- A program as it was put into a process.
CREATE TABLE image (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    exe TEXT,
    exe_state TEXT NOT NULL,       -- at exec: ok, deleted, memfd, replaced, unknown
    dev INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    mntns INTEGER NOT NULL,
    args TEXT NOT NULL             -- a JSON array
) STRICT;
CREATE INDEX image_by_exe ON image (segment, exe);

-- A process (and in it a thread) as it was when it did something: one row for each state that differs.
CREATE TABLE process (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    ts INTEGER NOT NULL,           -- when it was first seen so in this segment, nanoseconds since the epoch
    pid INTEGER NOT NULL,
    start INTEGER NOT NULL,        -- nanoseconds since boot; pid and start together are its key
    tid INTEGER,                   -- the thread that acted, where it was not the leader
    thread TEXT,                   -- its name
    comm TEXT NOT NULL,
    uid INTEGER NOT NULL,
    auid INTEGER,
    ppid INTEGER NOT NULL,
    cgroup_id INTEGER NOT NULL,
    cgroup TEXT NOT NULL,
    kernel INTEGER NOT NULL,
    image INTEGER NOT NULL,
    parent INTEGER,                -- who forked it, as that one was then: a row of this table
    birth INTEGER,                 -- when that was seen, nanoseconds since boot
    cause INTEGER,                 -- cookie of the socket that the forking thread was about
    stdin INTEGER,                 -- cookies of the sockets that these were at exec
    stdout INTEGER,
    stderr INTEGER,
    exe_state TEXT,                -- when it was recorded; NULL: it is there for its children only
    signs TEXT                     -- of a backdoor, with commas between
) STRICT;
CREATE INDEX process_by_pid ON process (segment, pid);
CREATE INDEX process_by_comm ON process (segment, comm);
CREATE INDEX process_by_image ON process (image);

-- What was told of one end of a connection (or of a listener) within one batch, and the end as it was last.
CREATE TABLE connection (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    cookie INTEGER NOT NULL,       -- with `began` and the boot: which end
    began INTEGER NOT NULL,        -- nanoseconds since boot
    ts INTEGER NOT NULL,           -- of the first event, nanoseconds since the epoch
    events TEXT NOT NULL,          -- what was told, each with the nanoseconds since `ts`: open+0 close+1830412
    flow_cookie INTEGER,           -- the connection that both ends on this host share; NULL: its own id
    flow_began INTEGER,
    proto INTEGER NOT NULL,        -- 6: tcp, 17: udp
    family INTEGER,                -- 4 or 6 where that is not the local address's
    mapped INTEGER NOT NULL,       -- 1: an IPv6 socket that speaks IPv4
    netns INTEGER NOT NULL,
    socket INTEGER,                -- the socket's cookie where that is not `cookie`
    inode INTEGER NOT NULL,
    local_ip TEXT NOT NULL,
    local_port INTEGER NOT NULL,
    remote_ip TEXT,                -- NULL: it listens
    remote_port INTEGER,
    via INTEGER,
    state INTEGER NOT NULL,        -- as the kernel numbers them
    side INTEGER NOT NULL,
    basis INTEGER NOT NULL,
    confidence INTEGER NOT NULL,
    originator INTEGER,            -- rows of `process`
    cause INTEGER,                 -- cookie of the socket that the thread that began it was about
    process INTEGER,
    process_basis INTEGER,
    listener_cookie INTEGER,
    listener_began INTEGER,
    listener_process INTEGER,
    peer_cookie INTEGER,
    peer_began INTEGER,
    peer_process INTEGER,
    errno TEXT,
    handshake INTEGER,             -- nanoseconds
    duration INTEGER,
    sent INTEGER,                  -- bytes
    received INTEGER,
    closed_by INTEGER,
    repaired INTEGER NOT NULL,
    signs TEXT,
    odd TEXT                       -- what earlier events of the row had otherwise than follows from the last: JSON
) STRICT;
CREATE INDEX connection_by_cookie ON connection (cookie);
CREATE INDEX connection_by_local_port ON connection (segment, local_port);
CREATE INDEX connection_by_remote_port ON connection (segment, remote_port) WHERE remote_port IS NOT NULL;
CREATE INDEX connection_by_local_ip ON connection (segment, local_ip);
CREATE INDEX connection_by_remote_ip ON connection (segment, remote_ip) WHERE remote_ip IS NOT NULL;
CREATE INDEX connection_by_process ON connection (segment, process) WHERE process IS NOT NULL;
CREATE INDEX connection_by_listener ON connection (segment, listener_process)
    WHERE listener_process <> process;
CREATE INDEX connection_by_socket ON connection (socket) WHERE socket IS NOT NULL;
CREATE INDEX connection_odd ON connection (segment) WHERE odd IS NOT NULL;

-- What was lost.
CREATE TABLE loss (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    ts INTEGER NOT NULL,           -- when that was noticed, nanoseconds since the epoch
    reason TEXT NOT NULL,          -- ring, undecodable, store
    kind TEXT NOT NULL,            -- of record, or of event
    count INTEGER NOT NULL
) STRICT;

-- When recording was ended in good order.
CREATE TABLE stopped (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    ts INTEGER NOT NULL
) STRICT;

-- What retention dropped: everything up to this segment and this batch, which had this hash.
CREATE TABLE pruned (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,      -- in which this was noted
    ts INTEGER NOT NULL,
    through_segment INTEGER NOT NULL,
    through_batch INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;

-- The chain: what was written at once, and the hash over that and the hash before.
CREATE TABLE batch (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    segment_from INTEGER NOT NULL, segment_to INTEGER NOT NULL,
    image_from INTEGER NOT NULL, image_to INTEGER NOT NULL,
    process_from INTEGER NOT NULL, process_to INTEGER NOT NULL,
    connection_from INTEGER NOT NULL, connection_to INTEGER NOT NULL,
    loss_from INTEGER NOT NULL, loss_to INTEGER NOT NULL,
    stopped_from INTEGER NOT NULL, stopped_to INTEGER NOT NULL,
    pruned_from INTEGER NOT NULL, pruned_to INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX batch_by_segment ON batch (segment);
