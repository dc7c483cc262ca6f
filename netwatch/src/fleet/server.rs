//! A ClickHouse server, over HTTP.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use clickhouse::{Client, Compression};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::runtime::Runtime;

use super::binary::Bytes;
use super::dialect::Dialect;
use super::url::ServerUrl;
use crate::{bounded, limits};

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where it is.
    pub url: ServerUrl,
    /// The user; `None`: the server's default one.
    pub user: Option<String>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// Certificates of authorities that are trusted, in place of the system's.
    pub ca: Option<PathBuf>,
}

/// Why a server does not do what it is asked to.
#[derive(Debug, Error)]
pub enum ServerError {
    /// A file of the options cannot be used.
    #[error("{}: {what}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// No connection, or no answer.
    #[error("cannot reach {url}: {why}")]
    Away {
        /// The server.
        url: ServerUrl,
        /// Why.
        why: String,
    },
    /// It answers with an error.
    #[error("{url} refuses: {why}")]
    Refused {
        /// The server.
        url: ServerUrl,
        /// Its error.
        why: String,
    },
    /// Its tables are not those of this netwatch.
    #[error("{url}: {why}")]
    Schema {
        /// The server.
        url: ServerUrl,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// A server.
pub struct Server {
    runtime: Runtime,
    /// It names no database, which may not exist yet: statements do.
    client: Client,
    pub(super) url: ServerUrl,
    /// Once it is known.
    pub(super) dialect: Cell<Option<Dialect>>,
}

impl Server {
    /// Reads the files of the options. Nothing is connected yet.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn new(options: &ServerOptions) -> Result<Self, ServerError> {
        let file = |path: &PathBuf, what: &dyn fmt::Display| ServerError::File {
            path: path.clone(),
            what: what.to_string(),
        };
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(limits::FLEET_CONNECT));
        http.set_nodelay(true);
        http.enforce_http(false);
        let provider = rustls::crypto::ring::default_provider();
        let trusting = |roots: RootCertStore| {
            let config = ClientConfig::builder_with_provider(provider.clone().into());
            let config = config.with_safe_default_protocol_versions()?;
            let config = config.with_root_certificates(roots).with_no_client_auth();
            Ok::<_, rustls::Error>(hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config))
        };
        let builder = match &options.ca {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                let certificates = CertificateDer::pem_file_iter(path).map_err(|error| file(path, &error))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| file(path, &error))?;
                    roots.add(certificate).map_err(|error| file(path, &error))?;
                }
                if roots.is_empty() {
                    return Err(file(path, &"it has no certificate"));
                }
                trusting(roots).map_err(|error| file(path, &error))?
            }
            // A host without certificates can still reach servers without TLS.
            None => hyper_rustls::HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(provider.clone())
                .or_else(|_| trusting(RootCertStore::empty()))
                .map_err(|error| file(&PathBuf::new(), &error))?,
        };
        let connector = builder.https_or_http().enable_http1().wrap_connector(http);
        let hyper = HyperClient::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
        let mut client = Client::with_http_client(hyper)
            .with_url(options.url.base())
            .with_compression(Compression::Lz4)
            .with_validation(false)
            .with_product_info("netwatch", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &options.user {
            client = client.with_user(user);
        }
        if let Some(path) = &options.password_file {
            let password = bounded::text(path, limits::PASSWORD_FILE).map_err(|error| file(path, &error))?;
            client = client.with_password(password.trim_end_matches(['\n', '\r']));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| file(&PathBuf::from("/proc/self"), &error))?;
        Ok(Self { runtime, client, url: options.url.clone(), dialect: Cell::new(None) })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    fn wait<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, ServerError> {
        let done = self.runtime.block_on(async { tokio::time::timeout(patience, work).await });
        match done {
            Err(_) => {
                let why = format!("no answer in {} s", patience.as_secs());
                Err(ServerError::Away { url: self.url.clone(), why })
            }
            Ok(done) => done.map_err(|error| self.failed(&error)),
        }
    }

    fn failed(&self, error: &clickhouse::error::Error) -> ServerError {
        use clickhouse::error::Error;
        let url = self.url.clone();
        match error {
            Error::BadResponse(text) => ServerError::Refused { url, why: reason(text) },
            Error::Network(_) => {
                // The last cause says what happened; those above it, where in the client.
                let mut last: &dyn std::error::Error = error;
                while let Some(source) = last.source() {
                    last = source;
                }
                ServerError::Away { url, why: one_line(&last.to_string()) }
            }
            other => ServerError::Away { url, why: one_line(&other.to_string()) },
        }
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses.
    pub fn execute(&self, statement: &str) -> Result<(), ServerError> {
        self.wait(limits::FLEET_ANSWER, self.client.query_raw(statement).execute())
    }

    /// The rows of a query as bytes.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses.
    pub fn fetch(&self, query: &str) -> Result<Vec<u8>, ServerError> {
        log::debug!("asks: {query}");
        self.wait(limits::FLEET_ANSWER, async {
            let mut cursor = self.client.query_raw(query).fetch_bytes("RowBinary")?;
            Ok(cursor.collect().await?.to_vec())
        })
    }

    /// One text of a query.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub fn text(&self, query: &str) -> Result<Option<String>, ServerError> {
        Ok(Bytes(&self.fetch(query)?).text())
    }

    /// Inserts rows, and waits until the server has them.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses. Then it has all of them, some, or none.
    pub fn insert(
        &self,
        table: &str,
        columns: &[&str],
        rows: &[u8],
        how: Insertion,
    ) -> Result<(), ServerError> {
        let statement =
            format!("INSERT INTO {}.{table} ({}) FORMAT RowBinary", self.url.database, columns.join(", "));
        let mut client = self.client.clone();
        if how.is_distributed {
            client = client.with_setting("insert_distributed_sync", "1");
        }
        if how.is_gathered {
            client = client.with_setting("async_insert", "1").with_setting("wait_for_async_insert", "1");
        }
        self.wait(limits::FLEET_ANSWER, async {
            let mut insert = client.insert_formatted_with(statement).buffered();
            for chunk in rows.chunks(CHUNK) {
                let mut chunk = chunk;
                while !chunk.is_empty() {
                    let written = insert.write(chunk).await?;
                    chunk = chunk.get(written..).unwrap_or_default();
                }
            }
            insert.end().await
        })
    }

    /// An expression of the nanoseconds since the epoch of a time.
    #[must_use]
    pub fn nanos(&self, column: &str) -> String {
        match self.dialect.get() {
            Some(Dialect::Modern) => format!("toUnixTimestamp64Nano({column})"),
            _ => column.to_owned(),
        }
    }

    /// A time of nanoseconds since the epoch, as a value of a column.
    #[must_use]
    pub fn time(&self, nanos: i64) -> String {
        match self.dialect.get() {
            Some(Dialect::Modern) => format!("fromUnixTimestamp64Nano(toInt64({nanos}), 'UTC')"),
            _ => format!("toInt64({nanos})"),
        }
    }

    /// What it understands.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses.
    pub fn dialect(&self) -> Result<Dialect, ServerError> {
        if let Some(known) = self.dialect.get() {
            return Ok(known);
        }
        let version = self.text("SELECT version()")?.unwrap_or_default();
        let dialect = Dialect::of_version(&version);
        self.dialect.set(Some(dialect));
        Ok(dialect)
    }
}

