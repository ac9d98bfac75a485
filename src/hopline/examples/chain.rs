//! Opens a flow to "echo" and shows its chain live, until interrupted: kill relays and watch. Needs HOPLINE_TICKET.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to people")]

use hopline::Endpoint;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = Endpoint::builder().join().await?;
    let mut flow = endpoint.open("echo").await?;
    let mut chain = flow.watch_chain();
    tokio::spawn(async move {
        while flow.write_all(b"tick").await.is_ok() && flow.flush().await.is_ok() {
            if let Err(error) = flow.read_exact(&mut [0; 4]).await {
                return eprintln!("{error}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    loop {
        let now = chain.borrow_and_update().clone();
        println!("{} failovers", now.failovers());
        for hop in now.hops() {
            println!(
                "  {:8} {:11} backup {}",
                hop.primary,
                hop.state,
                hop.backup.as_deref().unwrap_or("none")
            );
        }
        if chain.changed().await.is_err() {
            return Ok(()); // the flow is over
        }
    }
}
