//! A client of a bootstrap's admin server: HTTP/1.1 without TLS, a connection for each question.
//!
//! Whoever answers there is not trusted: heads, bodies and lines are bounded, and so is the time for each.

use super::{NetworkEvent, NetworkView};
use bytes::{Bytes, BytesMut};
use hopline_command::{Exit, Failure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::{Decoder, LinesCodec};

/// How long it may take until the server's first word.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// How long a whole answer may take after that.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a stream of events may be silent: the server comments on it more often.
const SILENCE: Duration = Duration::from_secs(45);
/// Most bytes of an answer: some 100,000 relays.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Most bytes that are read ahead of what is asked for, a head included.
const MAX_BUFFER_BYTES: usize = 64 << 10;
/// Most bytes of an event.
const MAX_EVENT_BYTES: usize = 16 << 10;
/// How much of a refusal is shown.
const MAX_SHOWN: usize = 200;

/// Where an admin server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admin {
    host: String,
    port: u16,
}

impl fmt::Display for Admin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://{}:{}", self.host, self.port)
    }
}

impl FromStr for Admin {
    type Err = String;

    /// Reads `HOST:PORT` or `http://HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let no_server =
            || "write HOST:PORT or http://HOST:PORT, as the bootstrap's ready line does".to_owned();
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = url.parse().map_err(|_| no_server())?;
        if uri.scheme_str() == Some("https") {
            return Err(
                "an admin server speaks http, not https; reach a distant one through a tunnel".to_owned()
            );
        }
        let is_bare = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        match (uri.host(), uri.port_u16()) {
            (Some(host), Some(port)) if is_bare && !host.is_empty() && port != 0 => {
                Ok(Self { host: host.to_owned(), port })
            }
            _ => Err(no_server()),
        }
    }
}

impl Admin {
    /// The network as it is now.
    pub(super) async fn view(&self) -> Result<NetworkView, Failure> {
        let body = self.get("/peers").await?.into_body();
        let announced = body.size_hint().lower();
        if announced > MAX_ANSWER_BYTES as u64 {
            return Err(self.foreign(format!("answers /peers with {announced} bytes")));
        }
        let body = match timeout(ANSWER, Limited::new(body, MAX_ANSWER_BYTES).collect()).await {
            Err(_) => {
                return Err(self.unreachable(format!("its answer took more than {} s", ANSWER.as_secs())));
            }
            Ok(Err(error)) => return Err(self.broken(error)),
            Ok(Ok(body)) => body.to_bytes(),
        };
        serde_json::from_slice(&body)
            .map_err(|error| self.foreign(format!("answers /peers with something else: {error}")))
    }

    /// What happens from now on.
    pub(super) async fn events(&self) -> Result<Events, Failure> {
        let body = self.get("/events").await?.into_body();
        Ok(Events { body, lines: LinesCodec::new_with_max_length(MAX_EVENT_BYTES), buffer: BytesMut::new() })
    }

    async fn get(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let response = match timeout(FIRST_WORD, self.first_word(path)).await {
            Err(_) => return Err(self.unreachable(format!("no answer within {} s", FIRST_WORD.as_secs()))),
            Ok(response) => response?,
        };
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let body = timeout(FIRST_WORD, Limited::new(response.into_body(), MAX_BUFFER_BYTES).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        let text: String =
            String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
        Err(self.foreign(format!("answers {path} with {status} {text}")))
    }

    async fn first_word(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let host = self.host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, self.port)).await.map_err(|error| self.unreachable(error))?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_BUFFER_BYTES);
        let (mut sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error.into()))?;
        // It ends when nobody wants anything of it any more.
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.unreachable(error))?;
        sender.send_request(request).await.map_err(|error| self.broken(error.into()))
    }

    fn unreachable(&self, cause: impl fmt::Display) -> Failure {
        Failure::new(
            Exit::NoBootstrap,
            format!(
                "no admin server at {self}: {cause}; check the address in the bootstrap's ready line, and that it runs"
            ),
        )
    }

    fn foreign(&self, cause: impl fmt::Display) -> Failure {
        Failure::new(
            Exit::Failed,
            format!("what serves {self} is no bootstrap's admin server: it {cause}; check the address"),
        )
    }

    /// A connection that broke, or an answer that is none.
    fn broken(&self, error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
        match error.downcast_ref::<hyper::Error>() {
            Some(error) if !error.is_parse() => self.unreachable(format!("the connection broke ({error})")),
            _ => self.foreign(format!("does not speak HTTP as it should ({error})")),
        }
    }
}

/// Events as they come (server-sent events, as the HTML standard has them).
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    lines: LinesCodec,
    buffer: BytesMut,
}