/// How rows are inserted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Insertion {
    /// Into tables that are spread over a cluster: the answer waits for the nodes.
    pub is_distributed: bool,
    /// The server gathers the rows of many hosts, and answers when they are stored.
    pub is_gathered: bool,
}

/// Bytes that are handed over at once.
const CHUNK: usize = 256 << 10;

/// How long a connection is kept without use: less than the server's 3 s.
const IDLE: Duration = Duration::from_secs(2);

fn one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().take(300).collect()
}

/// The sentence of an exception, without the name of its class and what follows the sentence.
fn reason(text: &str) -> String {
    let text = one_line(text);
    let inner = text.split_once("DB::Exception: ").map_or(&*text, |(_, rest)| rest);
    let end =
        [", e.what() =", " (version ", ". Stack trace"].iter().filter_map(|mark| inner.find(mark)).min();
    inner.get(..end.unwrap_or(inner.len())).unwrap_or(inner).to_owned()
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_over_the_limit_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let options = ServerOptions {
            url: "http://localhost".parse().unwrap(),
            user: Some("agent".into()),
            password_file: Some(path.clone()),
            ca: None,
        };
        std::fs::write(&path, "x".repeat(limits::PASSWORD_FILE)).unwrap();
        assert!(Server::new(&options).is_ok());
        std::fs::write(&path, "x".repeat(limits::PASSWORD_FILE + 1)).unwrap();
        let error = Server::new(&options).unwrap_err().to_string();
        assert!(error.contains("larger than"), "{error}");
        // The same file is no certificate.
        let options = ServerOptions { password_file: None, ca: Some(path), ..options };
        assert!(Server::new(&options).unwrap_err().to_string().contains("it has no certificate"));
    }

    #[test]
    fn exceptions_are_cut_to_their_sentence() {
        let text = "Code: 193, e.displayText() = DB::Exception: Wrong password for user default (version 18.16.1), e.what() = DB::Exception";
        assert_eq!(reason(text), "Wrong password for user default");
        assert_eq!(reason("a\nb"), "a b");
    }
}
