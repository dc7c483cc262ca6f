//! The server, with good and bad clients.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;

fn served() -> SocketAddr {
    // The port is free again once the first listener is closed.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    server::start(&MetricsAddress::Tcp(address), || "a 1\n".to_owned()).unwrap();
    address
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    // Of a request that is too long the server may not read the rest.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn only_the_page_is_served() {
    let address = served();
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("\r\n\r\n", "405 Method Not Allowed"),
    ] {
        let answer = ask(address, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
        assert_eq!(answer.ends_with("\r\n\r\na 1\n"), status == "200 OK");
    }
}

#[test]
fn a_request_over_the_limit_is_refused() {
    let address = served();
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(2 * limits::METRICS_REQUEST));
    let answer = ask(address, &long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn a_client_that_sends_nothing_is_given_up() {
    let address = served();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let began = Instant::now();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert!(began.elapsed() >= limits::METRICS_WAIT / 2);
}

#[test]
fn clients_are_limited() {
    let address = served();
    let silent: Vec<_> = (0..limits::METRICS_CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(ask(address, "GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503 "));
    drop(silent);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ask(address, "GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 ") {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn only_the_socket_of_an_ended_run_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let start = || server::start(&MetricsAddress::Unix(path.clone()), String::new);
    std::fs::write(&path, "a file").unwrap();
    assert!(start().is_err() && path.is_file());
    std::fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    start().unwrap();
    assert!(start().is_err());
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
