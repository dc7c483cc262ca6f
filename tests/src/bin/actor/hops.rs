//! Requests that change hands: over UNIX sockets, by a question to somebody else first, over a queue.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::mpsc::channel;

use anyhow::{Context as _, Result, bail};

use crate::Actor;
use crate::scene::{NAP, call, in_child, on_request};

/// Length of a request that says to which port of the far host to connect.
const PORT: usize = 5;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["unix-listen", path] => address(path).and_then(|address| {
            actor.unix_listener = Some(UnixListener::bind_addr(&address)?);
            Ok(String::new())
        }),
        ["ask", path] => ask(path, b"x").map(|()| String::new()),
        ["on-request", "ask", path] => on_request(actor, || ask(path, b"x")),
        ["on-request", "resolve", resolver, remote] => on_request(actor, || resolve(resolver, remote)),
        ["on-request", "query", database, remote] => on_request(actor, || query(database, remote)),
        ["on-request", "push", queue] => on_request(actor, || push(queue)),
        ["on-request", "pool", remote] => on_request_by_another_thread(actor, remote),
        ["serve", "ask", path] => serve(actor, || ask(path, b"x")),
        ["serve", "call", remote] => serve(actor, || in_child(|| call(remote))),
        ["forward-all", path, clients] => forward_all(actor, path, clients),
        ["connect-for-all", ip, clients, threads] => connect_for_all(actor, ip, clients, threads),
        ["pairs", children] => pairs(children),
        ["pooled", database, remote] => pooled(actor, database, remote),
        ["answer", connections, questions] => answer(actor, connections, questions),
        ["pop", queue, remote] => pop(queue, remote),
        _ => return None,
    })
}

/// A path, or an abstract name after `@`.
fn address(path: &str) -> Result<SocketAddr> {
    Ok(match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    })
}

/// Sends a request, and waits for the answer.
fn ask(path: &str, request: &[u8]) -> Result<()> {
    let mut stream = UnixStream::connect_addr(&address(path)?)?;
    stream.write_all(request)?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

/// Reads a request from a UNIX socket. Where functions cannot be probed, a message is noted when the call that wrote it
/// returns, so this waits.
fn request(stream: &mut UnixStream, request: &mut [u8]) -> Result<()> {
    std::thread::sleep(NAP);
    stream.read_exact(request)?;
    Ok(())
}

/// Accepts a connection over a UNIX socket, does something because of its request, and answers.
fn serve(actor: &Actor, act: impl FnOnce() -> Result<()>) -> Result<String> {
    let (mut stream, _) = actor.unix_listener.as_ref().context("no listener")?.accept()?;
    request(&mut stream, &mut [0])?;
    act()?;
    stream.write_all(b"x")?;
    Ok(String::new())
}

/// As a proxy does that resolves the name of its destination first.
fn resolve(resolver: &str, remote: &str) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(resolver)?;
    socket.send(b"x")?;
    socket.recv(&mut [0])?;
    connect_and_wait(remote)
}

/// As a web application does that asks its database and then starts a program.
fn query(database: &str, remote: &str) -> Result<()> {
    let mut stream = TcpStream::connect(database)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    in_child(|| call(remote))
}

/// Connects at once, and waits until the peer closes.
fn connect_and_wait(remote: &str) -> Result<()> {
    let mut stream = TcpStream::connect(remote)?;
    stream.write_all(b"x")?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// As a database or a queue does: accepts connections, reads so many bytes from each in turn, and answers on the last one.
fn answer(actor: &mut Actor, connections: &str, questions: &str) -> Result<String> {
    let (connections, questions): (usize, usize) = (connections.parse()?, questions.parse()?);
    for _ in 0..connections {
        let (mut stream, _) = actor.listener()?.accept()?;
        for _ in 0..questions {
            stream.read_exact(&mut [0])?;
        }
        actor.streams.push(stream);
    }
    actor.streams.last().context("no connection")?.write_all(b"x")?;
    Ok(String::new())
}

fn push(queue: &str) -> Result<()> {
    TcpStream::connect(queue)?.write_all(b"x")?;
    Ok(())
}

/// Reads a message from each of so many children, over a socket of each.
fn pairs(children: &str) -> Result<String> {
    for _ in 0..children.parse::<usize>()? {
        let (mut own, mut its) = UnixStream::pair()?;
        in_child(|| Ok(its.write_all(b"x")?))?;
        own.read_exact(&mut [0])?;
    }
    Ok(String::new())
}

/// Waits for a job from a queue, and does it.
fn pop(queue: &str, remote: &str) -> Result<String> {
    let mut stream = TcpStream::connect(queue)?;
    stream.write_all(b"p")?;
    stream.read_exact(&mut [0])?;
    in_child(|| call(remote))?;
    Ok(String::new())
}

/// One thread reads the request, another one that waits for it connects.
fn on_request_by_another_thread(actor: &mut Actor, remote: &str) -> Result<String> {
    let (give, take) = channel::<()>();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            take.recv()?;
            connect_and_wait(remote)
        });
        std::thread::sleep(NAP);
        let read = on_request(actor, || Ok(give.send(())?));
        worker.join().unwrap_or_else(|_| bail!("the thread panicked"))?;
        read
    })
}

/// Two clients' requests become questions over one connection to a database, and only then come the answers. What it
/// does then is for the first client.
fn pooled(actor: &mut Actor, database: &str, remote: &str) -> Result<String> {
    let [.., first, second] = &mut actor.streams[..] else { bail!("no two connections") };
    let mut pool = TcpStream::connect(database)?;
    for client in [first, second] {
        std::thread::sleep(NAP);
        client.read_exact(&mut [0])?;
        pool.write_all(b"x")?;
    }
    pool.read_exact(&mut [0])?;
    in_child(|| call(remote))?;
    Ok(String::new())
}

/// A thread for each of the last connections passes the client's request on.
fn forward_all(actor: &mut Actor, path: &str, clients: &str) -> Result<String> {
    let count = clients.parse()?;
    let from = actor.streams.len().checked_sub(count).context("too few connections")?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = actor
            .streams
            .iter_mut()
            .skip(from)
            .map(|client| {
                scope.spawn(move || {
                    let mut request = [0; PORT];
                    client.read_exact(&mut request)?;
                    ask(path, &request)
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("the thread panicked")))
    })?;
    Ok(String::new())
}

/// Threads that accept from one UNIX socket, and connect to the port of each request.
fn connect_for_all(actor: &Actor, ip: &str, clients: &str, threads: &str) -> Result<String> {
    let (clients, threads): (usize, usize) = (clients.parse()?, threads.parse()?);
    let listener = actor.unix_listener.as_ref().context("no listener")?;
    let work = || -> Result<()> {
        for _ in 0..clients / threads {
            let (mut stream, _) = listener.accept()?;
            let mut port = [0; PORT];
            request(&mut stream, &mut port)?;
            let port = std::str::from_utf8(&port)?;
            // It does not wait for the peer, who may close in another order.
            TcpStream::connect(format!("{ip}:{port}"))?.write_all(b"x")?;
            stream.write_all(b"x")?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("the thread panicked")))
    })?;
    Ok(String::new())
}
