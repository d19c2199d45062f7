//! The status page at `/`: a few files inside the binary, and nothing from anywhere else.
//!
//! The page gets everything it shows from `/events` (or `/status`) and `/history`.

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const PAGE: &str = include_str!("../page/index.html");
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name below `/page/`, content type, content.
const FILES: [(&str, &str, &str); 9] = [
    ("style.css", CSS, include_str!("../page/style.css")),
    ("theme.js", SCRIPT, include_str!("../page/theme.js")),
    ("words.js", SCRIPT, include_str!("../page/words.js")),
    ("dom.js", SCRIPT, include_str!("../page/dom.js")),
    ("chart.js", SCRIPT, include_str!("../page/chart.js")),
    ("card.js", SCRIPT, include_str!("../page/card.js")),
    (
        "collections.js",
        SCRIPT,
        include_str!("../page/collections.js"),
    ),
    ("custom.js", SCRIPT, include_str!("../page/custom.js")),
    ("app.js", SCRIPT, include_str!("../page/app.js")),
];

/// What a browser may load and do: this server's own files, no inline script, no other host.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The routes of this module.
pub(super) fn routes() -> Router {
    Router::new()
        .route(
            "/",
            get(|| async { answer("text/html; charset=utf-8", PAGE) }),
        )
        .route("/page/{file}", get(file))
}

async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(file, ..)| *file == name) {
        Some((_, kind, content)) => answer(kind, content),
        None => (StatusCode::NOT_FOUND, "the page has no such file\n").into_response(),
    }
}

fn answer(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A browser loads files over several connections at once; left open, those of a few pages
        // would be all that there are.
        (header::CONNECTION, "close"),
        // After an update of the daemon the page is the new one.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}
