//! `hopline receive`

use data_encoding::BASE64;
use hopline::endpoint::{Endpoint, Inbox, Message};
use hopline_command::join::{ServeArgs, with_endpoint};
use hopline_command::stdio::Stdout;
use hopline_command::{Exit, Failure, ready, signals};
use serde_json::json;

/// Serve a name and print each message on a line. A message counts as taken once it is printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline receive printer
  hopline receive printer --count 1
  hopline receive printer --json | jq -r .text       one line a message, whatever it contains
  hopline receive photos --raw --count 1 | tail -n +2 > photo.jpg

The first line is the ready line.")]
pub(super) struct Args {
    /// The name to serve
    #[arg(value_parser = hopline_command::name::parse)]
    name: String,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    serve: ServeArgs,
}

/// How a message is printed.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Form {
    /// End each message with a NUL instead of a newline, for messages with several lines
    #[arg(short = '0', long)]
    null: bool,
    /// Print the messages' bytes and nothing between them
    #[arg(long)]
    raw: bool,
    /// Print a JSON object for each message: {"message": its number, "from": the sender, "text": if UTF-8, "base64": its bytes}
    #[arg(long)]
    json: bool,
}

impl Form {
    fn print(&self, number: u64, message: &Message) -> Vec<u8> {
        let payload = message.payload();
        if self.json {
            let mut object = json!({
                "message": number,
                "from": message.from().to_string(),
                "base64": BASE64.encode(payload),
            });
            if let (Ok(text), Some(fields)) = (std::str::from_utf8(payload), object.as_object_mut()) {
                fields.insert("text".to_owned(), text.into());
            }
            return format!("{object}\n").into_bytes();
        }
        let end: &[u8] = match (self.raw, self.null) {
            (true, _) => b"",
            (_, true) => b"\0",
            _ => b"\n",
        };
        [payload, end].concat()
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let name = &args.name;
    let work = async |endpoint: &Endpoint| {
        let mut inbox = args.serve.serve(endpoint, endpoint.receive(name)).await?;
        ready::print(&json!({"role": "receive", "name": name, "id": endpoint.id().to_string()}));
        // The message that is being printed is dropped only when all is told: to drop it says less.
        let mut printing = None;
        let (result, cause) = tokio::select! {
            biased;
            result = receive(&mut inbox, &mut printing, &args) => {
                let taken = args.count.map_or_else(String::new, |count| format!(": it took the {count} it was to take"));
                (result, format!("\"{name}\" takes no more messages{taken}"))
            }
            ended = signals::ended() => (Ok(()), format!("\"{name}\" takes no more messages: {}", ended.message())),
        };
        let cause = result.as_ref().err().map_or(cause, |failure: &Failure| failure.message().to_owned());
        inbox.close(cause);
        drop(printing);
        result
    };
    with_endpoint(args.serve.endpoint().await?, std::future::pending(), work).await
}

/// Prints messages; the one that it is at stands in `printing`.
async fn receive(inbox: &mut Inbox, printing: &mut Option<Message>, args: &Args) -> Result<(), Failure> {
    let mut out = Stdout::new()?;
    let mut number = 0;
    while args.count.is_none_or(|count| number < count) {
        let Some(message) = inbox.recv().await else {
            return Err(Failure::new(Exit::Failed, "the node ended"));
        };
        number += 1;
        let bytes = args.form.print(number, &message);
        *printing = Some(message);
        out.write(&bytes).await?;
        out.flush().await?;
        let _ = printing.take().map(Message::take);
    }
    Ok(())
}
