//! Many connections that stay open, each endpoint held by a process; and many listeners.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::exec::quietly;

/// Descriptors of a process other than its connections.
const OTHERS: u64 = 64;

/// Connections of one process; the port range is larger.
const MOST_EACH: usize = 8000;

/// Listeners of one process: a host has many services, but not one process per port.
const LISTENERS_EACH: usize = 20;

/// Connections to each of them, so that the store has some.
const VISITS: usize = 10;

/// Processes that hold connections, or listeners, until this is dropped.
pub(crate) struct Crowd(Vec<Child>);

impl Crowd {
    /// Starts processes with this number of connections, in the network namespace of the calling thread.
    pub(crate) fn of(connections: usize, verbose: bool) -> Result<Self> {
        quietly(Command::new("ip").args(["link", "set", "lo", "up"]), verbose)?;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let each = usize::try_from(hard.saturating_sub(OTHERS) / 2).unwrap_or(MOST_EACH).clamp(1, MOST_EACH);
        let mut crowd = Self(Vec::new());
        let mut left = connections;
        while left > 0 {
            let part = left.min(each);
            left -= part;
            crowd.add("--hold", part)?;
        }
        Ok(crowd)
    }

    /// This number of listeners, each with some connections, in the calling thread's network namespace.
    pub(crate) fn listening(listeners: usize, verbose: bool) -> Result<Self> {
        quietly(Command::new("ip").args(["link", "set", "lo", "up"]), verbose)?;
        let mut crowd = Self(Vec::new());
        let mut left = listeners;
        while left > 0 {
            let part = left.min(LISTENERS_EACH);
            left -= part;
            crowd.add("--listen", part)?;
        }
        Ok(crowd)
    }

    /// Starts one more process.
    fn add(&mut self, what: &str, part: usize) -> Result<()> {
        let own = std::env::current_exe().context("cannot find the path of this program")?;
        let mut child = Command::new(own)
            .args(["bench", what, &part.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a holder of sockets")?;
        let mut line = String::new();
        let out = child.stdout.take().context("no stdout")?;
        self.0.push(child);
        if BufReader::new(out).read_line(&mut line)? == 0 {
            bail!("cannot create the sockets");
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It exits when its stdin is closed; otherwise it is killed.
            drop(child.stdin.take());
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The main function of a process with connections.
pub(crate) fn hold(connections: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let own = own_address();
    let listener = TcpListener::bind((own, 0))?;
    let address = listener.local_addr()?;
    let mut held: Vec<TcpStream> = Vec::with_capacity(2 * connections);
    for _ in 0..connections {
        let client = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&client, &SocketAddr::from((own, 0)))?;
        connect(&client, &address)?;
        held.push(client.into());
        held.push(listener.accept()?.0);
    }
    stay()
}

/// The main function of a process with listeners.
pub(crate) fn listen(listeners: usize) -> Result<()> {
    let own = own_address();
    let listeners: Vec<_> =
        (0..listeners).map(|_| TcpListener::bind((own, 0))).collect::<Result<_, std::io::Error>>()?;
    for listener in listeners.iter().flat_map(|listener| std::iter::repeat_n(listener, VISITS)) {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let server = listener.accept()?;
        // An RST, so that no TIME_WAIT remains: the bench measures a snapshot of listeners.
        set_socket_linger(&client, Some(Duration::ZERO))?;
        drop((client, server));
    }
    stay()
}

/// A separate address for each process, so that they do not share one range of ports.
fn own_address() -> Ipv4Addr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, b.max(1), c, d.clamp(1, 254))
}

/// Reports that all sockets are open, and keeps them open until stdin is closed.
fn stay() -> Result<()> {
    println!("up");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Runs `work` in a new network namespace.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
            work()
        });
        thread.join().unwrap_or_else(|_| bail!("the thread panicked"))
    })
}
