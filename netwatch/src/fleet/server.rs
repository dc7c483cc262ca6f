//! A ClickHouse server, over HTTP.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clickhouse::{Client, Compression};
use hyper::Uri;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::runtime::Runtime;

use super::binary::Bytes;
use super::dialect::{Dialect, quoted};
use super::tables::{TABLES, VERSION};
use crate::{bounded, limits};

/// Where a server is: `http://HOST[:PORT][/DATABASE]`, or `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    is_tls: bool,
    host: String,
    /// The port of its HTTP interface.
    pub port: u16,
    /// The database.
    pub database: String,
}

/// The database, if the URL names none.
pub const DATABASE: &str = "netwatch";

impl FromStr for ServerUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected http://HOST[:PORT][/DATABASE] or https://HOST[:PORT][/DATABASE]";
        let uri: Uri = text.parse().map_err(|_| FORM)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(FORM),
        };
        let authority = uri.authority().ok_or(FORM)?;
        if authority.as_str().contains('@') {
            return Err("a URL has no user and no password here: there are options for them");
        }
        let database = uri.path().trim_matches('/');
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if uri.query().is_some()
            || !(database.is_empty() || is_name(database))
            || uri.host().is_none_or(str::is_empty)
        {
            return Err(FORM);
        }
        Ok(Self {
            is_tls,
            host: authority.host().to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 8443 } else { 8123 }),
            database: if database.is_empty() { DATABASE } else { database }.to_owned(),
        })
    }
}

impl ServerUrl {
    fn base(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.database)
    }
}

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
    url: ServerUrl,
    /// Once it is known.
    dialect: Cell<Option<Dialect>>,
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
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        let provider = rustls::crypto::ring::default_provider();
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
                let config = ClientConfig::builder_with_provider(provider.into())
                    .with_safe_default_protocol_versions();
                let config = config.map_err(|error| file(path, &error))?;
                builder.with_tls_config(config.with_root_certificates(roots).with_no_client_auth())
            }
            // A host without certificates can still reach servers without TLS.
            None => match hyper_rustls::HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(provider.clone())
            {
                Ok(native) => native,
                Err(_) => {
                    let config = ClientConfig::builder_with_provider(provider.into())
                        .with_safe_default_protocol_versions();
                    let config = config.map_err(|error| file(&PathBuf::new(), &error))?;
                    builder.with_tls_config(
                        config.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
                    )
                }
            },
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

    /// The version of its tables; `None`: it has none.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses.
    pub fn version(&self) -> Result<Option<u32>, ServerError> {
        let database = &self.url.database;
        let has = format!(
            "SELECT toString(count()) FROM system.tables WHERE database = {} AND name = 'schema_version'",
            quoted(database)
        );
        if self.text(&has)?.as_deref() != Some("1") {
            return Ok(None);
        }
        let version = self.text(&format!("SELECT toString(max(version)) FROM {database}.schema_version"))?;
        Ok(version.and_then(|version| version.parse().ok()).filter(|version| *version > 0))
    }

    /// An error unless its tables are of a version that this netwatch may change.
    ///
    /// # Errors
    /// If they are newer, or the server cannot be asked.
    pub fn refuse_newer(&self) -> Result<Option<u32>, ServerError> {
        let version = self.version()?;
        if let Some(newer) = version.filter(|version| *version > VERSION) {
            let why = format!(
                "its tables were made by a newer netwatch (version {newer}, this one supports {VERSION}): use the newer one"
            );
            return Err(ServerError::Schema { url: self.url.clone(), why });
        }
        Ok(version)
    }

    /// Compares its tables with those of this netwatch, whose rows the server would take apart wrongly otherwise.
    ///
    /// # Errors
    /// If they differ, or the server cannot be asked.
    pub fn check(&self) -> Result<Checked, ServerError> {
        let wrong = |why: String| ServerError::Schema { url: self.url.clone(), why };
        if self.refuse_newer()?.is_none() {
            return Err(wrong("it has no tables of netwatch: make them with `netwatch fleet setup`".into()));
        }
        self.dialect.set(None);
        let dialect = self.dialect()?;
        let database = quoted(&self.url.database);
        let bytes =
            self.fetch(&format!("SELECT table, name, type FROM system.columns WHERE database = {database}"))?;
        let (mut bytes, mut types) = (Bytes(&bytes), std::collections::HashMap::new());
        while let (Some(table), Some(name), Some(of)) = (bytes.text(), bytes.text(), bytes.text()) {
            types.insert((table, name), of);
        }
        for table in &TABLES {
            for (name, expected) in dialect.types(table) {
                let has = types.get(&(table.name.to_owned(), name.to_owned()));
                if has != Some(&expected) {
                    return Err(wrong(format!(
                        "column {}.{name} is {}, not {expected}: select another database, or move it away and run \
                         `netwatch fleet setup`",
                        table.name,
                        has.map_or("missing", |has| has)
                    )));
                }
            }
        }
        let engine =
            format!("SELECT engine FROM system.tables WHERE database = {database} AND name = 'ends'");
        let is_distributed = self.text(&engine)?.as_deref() == Some("Distributed");
        Ok(Checked { dialect, is_distributed })
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// What the server understands.
    pub dialect: Dialect,
    /// Its tables are spread over a cluster.
    pub is_distributed: bool,
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
    fn urls_are_parsed() {
        for (text, shown) in [
            ("http://db1", "http://db1:8123/netwatch"),
            ("http://127.0.0.1:18123/x_1/", "http://127.0.0.1:18123/x_1"),
            ("https://[::1]/", "https://[::1]:8443/netwatch"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "db1",
            "ftp://db1",
            "http://",
            "http://u:p@db1",
            "http://db1/a;b",
            "http://db1/?x=1",
            "http://db1/1x",
        ] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn exceptions_are_cut_to_their_sentence() {
        let text = "Code: 193, e.displayText() = DB::Exception: Wrong password for user default (version 18.16.1), e.what() = DB::Exception";
        assert_eq!(reason(text), "Wrong password for user default");
        assert_eq!(reason("a\nb"), "a b");
    }
}
