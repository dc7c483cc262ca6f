//! Another host: a small TCP stack behind a TUN device, whose sockets this kernel does not know. For netwatch its
//! connections come from a remote host.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Medium, TunTapInterface};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Address};

use crate::netns::{Wire, ip, sysctl};
use crate::wait::{PATIENCE, until};

/// More than a test sends at once.
const BUFFER: usize = 16384;

/// Between two polls of the device.
const TURN: Duration = Duration::from_millis(2);

/// Prefix length of both addresses.
const BITS: u8 = 28;

/// The first port that it connects from.
const FIRST_PORT: u16 = 50_000;

/// A closure for the thread that owns the host.
type Job = Box<dyn FnOnce(&mut Host) + Send>;

/// The other host, and the wire to it. Removed with this and its sockets.
#[derive(Debug)]
pub struct Far {
    /// Its address.
    pub ip: String,
    /// This host's address on the wire.
    pub here: String,
    jobs: Sender<Job>,
}

struct Host {
    device: TunTapInterface,
    interface: Interface,
    sockets: SocketSet<'static>,
    last_port: u16,
}

/// A connection of the other host.
#[derive(Debug)]
pub struct FarSocket {
    jobs: Sender<Job>,
    handle: SocketHandle,
    /// Its port on the other host.
    pub port: u16,
}

impl Far {
    /// Another host on a wire to the calling thread's network namespace, which is a new one.
    ///
    /// # Panics
    /// If no TUN device can be created.
    #[must_use]
    pub fn away() -> Self {
        let Wire { a: here, b: far, .. } = Wire::default();
        let (jobs, to_do) = channel();
        let (own, its) = (here.clone(), far.clone());
        // A thread inherits the namespace of the thread that starts it.
        std::thread::spawn(move || Host::on_a_wire(&own, &its).live(&to_do));
        let host = Self { ip: far, here, jobs };
        // The answer proves that the host runs.
        ask(&host.jobs, |_| ());
        host
    }

    /// Connects to a port of this host.
    ///
    /// # Panics
    /// If nothing answers.
    #[must_use]
    pub fn connect(&self, port: u16) -> FarSocket {
        let here: Ipv4Address = self.here.parse().expect("an address");
        let (handle, own) = ask(&self.jobs, move |host| {
            host.last_port += 1;
            let (handle, own) = (host.add(), host.last_port);
            let socket = host.sockets.get_mut::<tcp::Socket<'_>>(handle);
            socket.connect(host.interface.context(), (here, port), own).expect("a free port");
            (handle, own)
        });
        let socket = FarSocket { jobs: self.jobs.clone(), handle, port: own };
        socket.connected();
        socket
    }

    /// Listens on a port of the other host; [`FarSocket::connected`] waits for the connection.
    ///
    /// # Panics
    /// If the port is in use.
    #[must_use]
    pub fn listen(&self, port: u16) -> FarSocket {
        let handle = ask(&self.jobs, move |host| {
            let handle = host.add();
            host.sockets.get_mut::<tcp::Socket<'_>>(handle).listen(port).expect("a free port");
            handle
        });
        FarSocket { jobs: self.jobs.clone(), handle, port }
    }
}

impl Host {
    fn on_a_wire(here: &str, far: &str) -> Self {
        let mut device = TunTapInterface::new("far", Medium::Ip).expect("a TUN device");
        ip(&format!("addr add {here}/{BITS} dev far"));
        sysctl("net/ipv6/conf/far/disable_ipv6", "1");
        ip("link set far up");
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut device, Instant::now());
        let address: Ipv4Address = far.parse().expect("an address");
        interface.update_ip_addrs(|all| {
            all.push(IpCidr::new(IpAddress::Ipv4(address), BITS)).expect("room for one");
        });
        Self { device, interface, sockets: SocketSet::new(Vec::new()), last_port: FIRST_PORT }
    }

    /// Runs until all senders of jobs are dropped.
    fn live(mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(TURN) {
                Ok(job) => job(&mut self),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Self { device, interface, sockets, .. } = &mut self;
            interface.poll(Instant::now(), device, sockets);
        }
    }

    fn add(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }
}

impl FarSocket {
    /// Waits until the connection is established, in either direction.
    ///
    /// # Panics
    /// If it is not.
    pub fn connected(&self) {
        until("a connection with the far host", || self.with(|socket| socket.may_send()));
    }

    /// Sends all of it.
    ///
    /// # Panics
    /// If the buffer is full.
    pub fn send(&self, text: &str) {
        let (bytes, all) = (text.as_bytes().to_vec(), text.len());
        let sent = self.with(move |socket| socket.send_slice(&bytes)).expect("a connection");
        assert_eq!(sent, all);
    }

    /// Waits for data that ends with `end`, and returns all that was received.
    ///
    /// # Panics
    /// If it does not come.
    #[must_use]
    pub fn receive_until(&self, end: &str) -> String {
        let mut got = String::new();
        until("bytes from this host", || {
            let new = self.with(|socket| {
                let mut buffer = [0; BUFFER];
                let len = if socket.can_recv() { socket.recv_slice(&mut buffer).unwrap_or(0) } else { 0 };
                String::from_utf8_lossy(&buffer[..len]).into_owned()
            });
            got.push_str(&new);
            got.ends_with(end)
        });
        got
    }

    /// Closes the connection, and waits until this host has acknowledged that.
    ///
    /// # Panics
    /// If it does not.
    pub fn close(self) {
        self.with(|socket| socket.close());
        until("the end is taken note of", || {
            self.with(|socket| !matches!(socket.state(), tcp::State::Established | tcp::State::FinWait1))
        });
    }

    fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut tcp::Socket<'_>) -> T + Send + 'static) -> T {
        let handle = self.handle;
        ask(&self.jobs, move |host| work(host.sockets.get_mut::<tcp::Socket<'_>>(handle)))
    }
}

/// Runs a closure on the host's thread.
fn ask<T: Send + 'static>(jobs: &Sender<Job>, work: impl FnOnce(&mut Host) -> T + Send + 'static) -> T {
    let (answer, answered) = channel();
    let job = move |host: &mut Host| {
        // The receiver is gone if the test has failed already.
        let _ = answer.send(work(host));
    };
    jobs.send(Box::new(job)).expect("the far host lives");
    answered.recv_timeout(PATIENCE).expect("the far host answers")
}
