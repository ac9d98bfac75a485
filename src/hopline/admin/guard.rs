//! A node's pages, and which requests are refused.

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, HOST};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::json;
use std::future::ready;
use std::net::IpAddr;

/// Pages by their paths.
#[derive(Debug, Default)]
pub struct Pages {
    router: Router,
    paths: Vec<&'static str>,
}

impl Pages {
    /// With a page that says that the process answers, and nothing more.
    pub(super) fn new() -> Self {
        Self::default().page("/healthz", get(async || "ok\n"))
    }

    pub(super) fn page(mut self, path: &'static str, page: MethodRouter) -> Self {
        self.paths.push(path);
        self.router = self.router.route(path, page);
        self
    }

    /// All of them behind their guards, for a server that listens on `bound`.
    pub(super) fn into_router(self, bound: IpAddr) -> Router {
        let paths = self.paths;
        let unknown = move |request: Request| {
            let error = format!("there is no page {}", request.uri().path());
            ready((StatusCode::NOT_FOUND, Json(json!({"error": error, "paths": paths}))))
        };
        self.router.fallback(unknown).layer(middleware::from_fn_with_state(bound, guard))
    }
}

/// A response that says why there is no other.
pub(super) fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"error": why}))).into_response()
}

async fn guard(State(bound): State<IpAddr>, request: Request, next: Next) -> Response {
    if !is_for_us(&request, bound) {
        let why = "this is not the host that was asked for: use localhost, or the address that this process listens on";
        return refuse(StatusCode::MISDIRECTED_REQUEST, why);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refusal = refuse(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here: only GET");
        return ([(ALLOW, "GET, HEAD")], refusal).into_response();
    }
    next.run(request).await
}

/// Whether every name under which the request asks for this machine is its own. A request without any is no browser's.
fn is_for_us(request: &Request, bound: IpAddr) -> bool {
    let named = request.headers().get_all(HOST).iter().all(|host| {
        let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
        host.is_some_and(|host| is_own(host.host(), bound))
    });
    named && request.uri().host().is_none_or(|host| is_own(host, bound))
}

fn is_own(host: &str, bound: IpAddr) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback() || bound.is_unspecified() || ip == bound,
        Err(_) => host.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_names_are_its_own() {
        let own = |host, bound: &str| is_own(host, bound.parse().unwrap());
        for host in ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(own(host, "127.0.0.1"), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1", "", "[::2]"]
        {
            assert!(!own(host, "127.0.0.1"), "{host}");
        }
        assert!(own("192.0.2.1", "192.0.2.1") && !own("192.0.2.2", "192.0.2.1"));
        assert!(own("192.0.2.2", "0.0.0.0") && !own("evil.example", "0.0.0.0"), "any address, but no name");
    }
}
