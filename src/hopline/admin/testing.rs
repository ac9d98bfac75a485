//! A tiny client, for tests.

use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The samples of an exposition, by name and labels. Every line has to be understood.
    pub(super) fn samples(&self) -> HashMap<String, f64> {
        let body = self.body.strip_suffix("# EOF\n").expect("an end");
        let mut samples = HashMap::new();
        for line in body.lines() {
            let is_comment = ["# HELP ", "# TYPE ", "# UNIT "].iter().any(|start| line.starts_with(start));
            if !is_comment {
                let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
                let known =
                    samples.insert(name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")));
                assert!(known.is_none(), "twice: {line}");
            }
        }
        samples
    }
}

pub(super) async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Sends this, and takes all that comes back. (To HTTP/1.0 nothing is sent in chunks.)
pub(super) async fn exchange(url: &str, request: &str) -> Answer {
    let mut stream = connect(url).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    Answer::parse(&text)
}

pub(super) async fn get(url: &str, path: &str) -> Answer {
    exchange(url, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")).await
}

/// A reader of events.
pub(super) struct Events(BufReader<TcpStream>);

impl Events {
    /// From now on nothing is missed.
    pub(super) async fn open(url: &str) -> Self {
        let mut stream = connect(url).await;
        stream.write_all(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut events = Self(BufReader::new(stream));
        assert!(events.line().await.contains("200"));
        while !events.line().await.is_empty() {}
        events
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Value {
        loop {
            if let Some(data) = self.line().await.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(timeout(TIMEOUT, self.0.read_line(&mut line)).await.unwrap().unwrap(), 0, "the end");
        line.trim_end().to_owned()
    }
}