impl Events {
    /// The next one; `None` when there is nobody to tell of more. Not to be cancelled.
    pub(crate) async fn next(&mut self) -> Option<NetworkEvent> {
        loop {
            while let Some(line) = self.lines.decode(&mut self.buffer).ok()? {
                if let Some(event) =
                    line.strip_prefix("data:").and_then(|data| serde_json::from_str(data).ok())
                {
                    return Some(event);
                }
            }
            let frame = timeout(SILENCE, self.body.frame()).await.ok()??.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::peers;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that gives one answer, and the head that it was asked with.
    async fn serve(answer: String) -> (Admin, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap().to_string().parse().unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            // Whoever was told too much hangs up.
            let _ = stream.write_all(answer.as_bytes()).await;
            String::from_utf8(head).unwrap()
        });
        (admin, asked)
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    /// How asking for the network fails with this answer.
    async fn failure(answer: String) -> (Exit, String) {
        let failure = serve(answer).await.0.view().await.unwrap_err();
        (failure.exit(), failure.message().to_owned())
    }

    #[test]
    fn addresses_and_urls_are_read() {
        for text in
            ["127.0.0.1:4480", "localhost:4480", "http://127.0.0.1:4480/", "http://[::1]:4480", "[::1]:4480"]
        {
            let admin: Admin = text.parse().unwrap();
            let shown = admin.to_string();
            assert!(
                shown.contains(text.trim_start_matches("http://").trim_end_matches('/')),
                "{text}: {shown}"
            );
        }
        for text in [
            "",
            "4480",
            "localhost",
            "127.0.0.1:0",
            "ftp://x:1",
            "http://x:1/peers",
            "a b:1",
            "x:99999",
            ":1",
        ] {
            assert!(text.parse::<Admin>().is_err(), "{text}");
        }
        assert!("https://x:1".parse::<Admin>().unwrap_err().contains("not https"));
    }

    #[tokio::test]
    async fn the_network_is_read() {
        let (admin, asked) = serve(ok(&peers().to_string())).await;
        let view = admin.view().await.unwrap();
        assert_eq!((view.network.as_str(), view.relays.len()), ("net1", 1));
        let head = asked.await.unwrap();
        let host = format!("host: {}", admin.to_string().trim_start_matches("http://"));
        assert!(head.starts_with("GET /peers HTTP/1.1\r\n") && head.to_lowercase().contains(&host), "{head}");
    }

    #[tokio::test]
    async fn what_is_no_admin_server_is_told() {
        let foreign = [
            (ok("hello"), "something else"),
            (ok("{}"), "something else"),
            (
                "HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\nno\x1b[2J!".to_owned(),
                "404 Not Found no[2J",
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "does not speak HTTP"),
            (format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_BUFFER_BYTES * 2)), "does not speak HTTP"),
            (
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MAX_ANSWER_BYTES + 1),
                "67108865 bytes",
            ),
        ];
        for (answer, why) in foreign {
            let (exit, message) = failure(answer).await;
            assert!(exit == Exit::Failed && message.contains(why), "{exit:?} {message}");
        }
    }

    #[tokio::test]
    async fn nobody_there_and_a_broken_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin: Admin = listener.local_addr().unwrap().to_string().parse().unwrap();
        drop(listener);
        let failure_to_connect = admin.view().await.unwrap_err();
        assert_eq!(failure_to_connect.exit(), Exit::NoBootstrap);
        assert!(failure_to_connect.message().contains("ready line"), "{failure_to_connect:?}");
        for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"] {
            let (exit, message) = failure(answer.to_owned()).await;
            assert!(exit == Exit::NoBootstrap && message.contains("broke"), "{exit:?} {message}");
        }
    }

    #[tokio::test]
    async fn events_come_one_by_one_until_the_server_ends_or_talks_nonsense() {
        let told = ": hello\n\nevent: x\r\ndata: {\"event\":\"offline\",\"name\":\"r1\"}\n\ndata:{\"event\":\"back\"}\n\ndata: what?\n\n";
        let (admin, _asked) = serve(ok(told)).await;
        let mut events = admin.events().await.unwrap();
        let first = events.next().await.unwrap();
        assert_eq!((first.event.as_str(), first.name.as_deref()), ("offline", Some("r1")));
        assert_eq!(events.next().await.unwrap().event, "back");
        assert_eq!(events.next().await, None);
        let endless = format!("data: {}", "x".repeat(MAX_EVENT_BYTES + 1));
        let (admin, _asked) = serve(ok(&endless)).await;
        assert_eq!(admin.events().await.unwrap().next().await, None);
    }
}
