//! Accepts connections from browsers, within limits: each may hold a thread of nobody else.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::limits;
use crate::unix_socket;

/// Where browsers connect.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(std::net::TcpListener),
    /// A UNIX socket.
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// A UNIX socket that the owner's group may use. What is left of an earlier one is replaced, unless somebody listens.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let listener = unix_socket::listen(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self::Unix(listener))
    }
}

/// Serves until `end` resolves.
///
/// # Errors
/// If the listener cannot be used.
pub async fn serve(listener: Listener, router: Router, end: impl Future<Output = ()>) -> io::Result<()> {
    match listener {
        Listener::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            take_all(async || Ok(listener.accept().await?.0), &router, end).await;
        }
        Listener::Unix(listener) => {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            take_all(async || Ok(listener.accept().await?.0), &router, end).await;
        }
    }
    Ok(())
}

async fn take_all<S>(accept: impl AsyncFn() -> io::Result<S>, router: &Router, end: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits::SERVED_CLIENTS));
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            () = &mut end => return,
        };
        take(accepted, &places, router).await;
    }
}

/// Serves one client on a task of its own. Beyond the limit it is closed at once: waiting for a place would be a way to keep
/// others out.
async fn take<S>(accepted: io::Result<S>, places: &Arc<Semaphore>, router: &Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => {
            // Such as too many open files: others may close some.
            log::warn!("cannot accept a client: {error}");
            tokio::time::sleep(limits::SERVED_PAUSE).await;
            return;
        }
    };
    let Ok(place) = places.clone().try_acquire_owned() else {
        log::debug!("a client was turned away: {} are served", limits::SERVED_CLIENTS);
        return;
    };
    let service = router.clone().map_request(|request: hyper::Request<Incoming>| request.map(Body::new));
    tokio::spawn(async move {
        let _place = place;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::SERVED_HEADER_WAIT)
            .max_headers(limits::SERVED_HEADERS)
            .max_buf_size(limits::SERVED_BUFFER)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        match tokio::time::timeout(limits::SERVED_AT_MOST, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("a client: {error}"),
            Err(_) => log::debug!("a client was connected for too long"),
        }
    });
}
