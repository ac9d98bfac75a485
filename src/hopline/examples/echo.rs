//! An echo server and its client: `echo serve`, and `echo TEXT...` elsewhere. Both need HOPLINE_TICKET.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to people")]

use hopline::{Endpoint, Flow};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = Endpoint::builder().join().await?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words == ["serve"] {
        let mut listener = endpoint.listen("echo").await?;
        eprintln!("serving \"echo\"");
        while let Some(flow) = listener.accept().await {
            tokio::spawn(async { echo(flow).await.unwrap_or_else(|error| eprintln!("{error}")) });
        }
    } else {
        let (mut send, mut receive) = endpoint.open("echo").await?.split();
        send.write_all(words.join(" ").as_bytes()).await?;
        send.shutdown().await?; // the end of this direction
        let mut answer = String::new();
        receive.read_to_string(&mut answer).await?;
        println!("{answer}");
        drop(receive); // everything was taken
        send.finish().await?;
    }
    endpoint.shutdown().await;
    Ok(())
}

async fn echo(flow: Flow) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (mut send, mut receive) = flow.split();
    copy(&mut receive, &mut send).await?;
    drop(receive);
    Ok(send.finish().await?)
}
