//! A server of one page, for GET /metrics over HTTP/1.1: each connection has one request, on a thread of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::MetricsAddress;
use crate::{limits, unix_socket};

/// Pause after a connection could not be accepted, for want of descriptors for example.
const PAUSE: Duration = Duration::from_millis(100);

type Page = Arc<dyn Fn() -> String + Send + Sync>;

/// A connection of either kind.
pub(super) trait Stream: Read + Write + Send + 'static {
    fn patience(&self, patience: Duration) -> io::Result<()>;
    fn end(&self);
}

impl Stream for TcpStream {
    fn patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Stream for UnixStream {
    fn patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

/// Listens, and serves on a thread.
pub(super) fn start(
    address: &MetricsAddress,
    page: impl Fn() -> String + Send + Sync + 'static,
) -> io::Result<()> {
    let page: Page = Arc::new(page);
    let thread = std::thread::Builder::new().name("netwatch-metrics".into());
    match address {
        MetricsAddress::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            thread.spawn(move || serve(|| Ok(listener.accept()?.0), &page))?;
        }
        MetricsAddress::Unix(path) => {
            let listener = unix_socket::listen(path)?;
            thread.spawn(move || serve(|| Ok(listener.accept()?.0), &page))?;
        }
    }
    Ok(())
}

pub(super) fn serve<S: Stream>(mut accept: impl FnMut() -> io::Result<S>, page: &Page) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok(mut stream) = accept() else {
            std::thread::sleep(PAUSE);
            continue;
        };
        if clients.fetch_add(1, Ordering::SeqCst) >= limits::METRICS_CLIENTS {
            let _ = stream.patience(limits::METRICS_WAIT);
            // The answer fits into the buffer of the socket.
            let _ = stream.write_all(answer("503 Service Unavailable", "too many clients\n").as_bytes());
            stream.end();
            clients.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (page, served) = (page.clone(), clients.clone());
        let thread = std::thread::Builder::new().name("netwatch-scrape".into());
        let spawned = thread.spawn(move || {
            if let Err(error) = client(&mut stream, &page) {
                log::debug!("metrics: {error}");
            }
            served.fetch_sub(1, Ordering::SeqCst);
        });
        if spawned.is_err() {
            clients.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn client(stream: &mut impl Stream, page: &Page) -> io::Result<()> {
    let answer = match request(stream)? {
        Some(head) => respond(&head, page),
        None => answer("431 Request Header Fields Too Large", "the request is too long\n"),
    };
    stream.patience(limits::METRICS_WAIT)?;
    stream.write_all(answer.as_bytes())?;
    stream.end();
    Ok(())
}

/// The head of a request; `None` if it is too long.
fn request(stream: &mut impl Stream) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + limits::METRICS_WAIT;
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > limits::METRICS_REQUEST {
            return Ok(None);
        }
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        stream.patience(left.ok_or(io::ErrorKind::TimedOut)?)?;
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => head.extend_from_slice(chunk.get(..length).unwrap_or_default()),
        }
    }
    Ok(Some(head))
}

fn respond(head: &[u8], page: &Page) -> String {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    match (method, path) {
        (b"GET", b"/metrics") => answer("200 OK", &page()),
        (b"GET", _) => answer("404 Not Found", "there is only /metrics\n"),
        _ => answer("405 Method Not Allowed", "there is only GET\n"),
    }
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
