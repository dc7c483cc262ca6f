//! Who may ask, and what hostile text does to a page.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use super::*;

const HOST: &str = "127.0.0.1:8080";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Markup, script, right-to-left, controls, quotes and length, in every text.
fn hostile() -> String {
    format!("<script>alert(1)</script>\"'&\u{202e}\u{1b}[2J\n{}", "x".repeat(100_000))
}

/// A record whose every text is hostile.
struct Hostile;

fn event() -> Value {
    let text = hostile();
    let process = json!({"pid": 7, "comm": text, "exe": text, "args": [text, text], "user": text, "uid": 0, "unit": text,
        "container": text, "ancestors": [{"pid": 1, "comm": text}], "signs": [text], "start": text});
    json!({
        "ts": "2026-11-24T10:00:00.123456789Z", "event": text, "id": text, "flow": text, "proto": text, "state": text,
        "local": {"ip": text, "port": 1}, "remote": {"ip": text, "port": 2}, "process": process,
        "remote_name": {"name": text}, "local_name": {"name": text}, "errno": text, "closed_by": text, "device": text,
        "nat": {"local": {"ip": text, "port": 3}, "remote": {"ip": text, "port": 4}}, "bytes_sent": 1, "bytes_received": 2,
        "origin": {"side": "local", "basis": text, "confidence": text, "process": process, "endpoint": {"ip": text, "port": 1}},
        "listener": {"process": process},
    })
}

impl Record for Hostile {
    fn search(&self, _: &Question, _: IsGone) -> Result<Found, Refusal> {
        Ok(Found { events: vec![event(), event()], more: None })
    }

    fn histogram(&self, _: &Question, _: IsGone) -> Result<Histogram, Refusal> {
        Ok(Histogram { span: (0, i64::MAX), counts: vec![0, 3, u64::from(u32::MAX)] })
    }

    fn connection(&self, _: &str, _: IsGone) -> Result<Vec<Value>, Refusal> {
        Ok(vec![event(), event()])
    }

    fn walk(&self, _: &str, _: IsGone) -> Result<Value, Refusal> {
        let step =
            json!({"kind": "process", "why": hostile(), "ts": hostile(), "process": event()["process"]});
        let through = json!({"kind": "connection", "why": hostile(), "ts": hostile(), "connection": event()});
        Ok(json!({
            "connection": event(), "chain": [step, through],
            "origin": {"kind": hostile(), "ip": hostile(), "port": 1, "confidence": hostile(), "process": event()["process"],
                "missing": [hostile()], "possible": [event()]},
        }))
    }

    fn state(&self, _: IsGone) -> Result<State, Refusal> {
        let loss = json!({"ts": hostile(), "reason": hostile(), "count": 1, "kinds": {hostile(): 1}});
        Ok(State { store: hostile(), link: Some("0".repeat(64)), losses: vec![loss] })
    }
}

fn own() -> Own {
    let hosts = vec![HOST.to_owned(), "localhost:8080".to_owned()];
    Own { hosts, token: Token::parse(TOKEN).unwrap(), cookie: "netwatch-8080".into() }
}

fn answer(record: Arc<dyn Record>, request: Request<Body>) -> Response<Body> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let response = router(record, own()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Response::from_parts(parts, Body::from(bytes))
    })
}

