//! `netwatch serve`: the record in a browser.

mod record;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::log;
use crate::rights;
use crate::serve::{Listener, Own, Token, router, serve};
use crate::store::Reader;
use record::Store;

/// Where browsers connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address of this host. Port 0: any.
    Tcp(SocketAddr),
    /// A UNIX socket.
    Unix(PathBuf),
}

/// Options of `serve`.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Path of the store.
    pub store: PathBuf,
    /// Where browsers connect.
    pub listen: Place,
    /// Further names of the server, with the port if browsers say one.
    pub names: Vec<String>,
    /// The token; `None`: a new one.
    pub token: Option<Token>,
}

/// Serves until a signal ends it.
///
/// # Errors
/// If the store cannot be read, or nothing can listen there.
pub fn run(options: ServeOptions) -> Result<()> {
    // Before anything listens.
    drop(Reader::open(&options.store)?);
    let record = Arc::new(Store::new(options.store.clone()));
    let token = match options.token {
        Some(token) => token,
        None => Token::new().context("cannot make a token")?,
    };
    let (listener, url, mut hosts, cookie) = match &options.listen {
        Place::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address}"))?;
            let own = listener.local_addr()?;
            let hosts = vec![own.to_string(), format!("localhost:{}", own.port())];
            let url = Some(format!("http://{own}/"));
            (Listener::Tcp(listener), url, hosts, format!("netwatch-{}", own.port()))
        }
        Place::Unix(path) => {
            let listener =
                Listener::unix(path).with_context(|| format!("cannot listen on {}", path.display()))?;
            (listener, None, vec!["localhost".to_owned()], "netwatch".to_owned())
        }
    };
    hosts.extend(options.names);
    let mut out = io::stdout().lock();
    match (&url, &options.listen) {
        (Some(url), _) => writeln!(out, "{url}#token={}", token.text())?,
        (None, Place::Unix(path)) => writeln!(
            out,
            "{}: forward a port to it, such as `ssh -L 8080:{} HOST`, and open http://localhost/#token={}",
            path.display(),
            path.display(),
            token.text()
        )?,
        (None, Place::Tcp(_)) => {}
    }
    out.flush()?;
    drop(out);
    let mut readable = log::readable(&options.store);
    // A recorder that starts later makes new files beside the store.
    readable.extend(options.store.parent().map(PathBuf::from));
    rights::give_up(&rights::SERVING, &readable, None);
    let router = router(record, Own { hosts, token, cookie });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended: Result<()> = runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        Ok(serve(listener, router, end).await?)
    });
    // A question that is being answered is not waited for.
    runtime.shutdown_background();
    if let Place::Unix(path) = &options.listen {
        // Landlock may have taken the right to remove it; the next start replaces it.
        let _ = std::fs::remove_file(path);
    }
    ended
}
