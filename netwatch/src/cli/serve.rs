//! `netwatch serve`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::blocking;
use crate::commands::serve::{Place, ServeOptions};
use crate::limits;
use crate::serve::Token;
use crate::store::DEFAULT_PATH;

#[derive(Args)]
pub(super) struct ServeArgs {
    /// Path of the store
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    store: PathBuf,
    /// Where browsers connect: a loopback address with a port (0: any free one), or unix:PATH. Any other address needs
    /// --token-file; TLS is up to a proxy
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH", value_parser = place, default_value = "127.0.0.1:0")]
    listen: Place,
    /// A further name of this server in the header `Host`, with the port unless it is 80
    #[arg(long, value_name = "HOST[:PORT]")]
    name: Vec<String>,
    /// Read the token from this file, instead of making a new one
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

fn place(text: &str) -> Result<Place, String> {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Place::Unix(path.into()));
    }
    let expected = || "expected an address with a port, such as 127.0.0.1:8080, or unix:PATH".to_owned();
    text.parse::<SocketAddr>().map(Place::Tcp).map_err(|_| expected())
}

impl ServeArgs {
    pub(super) fn options(self) -> Result<ServeOptions> {
        let token = self.token_file.as_deref().map(|path| {
            let text = blocking::text(path, limits::PROC_FILE, limits::READ_WAIT)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Token::parse(&text).map_err(|what| anyhow::anyhow!("{}: {what}", path.display()))
        });
        let token = token.transpose()?;
        if let Place::Tcp(address) = &self.listen
            && !address.ip().is_loopback()
            && token.is_none()
        {
            bail!(
                "{address} is no loopback address: give a token with --token-file, and put a proxy with TLS in front"
            );
        }
        Ok(ServeOptions { store: self.store, listen: self.listen, names: self.name, token })
    }
}
