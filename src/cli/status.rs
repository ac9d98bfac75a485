//! `hopline status`

use crate::network_view::{Column, NetworkView, SourceArgs, TargetView};
use hopline_command::{Failure, say, signals};
use std::io::{self, Write};

/// Show the relays and names of a network, as its bootstrap sees them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  hopline status
  hopline status --admin 127.0.0.1:4480    all relays, without a ticket; the address is in the bootstrap's ready line
  hopline status --json | jq '.relays[] | select(.status != \"online\")'
  hopline top                              the same, live")]
pub(super) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let source = args.source.open().await?;
    let view = tokio::select! {
        view = source.view() => view,
        ended = signals::ended() => Err(ended),
    };
    source.close().await;
    let view = view?;
    let mut out = say::output();
    if args.json {
        serde_json::to_writer(&mut out, &view).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&mut out, &view)?;
    }
    Ok(())
}

fn print(out: &mut impl Write, view: &NetworkView) -> io::Result<()> {
    writeln!(out, "network {}, bootstrap up {:.0} s", plain(&view.network), view.bootstrap.uptime_seconds)?;
    writeln!(
        out,
        "{}; {} may be assigned, {} registered",
        plain(&view.pool()),
        view.total,
        view.total_registered
    )?;
    if !view.is_complete() {
        writeln!(out, "these are the first {} relays; --admin shows all", view.relays.len())?;
    }
    for warning in view.warnings() {
        writeln!(out, "WARNING: {}", plain(&warning))?;
    }
    let mut rows = vec![Column::ALL.map(|column| column.heading().to_owned())];
    rows.extend(view.relays.iter().map(|relay| Column::ALL.map(|column| column.cell(relay))));
    print_rows(out, &rows, &Column::ALL.map(Column::is_text))?;
    if !view.targets.is_empty() {
        let mut rows = vec![["NAME", "NODE", "ATTACHED TO", "LEASE s"].map(str::to_owned)];
        rows.extend(view.targets.iter().flat_map(target_rows));
        print_rows(out, &rows, &[true, true, true, false])?;
    }
    Ok(())
}

/// A row for each of its names.
fn target_rows(target: &TargetView) -> impl Iterator<Item = [String; 4]> {
    target.names.iter().map(|name| {
        let node = target.id.chars().take(8).collect();
        [name.clone(), node, target.attachments.join(", "), format!("{:.0}", target.lease_seconds)]
    })
}

/// An empty line and the rows, each column as wide as it must be.
fn print_rows<const N: usize>(
    out: &mut impl Write,
    rows: &[[String; N]],
    left: &[bool; N],
) -> io::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    writeln!(out)?;
    for row in rows {
        let cells = row.iter().zip(widths).zip(left).map(|((cell, width), left)| {
            let cell = plain(cell);
            if *left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// What a terminal takes for nothing but text.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network_view::tests::{network, relay};

    fn printed(view: &NetworkView) -> Vec<String> {
        let mut out = Vec::new();
        print(&mut out, view).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_table_is_as_wide_as_it_must_be() {
        let mut suspect = relay("a-relay-with-a-long-name", "suspect", 50);
        suspect.zone = "eu-west".to_owned();
        suspect.cpu_percent = Some(7);
        suspect.bytes_per_second = 12_345_678;
        let mut view = network(vec![relay("r1", "online", 0), suspect]);
        view.targets.push(TargetView {
            names: vec!["echo".to_owned(), "printer".to_owned()],
            id: "0123456789abcdef".to_owned(),
            attachments: vec!["r1".to_owned()],
            lease_seconds: 29.4,
        });
        let expected = [
            "network net1, bootstrap up 60 s",
            "1 online, 1 suspect; 2 may be assigned, 2 registered",
            "",
            "NAME                      STATUS   ZONE     FLOWS/CAP  LOAD %  CPU %  MEM %  MB/s  AGE s  LEASE s  VERSION",
            "r1                        online                0/100       0      -      -   0.0      0        0",
            "a-relay-with-a-long-name  suspect  eu-west     50/100      50      7      -  12.3      0        0",
            "",
            "NAME     NODE      ATTACHED TO  LEASE s",
            "echo     01234567  r1                29",
            "printer  01234567  r1                29",
        ];
        assert_eq!(printed(&view), expected);
    }

    #[test]
    fn what_must_be_known_comes_first_and_nothing_moves_the_cursor() {
        let mut view = network(vec![relay("evil\x1b[2J", "online", 0)]);
        view.total_registered = 5000;
        view.bootstrap.preserving_seconds = Some(34.0);
        view.bootstrap.store = Some(serde_json::json!({"error": "disk full"}));
        let lines = printed(&view);
        assert_eq!(lines[2], "these are the first 1 relays; --admin shows all");
        assert!(lines[3].starts_with("WARNING: self-preservation for 34 s"), "{}", lines[3]);
        assert!(lines[4].starts_with("WARNING: ") && lines[4].contains("disk full"), "{}", lines[4]);
        assert!(lines.iter().all(|line| !line.contains('\x1b')), "{lines:?}");
        assert!(lines[7].starts_with("evil?[2J  online"), "{}", lines[7]);
    }
}
