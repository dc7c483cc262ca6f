//! Files of the pages, which are in the binary.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// Name, content type, bytes.
const FILES: [(&str, &str, &[u8]); 2] = [
    ("style.css", "text/css; charset=utf-8", include_bytes!("assets/style.css")),
    ("enter.js", "text/javascript; charset=utf-8", include_bytes!("assets/enter.js")),
];

/// A file by its name.
pub(super) fn file(name: &str) -> Option<Response> {
    let (_, kind, bytes) = FILES.into_iter().find(|(known, ..)| *known == name)?;
    Some(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}