fn text(response: Response<Body>) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bytes = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A GET with these headers; `Host` and the cookie are there unless given.
fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().uri(path);
    let cookie = format!("other=1; netwatch-8080={TOKEN}");
    for (name, value) in [("host", HOST), ("cookie", &*cookie)] {
        if headers.iter().all(|(given, _)| *given != name) {
            request = request.header(name, value);
        }
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn status(path: &str, headers: &[(&str, &str)]) -> u16 {
    answer(Arc::new(Hostile), get(path, headers)).status().as_u16()
}

#[test]
fn nobody_without_the_token_is_answered() {
    for (headers, expected) in [
        (&[][..], 200),
        (&[("cookie", "")], 401),
        (&[("cookie", "netwatch-8080=wrong")], 401),
        (&[("cookie", "netwatch=0123456789abcdef0123456789abcdef")], 401),
        (&[("cookie", ""), ("authorization", "Bearer 0123456789abcdef0123456789abcdef")], 200),
        (&[("cookie", ""), ("authorization", "Basic 0123456789abcdef0123456789abcdef")], 401),
    ] {
        assert_eq!(status("/", headers), expected, "{headers:?}");
    }
    // Neither is what a path is, nor whether there is such a thing.
    for path in ["/c/x", "/nothing", "/export/csv"] {
        assert_eq!(status(path, &[("cookie", "")]), 401, "{path}");
    }
    assert_eq!(status("/assets/style.css", &[("cookie", "")]), 200);
}

#[test]
fn token_becomes_a_cookie_that_scripts_do_not_see() {
    let request =
        get("/enter", &[("cookie", ""), ("x-netwatch-token", TOKEN), ("sec-fetch-site", "same-origin")]);
    let response = answer(Arc::new(Hostile), request);
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    assert_eq!(cookie, format!("netwatch-8080={TOKEN}; Path=/; HttpOnly; SameSite=Strict"));
    for headers in [&[("x-netwatch-token", "wrong")][..], &[]] {
        let response = answer(Arc::new(Hostile), get("/enter", headers));
        assert_eq!((response.status().as_u16(), response.headers().get("set-cookie")), (401, None));
    }
}

#[test]
fn only_its_own_names_are_answered() {
    for (host, expected) in [
        ("127.0.0.1:8080", 200),
        ("LOCALHOST:8080", 200),
        ("localhost", 421),
        ("localhost:80", 421),
        ("evil.example:8080", 421),
        ("", 421),
    ] {
        assert_eq!(status("/", &[("host", host)]), expected, "{host}");
    }
    let twice =
        Request::builder().uri("/").header("host", HOST).header("host", HOST).body(Body::empty()).unwrap();
    assert_eq!(answer(Arc::new(Hostile), twice).status(), StatusCode::MISDIRECTED_REQUEST);
}

#[test]
fn other_sites_are_refused() {
    for (headers, expected) in [
        (&[("origin", "http://127.0.0.1:8080")][..], 200),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")], 200),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")], 403),
        (
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ],
            200,
        ),
        (
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
            403,
        ),
    ] {
        assert_eq!(status("/", headers), expected, "{headers:?}");
    }
}

#[test]
fn nothing_but_get_is_answered() {
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let request =
            Request::builder().method(method).uri("/").header("host", HOST).body(Body::empty()).unwrap();
        let response = answer(Arc::new(Hostile), request);
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"GET, HEAD".parse().unwrap())
        );
    }
}

const PAGES: [&str; 6] = ["/", "/c/x", "/walk/x", "/originators", "/state", "/nothing"];

#[test]
fn every_answer_has_the_headers() {
    for path in PAGES.into_iter().chain(["/assets/enter.js", "/enter", "/export/csv"]) {
        for cookie in [format!("netwatch-8080={TOKEN}"), String::new()] {
            let response = answer(Arc::new(Hostile), get(path, &[("cookie", &cookie)]));
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert!(header("content-security-policy").starts_with("default-src 'none'; "), "{path}");
            assert!(!header("content-security-policy").contains("unsafe"), "{path}");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
                ("cache-control", "no-store"),
            ] {
                assert_eq!(header(name), value, "{path}");
            }
        }
    }
}

#[test]
fn hostile_text_stays_text() {
    for path in PAGES {
        let page = text(answer(Arc::new(Hostile), get(path, &[])));
        assert!(!page.contains("<script"), "{path}");
        assert!(!page.contains(['\u{202e}', '\u{1b}']), "{path}");
        // Neither a handler nor a style in the page, which the policy would not run.
        assert!(!page.contains(" on") || !page.contains("onload="), "{path}");
        assert!(!page.contains("style=") && !page.contains("javascript:"), "{path}");
        assert!(path == "/nothing" || page.contains("&lt;script&gt;"), "{path}");
    }
    let page = text(answer(Arc::new(Hostile), get("/?q=%3Cscript%3E%22", &[])));
    assert!(page.contains("value=\"&lt;script&gt;&quot;\""), "{}", page.get(..2000).unwrap_or(&page));
}

