//! Who may ask, and how: checked for each request before anything is read.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse as _, Response};

use super::pages;
use super::token::Token;

/// The names by which this server may be asked, and its token.
#[derive(Clone, Debug)]
pub struct Own {
    /// As in the header `Host`: with the port.
    pub hosts: Vec<String>,
    /// What a cookie or an `Authorization` has to have.
    pub token: Token,
    /// Name of the cookie: cookies are of a host, not of a port.
    pub cookie: String,
}

/// The header in which the page that reads the token from the URL sends it.
const TOKEN: HeaderName = HeaderName::from_static("x-netwatch-token");

/// Path of the answer that sets the cookie.
const ENTER: &str = "/enter";

/// Paths that anybody may read: they say nothing.
const PUBLIC: &str = "/assets/";

/// Nothing may be loaded from elsewhere, no script or style stands in a page, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// Lets a request pass, or answers it.
pub(super) async fn check(State(own): State<Arc<Own>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&own, &request) {
        Some(response) => response,
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn refusal(own: &Own, request: &Request) -> Option<Response> {
    let (headers, path) = (request.headers(), request.uri().path());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    // A name that resolves to this host, but is another's (DNS rebinding), is not one of its own.
    let host = one(headers, &header::HOST);
    if !host.is_some_and(|host| own.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))) {
        return Some(plain(StatusCode::MISDIRECTED_REQUEST, "this server has another name"));
    }
    if headers.contains_key(header::ORIGIN) && !is_own_origin(own, headers) || is_from_elsewhere(headers) {
        return Some(plain(StatusCode::FORBIDDEN, "asked from another site"));
    }
    if path.starts_with(PUBLIC) {
        return None;
    }
    if path == ENTER {
        let said = one(headers, &TOKEN);
        return Some(match said.is_some_and(|token| own.token.is(token)) {
            true => entered(own),
            false => plain(StatusCode::UNAUTHORIZED, "not the token of this server"),
        });
    }
    (!has_token(own, headers))
        .then(|| (StatusCode::UNAUTHORIZED, Html(pages::enter().into_string())).into_response())
}

/// The only value of a header. One that is there twice may be read in two ways.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_own_origin(own: &Own, headers: &HeaderMap) -> bool {
    let origin = one(headers, &header::ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
    origin.is_some_and(|origin| own.hosts.iter().any(|host| host.eq_ignore_ascii_case(origin)))
}

/// A browser says where a request comes from. A link elsewhere may lead here, which shows the page only to its owner: the
/// cookie is not sent with it.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let is_navigation = one(headers, &HeaderName::from_static("sec-fetch-mode")) == Some("navigate");
    let is_page = one(headers, &HeaderName::from_static("sec-fetch-dest")).is_none_or(|to| to == "document");
    let site = headers.get("sec-fetch-site");
    site.is_some_and(|site| site != "same-origin" && site != "none" && !(is_navigation && is_page))
}

fn has_token(own: &Own, headers: &HeaderMap) -> bool {
    let bearer = one(headers, &header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    if bearer.is_some_and(|token| own.token.is(token.trim())) {
        return true;
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .any(|(name, value)| name == own.cookie && own.token.is(value))
}

fn entered(own: &Own) -> Response {
    let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", own.cookie, own.token.text());
    let mut response = StatusCode::NO_CONTENT.into_response();
    match HeaderValue::from_str(&cookie) {
        Ok(cookie) => {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            response
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the token cannot be a cookie"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
