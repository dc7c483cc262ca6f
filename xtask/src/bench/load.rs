//! Connections on loopback: opened, accepted, closed by an RST, so that no TIME_WAIT uses up the ports.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::net::sockopt::set_socket_linger;

/// Result of a load.
pub(crate) struct Load {
    pub(crate) connections: u64,
    length: Duration,
}

/// Number of threads, each with its own listener.
const PAIRS: usize = 2;

impl Load {
    pub(crate) fn rate(&self) -> u64 {
        (self.connections as f64 / self.length.as_secs_f64()) as u64
    }

    /// At the highest rate.
    pub(crate) fn flood(length: Duration) -> Result<Self> {
        let begun = Instant::now();
        let deadline = begun + length;
        let connections = std::thread::scope(|scope| {
            let pairs: Vec<_> =
                (0..PAIRS).map(|_| scope.spawn(move || pair(|| Instant::now() < deadline))).collect();
            pairs.into_iter().map(|pair| pair.join().unwrap_or_else(|_| Err(io::Error::other("panic")))).sum()
        });
        let connections: io::Result<u64> = connections;
        Ok(Self { connections: connections.context("cannot make connections")?, length: begun.elapsed() })
    }

    /// At a rate per second.
    pub(crate) fn calm(length: Duration, rate: u64) -> Result<u64> {
        let deadline = Instant::now() + length;
        let pause = Duration::from_nanos(1_000_000_000 / rate.max(1));
        let mut next = Instant::now();
        let more = || {
            // By the clock: the time of a connection and a sleep that is too long are compensated.
            next += pause;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            Instant::now() < deadline
        };
        pair(more).context("cannot make connections")
    }
}

/// Connects and accepts in turn while `more` is true, so that no queue fills up; returns the number of connections.
fn pair(mut more: impl FnMut() -> bool) -> io::Result<u64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut connections = 0;
    while more() {
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        set_socket_linger(&client, Some(Duration::ZERO))?;
        drop(client);
        drop(server);
        connections += 1;
    }
    Ok(connections)
}
