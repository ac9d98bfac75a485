//! A run as a picture: goodput and pauses over time, with the departures.

use super::Args;
use super::load::Direction;
use super::report::{Outcome, Phase};
use crate::plot::{self, Chart, Marks, Series, Shape};
use hopline_churn::Leave;
use hopline_command::Failure;
use std::path::Path;

pub(super) fn draw(path: &Path, args: &Args, outcome: &Outcome) -> Result<(), Failure> {
    let caption = format!(
        "hopline bench churn: {}, {} times as fast, {} relays, {} hops, seed {}",
        args.sessions, args.speedup, outcome.relays, args.hops, outcome.seed
    );
    let mut goodput = Vec::new();
    for (kind, paced, colour) in [("paced", true, plot::BLUE), ("bulk", false, plot::GREEN)] {
        if (if paced { args.flows } else { args.bulk }) == 0 {
            continue;
        }
        goodput.push(line(&outcome.churn, paced, format!("{kind} flows"), colour));
        goodput.push(line(&outcome.baseline, paced, format!("{kind} flows, no churn"), plot::GREY));
    }
    let pauses = |phase: &Phase| phase.directions.iter().flat_map(long_pauses).collect();
    let stems = |name: &str, phase, colour| Series {
        name: name.to_owned(),
        colour,
        shape: Shape::Stems,
        points: pauses(phase),
    };
    let charts = [
        Chart { label: "MB/s".to_owned(), series: goodput, marks: departures(&outcome.churn) },
        Chart {
            label: "pauses of 50 ms and more, ms".to_owned(),
            series: vec![
                stems("with churn", &outcome.churn, plot::BLUE),
                stems("without", &outcome.baseline, plot::GREY),
            ],
            marks: departures(&outcome.churn),
        },
    ];
    plot::draw(path, &caption, ("seconds", outcome.churn.seconds), &charts)
}

fn line(phase: &Phase, paced: bool, name: String, colour: plotters::style::RGBColor) -> Series {
    let points = phase.goodput_over_time(paced).into_iter().map(|(at, bytes)| (at, bytes / 1e6)).collect();
    Series { name, colour, shape: Shape::Line, points }
}

fn long_pauses(direction: &Direction) -> impl Iterator<Item = (f64, f64)> + '_ {
    direction.long_pauses.iter().map(|(at, pause)| (at.as_secs_f64(), pause.as_secs_f64() * 1000.0))
}

fn departures(phase: &Phase) -> Vec<Marks> {
    let kinds = [
        (Leave::Crash, "killed", plot::ORANGE),
        (Leave::Graceful, "left", plot::GREEN),
        (Leave::ZoneFailure, "died with zone", plot::PURPLE),
    ];
    let marks = kinds.map(|(how, name, colour)| {
        let all = phase.history.departures.iter().filter(|departure| departure.how == how);
        Marks { name: name.to_owned(), colour, at: all.map(|departure| departure.at.as_secs_f64()).collect() }
    });
    marks.into_iter().filter(|marks| !marks.at.is_empty()).collect()
}
