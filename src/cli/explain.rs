//! `hopline explain`

mod story;
mod text;

use hopline_command::{Exit, Failure, journal, say};
use std::io::Write;
use std::path::{Path, PathBuf};
use story::{Damage, Story};

/// Explain what happened to a flow: its chain, and for each failure who noticed it, by which evidence, how soon, what was
/// sent again, and the repair.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline explain                          the flow of which something was noted last
  hopline explain 3fa9                     the flow whose id begins with 3fa9
  hopline explain --list                   the known flows
  hopline pipe x --events < f 2> events; hopline explain --from events

Each command that opens flows keeps a journal of them on this machine, except with --no-journal.")]
pub(super) struct Args {
    /// The flow's id, or the beginning of it; by default the flow whose last event is the latest
    #[arg(conflicts_with = "list")]
    flow: Option<String>,
    /// List the known flows
    #[arg(long)]
    list: bool,
    /// Read saved output of --events instead of the journals; - is stdin
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut out = say::output();
    if args.list {
        return list(args, &mut out);
    }
    let story = match &args.from {
        Some(file) => {
            let mut stories = read_events(file)?;
            let ids: Vec<String> = stories.iter().map(|story| story.flow.clone()).collect();
            let place = choose(&ids, args.flow.as_deref(), &file.display().to_string())?;
            stories.swap_remove(place)
        }
        None => {
            let kept = kept()?;
            let ids: Vec<String> = kept.iter().map(|file| file.flow.clone()).collect();
            let place = choose(&ids, args.flow.as_deref(), "the journals of this machine's flows")?;
            let Some(file) = kept.get(place) else { return Err(none()) };
            read_journal(&file.path)?
        }
    };
    if args.json {
        writeln!(out, "{}", story.to_json())?;
    } else {
        text::tell(&story, &mut out)?;
    }
    Ok(())
}

/// The place of the flow whose id begins with `wanted`; of the last without it.
fn choose(ids: &[String], wanted: Option<&str>, among: &str) -> Result<usize, Failure> {
    let Some(wanted) = wanted.map(str::to_ascii_lowercase) else {
        return ids.len().checked_sub(1).ok_or_else(none);
    };
    if wanted.is_empty() || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message =
            format!("{wanted:?} is no flow's id: write its first hexadecimal digits, as events show them");
        return Err(Failure::new(Exit::Usage, message));
    }
    let found: Vec<usize> =
        ids.iter().enumerate().filter(|(_, id)| id.starts_with(&wanted)).map(|(place, _)| place).collect();
    match found.as_slice() {
        [place] => Ok(*place),
        [] => Err(Failure::new(
            Exit::Failed,
            format!("no flow {wanted} is known to {among}; `hopline explain --list` shows those that are"),
        )),
        several => Err(Failure::new(
            Exit::Usage,
            format!("{wanted} is the beginning of {} flows' ids; write more of it", several.len()),
        )),
    }
}

fn none() -> Failure {
    Failure::new(
        Exit::Failed,
        "no flow is known: none was opened from this machine by this user, or only with --no-journal; \
         `hopline pipe NAME` opens one",
    )
}

/// The journals, the last written last.
fn kept() -> Result<Vec<journal::Kept>, Failure> {
    let directory = journal::directory().ok_or_else(none)?;
    let mut files = match journal::files(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        files => files.map_err(|error| unreadable(&directory, &error))?,
    };
    files.sort_by_key(|file| file.written);
    Ok(files)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("can't read {}: {error}; see whether this user may", path.display()))
}

fn read_journal(path: &Path) -> Result<Story, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Story::of_journal(&text).map_err(|damage| damaged(path, &damage))
}

fn damaged(path: &Path, damage: &Damage) -> Failure {
    Failure::new(
        Exit::Failed,
        format!(
            "{} is damaged: {damage}; remove it, or try another flow of `hopline explain --list`",
            path.display()
        ),
    )
}

fn read_events(path: &Path) -> Result<Vec<Story>, Failure> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| unreadable(path, &error))?;
    let stories = Story::of_events(&text).map_err(|damage| damaged(path, &damage))?;
    if stories.is_empty() {
        let message =
            format!("{} holds no events: is it the stderr of a command with --events?", path.display());
        return Err(Failure::new(Exit::Failed, message));
    }
    Ok(stories)
}

fn list(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let stories: Vec<(String, Result<Story, Failure>)> = match &args.from {
        Some(file) => read_events(file)?.into_iter().map(|story| (story.flow.clone(), Ok(story))).collect(),
        None => kept()?.into_iter().map(|file| (file.flow, read_journal(&file.path))).collect(),
    };
    if args.json {
        let flows: Vec<_> =
            stories.iter().map(|(flow, story)| text::entry_json(flow, story.as_ref().ok())).collect();
        return Ok(writeln!(out, "{}", serde_json::json!({ "flows": flows }))?);
    }
    if stories.is_empty() {
        return Err(none());
    }
    writeln!(out, "{:<34} {:<20} {:<24} {:>9}  END", "FLOW", "NAME", "OPENED", "INCIDENTS")?;
    for (flow, story) in &stories {
        writeln!(out, "{}", text::entry(flow, story.as_ref().ok()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_found_by_the_beginning_of_its_id() {
        let ids = ["3fa9".to_owned(), "3fb0".to_owned(), "40".to_owned()];
        let choose = |wanted| choose(&ids, wanted, "these");
        assert_eq!(choose(None).unwrap(), 2, "the last");
        assert_eq!(choose(Some("3FA")).unwrap(), 0);
        for wanted in ["3f", "5", "", "../etc"] {
            assert!(choose(Some(wanted)).is_err(), "{wanted:?}");
        }
        assert!(super::choose(&[], None, "these").is_err());
    }
}
