//! `hopline top`
//!
//! The screen follows from a [model](model) that knows neither clock, terminal nor network, and is [drawn](draw) after every
//! event. This file has the terminal and the tasks that ask the network and read keys.
//!
//! Invariant: however this ends, the terminal is restored.

mod draw;
mod model;

use crate::network_view::{Source, SourceArgs};
use hopline::net::clock::Clock;
use hopline_command::{Exit, Failure, duration, signals};
use model::{Input, Key, Model};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// The shortest time between two looks at the network.
const MIN_EVERY: Duration = Duration::from_millis(100);
/// The longest one.
const MAX_EVERY: Duration = Duration::from_secs(3600);
/// How often the screen is drawn if nothing happens, so that it shows how old the figures are.
const FRAME: Duration = Duration::from_secs(1);
/// How long until a stream of events that ended is asked for again.
const PAUSE: Duration = Duration::from_secs(2);
/// How many inputs may wait to be shown; whoever brings more waits.
const QUEUE: usize = 64;

/// Watch a network live: its relays, the busiest first, and its events.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline top
  hopline top --admin 127.0.0.1:4480 --every 5s    all relays and the bootstrap's own events, without a ticket

Keys: s sort by the next column, r reverse the order, / filter by name or zone, arrows and PgUp PgDn scroll,
p pause, ? help, q or Ctrl-C quit.")]
pub(super) struct Args {
    /// Refresh interval
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = every)]
    every: Duration,
    #[command(flatten)]
    source: SourceArgs,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = duration::parse(text)?;
    let fits = (MIN_EVERY..=MAX_EVERY).contains(&every);
    if fits { Ok(every) } else { Err(format!("not between {MIN_EVERY:?} and {MAX_EVERY:?}")) }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "this needs a terminal to draw on; `hopline status` prints the same once",
        ));
    }
    let source = args.source.open().await?;
    let result = watch(&source, args.every).await;
    source.close().await;
    result
}

/// The terminal while it is ours.
struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal; gives it back even in a panic.
    fn enter() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| ratatui::restore())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn watch(source: &Source, every: Duration) -> Result<(), Failure> {
    // Whoever can't be reached at all is told as `status` tells it, not on a screen of its own.
    let first = source.view().await?;
    let clock = Clock::start();
    let mut model = Model::new(first, clock.now());
    let (inputs, mut received) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(look(source.clone(), every, inputs.clone()));
    tasks.spawn(listen(source.clone(), inputs.clone()));
    let mut screen = Screen::enter()?;
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&inputs))?;
    let mut stopped = pin!(signals::shutdown());
    let mut frames = interval(FRAME);
    loop {
        screen.0.draw(|frame| draw::draw(frame, &mut model, clock.now()))?;
        let mut next = tokio::select! {
            input = received.recv() => input,
            _ = frames.tick() => None,
            () = &mut stopped => return Ok(()),
            _ = tasks.join_next() => return Err(Failure::new(Exit::Failed, "a part of it failed; please report this")),
        };
        while let Some(input) = next {
            if model.handle(input, clock.now()).is_break() {
                return model.end();
            }
            next = received.try_recv().ok();
        }
    }
}

/// Looks at the network again and again.
async fn look(source: Source, every: Duration, inputs: mpsc::Sender<Input>) {
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let input = match source.view().await {
            Ok(view) => Input::Sample(Box::new(view)),
            Err(failure) => Input::Unreachable(failure.message().to_owned()),
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

/// Passes on what the source tells of its own accord.
async fn listen(source: Source, inputs: mpsc::Sender<Input>) {
    loop {
        if let Some(mut events) = source.events().await {
            let _ = inputs.send(Input::Told(true)).await;
            while let Some(event) = events.next().await {
                let _ = inputs.send(Input::Event(event)).await;
            }
        }
        if inputs.send(Input::Told(false)).await.is_err() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Passes keys on until nobody takes them. The thread ends with the process: reading can't be interrupted.
fn read_keys(inputs: &mpsc::Sender<Input>) {
    loop {
        let input = match event::read() {
            Ok(Event::Key(key)) if key.is_press() => key_of(key).map(Input::Key),
            Ok(Event::Resize(..)) => Some(Input::Resized),
            Ok(Event::Key(_) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_)) => {
                None
            }
            Err(error) => Some(Input::Deaf(error.to_string())),
        };
        let is_deaf = matches!(input, Some(Input::Deaf(_)));
        if input.is_some_and(|input| inputs.blocking_send(input).is_err()) || is_deaf {
            return;
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a keyboard has many keys")]
fn key_of(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Interrupt,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}
