//! Request and response over messages: `request serve`, and `request TEXT` elsewhere. Both need HOPLINE_TICKET.
//! A request says to which name its response goes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to people")]

use hopline::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = Endpoint::builder().join().await?;
    let text = std::env::args().nth(1).ok_or("usage: request serve | request TEXT")?;
    if text == "serve" {
        let mut requests = endpoint.receive("upper-case").await?;
        eprintln!("serving \"upper-case\"");
        while let Some(request) = requests.recv().await {
            let Some((name, text)) =
                std::str::from_utf8(request.payload()).ok().and_then(|all| all.split_once(' '))
            else {
                request.refuse("a request is a name and a text");
                continue;
            };
            let (name, response) = (name.to_owned(), text.to_uppercase());
            let _ = request.take(); // the sender gets its receipt
            if let Err(error) = endpoint.send(&name, response).await {
                eprintln!("no response to {name}: {error}");
            }
        }
    } else {
        let name = endpoint.id().to_string();
        let mut responses = endpoint.receive(&name).await?;
        endpoint.send("upper-case", format!("{name} {text}")).await?.await?; // the message has been taken
        let response = responses.recv().await.ok_or("the endpoint ended")?;
        println!("{}", String::from_utf8_lossy(&response.take()));
    }
    endpoint.shutdown().await;
    Ok(())
}