#[test]
fn exports_are_files() {
    let response = answer(Arc::new(Hostile), get("/export/jsonl?q=port:1", &[]));
    assert!(response.headers()["content-disposition"].to_str().unwrap().starts_with("attachment; "));
    let lines = text(response);
    assert_eq!(
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>(),
        [event(), event()]
    );
    let table = text(answer(Arc::new(Hostile), get("/export/csv", &[])));
    assert!(table.starts_with("ts,event,id,"));
    assert_eq!(status("/export/xlsx", &[]), 404);
}

#[test]
fn wrong_questions_are_answered_with_what_is_wrong() {
    struct Wrong;
    impl Record for Wrong {
        fn search(&self, _: &Question, _: IsGone) -> Result<Found, Refusal> {
            Err(Refusal::Wrong("`port:x`: expected a port".into()))
        }

        fn histogram(&self, _: &Question, _: IsGone) -> Result<Histogram, Refusal> {
            Err(Refusal::Failed("not asked".into()))
        }

        fn connection(&self, _: &str, _: IsGone) -> Result<Vec<Value>, Refusal> {
            Err(Refusal::Missing("no such connection".into()))
        }

        fn walk(&self, _: &str, _: IsGone) -> Result<Value, Refusal> {
            Err(Refusal::Busy("too long".into()))
        }

        fn state(&self, _: IsGone) -> Result<State, Refusal> {
            Err(Refusal::Failed("damaged".into()))
        }
    }
    for (path, expected, says) in [
        ("/?q=port:x", 400, "expected a port"),
        ("/?since=never", 400, "since: expected a time"),
        ("/export/csv?q=port:x", 400, "expected a port"),
        ("/c/x", 404, "no such connection"),
        ("/walk/x", 503, "too long"),
        ("/state", 500, "damaged"),
    ] {
        let response = answer(Arc::new(Wrong), get(path, &[]));
        assert_eq!(response.status().as_u16(), expected, "{path}");
        let page = text(response);
        assert!(page.contains(says), "{path}: {page}");
    }
}

#[test]
fn questions_are_answered_a_few_at_a_time() {
    /// Counts who asks at once, and lets them go together.
    #[derive(Default)]
    struct Slow {
        now: AtomicUsize,
        most: Mutex<usize>,
    }
    impl Record for Slow {
        fn search(&self, _: &Question, _: IsGone) -> Result<Found, Refusal> {
            Ok(Found::default())
        }

        fn histogram(&self, _: &Question, _: IsGone) -> Result<Histogram, Refusal> {
            Ok(Histogram::default())
        }

        fn connection(&self, _: &str, _: IsGone) -> Result<Vec<Value>, Refusal> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            let mut most = self.most.lock().unwrap();
            *most = now.max(*most);
            drop(most);
            std::thread::sleep(std::time::Duration::from_millis(10));
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(Vec::new())
        }

        fn walk(&self, _: &str, _: IsGone) -> Result<Value, Refusal> {
            Ok(Value::Null)
        }

        fn state(&self, _: IsGone) -> Result<State, Refusal> {
            Ok(State::default())
        }
    }
    let slow = Arc::new(Slow::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let router = router(slow.clone(), own());
    runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..4 * limits::SERVED_AT_ONCE {
            all.spawn(router.clone().oneshot(get("/c/x", &[])));
        }
        while let Some(answered) = all.join_next().await {
            assert_eq!(answered.unwrap().unwrap().status(), StatusCode::OK);
        }
    });
    assert!((1..=limits::SERVED_AT_ONCE).contains(&slow.most.lock().unwrap()));
}

#[test]
fn times_are_in_order() {
    assert!(limits::SERVED_PAUSE < limits::SERVED_HEADER_WAIT);
    assert!(limits::SERVED_HEADER_WAIT <= limits::SERVED_ANSWER);
    assert!(limits::SERVED_ANSWER < limits::SERVED_AT_MOST);
}
