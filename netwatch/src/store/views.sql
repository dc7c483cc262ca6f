-- Views: what people read. They are made anew whenever a writer opens the store, and hold nothing.

DROP VIEW IF EXISTS processes;
CREATE VIEW processes AS
SELECT p.id, p.segment, s.boot,
    p.pid || '@' || p.start || CASE p.start % 10000000 WHEN 0 THEN '~' ELSE '' END AS key,
    p.pid, coalesce(p.tid, p.pid) AS tid,
    strftime('%Y-%m-%d %H:%M:%f', (s.run_clock + p.start) / 1e9, 'unixepoch') AS started,
    p.comm, p.thread, i.exe, p.exe_state, i.args, p.uid, p.auid, p.ppid, p.cgroup, p.parent,
    q.comm AS parent_comm, q.pid AS parent_pid, p.stdin, p.stdout, p.stderr, p.signs
FROM process p JOIN segment s ON s.id = p.segment JOIN image i ON i.id = p.image
    LEFT JOIN process q ON q.id = p.parent;

DROP VIEW IF EXISTS spelled;
CREATE VIEW spelled AS
SELECT c.id, c.segment, s.boot, s.clock,
    printf('%s-%x-%x', s.boot, c.cookie, c.began) AS conn,
    printf('%s-%x-%x', s.boot, coalesce(c.flow_cookie, c.cookie), coalesce(c.flow_began, c.began)) AS flow,
    c.cookie, c.began, c.ts, c.events,
    CASE c.proto WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' END AS proto,
    c.local_ip, c.local_port, c.remote_ip, c.remote_port, c.netns,
    CASE c.state WHEN 1 THEN 'ESTABLISHED' WHEN 2 THEN 'SYN_SENT' WHEN 3 THEN 'SYN_RECV' WHEN 4 THEN 'FIN_WAIT1'
        WHEN 5 THEN 'FIN_WAIT2' WHEN 6 THEN 'TIME_WAIT' WHEN 7 THEN 'CLOSE' WHEN 8 THEN 'CLOSE_WAIT'
        WHEN 9 THEN 'LAST_ACK' WHEN 10 THEN 'LISTEN' WHEN 11 THEN 'CLOSING' ELSE 'UNKNOWN' END AS state,
    CASE WHEN c.remote_ip IS NOT NULL THEN
        CASE c.side WHEN 1 THEN 'local' WHEN 2 THEN 'remote' WHEN 3 THEN 'both' ELSE 'unknown' END END AS side,
    CASE c.basis WHEN 1 THEN 'connect' WHEN 2 THEN 'accept' WHEN 3 THEN 'handshake' WHEN 4 THEN 'peer'
        WHEN 5 THEN 'listener' WHEN 6 THEN 'port-range' ELSE 'none' END AS basis,
    CASE c.confidence WHEN 1 THEN 'observed' WHEN 2 THEN 'inferred' WHEN 3 THEN 'guessed' ELSE 'unknown' END
        AS confidence,
    c.process, c.originator, c.listener_process, c.peer_process,
    CASE c.process_basis WHEN 1 THEN 'connect' WHEN 2 THEN 'accept' WHEN 3 THEN 'listener' WHEN 4 THEN 'handover'
        WHEN 5 THEN 'seed' END AS process_basis,
    CASE c.via WHEN 1 THEN 'io_uring' WHEN 2 THEN 'socketcall' WHEN 3 THEN 'kernel' WHEN 4 THEN 'fastopen'
        WHEN 5 THEN 'mptcp' END AS via,
    c.errno, c.handshake / 1000 AS handshake_us, c.duration / 1000 AS duration_us, c.sent, c.received,
    CASE c.closed_by WHEN 1 THEN 'local' WHEN 2 THEN 'remote' WHEN 3 THEN 'reset-local' WHEN 4 THEN 'reset-remote'
        WHEN 5 THEN 'timeout' WHEN 0 THEN 'unknown' END AS closed_by,
    c.signs, c.nat_local_ip, c.nat_local_port, c.nat_remote_ip, c.nat_remote_port, c.device,
    (SELECT n.name FROM host_name n WHERE n.id = abs(c.remote_name)) AS remote_name,
    (SELECT n.name FROM host_name n WHERE n.id = abs(c.local_name)) AS local_name
FROM connection c JOIN segment s ON s.id = c.segment;

-- One line an end, as it was last.
DROP VIEW IF EXISTS connections;
CREATE VIEW connections AS
SELECT c.conn, c.flow, c.proto, c.local_ip, c.local_port, c.remote_ip, c.remote_port, c.netns, c.state,
    c.side, c.basis, c.confidence,
    strftime('%Y-%m-%d %H:%M:%f', (c.clock + c.began) / 1e9, 'unixepoch') AS opened,
    CASE WHEN c.state = 'CLOSE' THEN (
        SELECT strftime('%Y-%m-%d %H:%M:%f', max(e.ts) / 1e9, 'unixepoch') FROM events e WHERE e.row = c.id
    ) END AS closed,
    p.pid, p.comm, i.exe, p.uid, c.process_basis, o.pid AS originator_pid, o.comm AS originator_comm,
    c.errno, c.handshake_us, c.duration_us, c.sent, c.received, c.closed_by, c.via,
    c.nat_local_ip, c.nat_local_port, c.nat_remote_ip, c.nat_remote_port, c.device, c.remote_name, c.local_name,
    CASE WHEN p.signs IS NULL THEN c.signs ELSE p.signs || coalesce(',' || c.signs, '') END AS signs, c.segment, c.id AS row
FROM spelled c LEFT JOIN process p ON p.id = c.process LEFT JOIN image i ON i.id = p.image
    LEFT JOIN process o ON o.id = c.originator
WHERE NOT EXISTS (
    SELECT 1 FROM connection n JOIN segment t ON t.id = n.segment
    WHERE n.cookie = c.cookie AND n.began = c.began AND n.id > c.id AND t.boot = c.boot);

-- One line for each thing that was told.
DROP VIEW IF EXISTS events;
CREATE VIEW events AS
SELECT c.ts + CAST(substr(e.value, instr(e.value, '+') + 1) AS INTEGER) AS ts,
    strftime('%Y-%m-%d %H:%M:%f',
        (c.ts + CAST(substr(e.value, instr(e.value, '+') + 1) AS INTEGER)) / 1e9, 'unixepoch') AS time,
    substr(e.value, 1, instr(e.value, '+') - 1) AS event,
    printf('%s-%x-%x', s.boot, c.cookie, c.began) AS conn,
    c.local_ip, c.local_port, c.remote_ip, c.remote_port, c.segment, c.id AS row
FROM connection c JOIN segment s ON s.id = c.segment,
    json_each('["' || replace(c.events, ' ', '","') || '"]') e;
