//! Charts over one axis, one below the other, as an SVG file.

use hopline_command::{Exit, Failure};
use plotters::prelude::*;
use std::path::Path;

const WIDTH: u32 = 1000;
const CHART_HEIGHT: u32 = 320;
const CAPTION_HEIGHT: u32 = 40;
const FONT: &str = "sans-serif";
/// Room above the highest value.
const HEADROOM: f64 = 1.1;
/// Room before the first and after the last place, where decades count.
const MARGIN_DECADES: f64 = 0.1;
/// Half of a dot.
const DOT: i32 = 4;

/// Colours that are told apart by most people (Wong, *Nature Methods* 8, 2011).
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const ORANGE: RGBColor = RGBColor(213, 94, 0);
pub(super) const GREEN: RGBColor = RGBColor(0, 158, 115);
pub(super) const PURPLE: RGBColor = RGBColor(204, 121, 167);
pub(super) const GREY: RGBColor = RGBColor(120, 120, 120);

/// How values are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One line from value to value.
    Line,
    /// A stem from zero up to each value.
    Stems,
    /// A dot at each value, and a line through them.
    Dots,
}

/// Values along the axis.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) colour: RGBColor,
    pub(super) shape: Shape,
    pub(super) points: Vec<(f64, f64)>,
}

/// Places on the axis that are marked all the way up.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    pub(super) name: String,
    pub(super) colour: RGBColor,
    pub(super) at: Vec<f64>,
}

/// One chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// What its values are, and their unit.
    pub(super) label: String,
    pub(super) series: Vec<Series>,
    pub(super) marks: Vec<Marks>,
}

/// An axis: what it counts, and its end; it begins at 0.
pub(super) type Axis = (&'static str, f64);

/// What the charts share: the axis along them.
#[derive(Clone, Copy)]
struct Scale {
    unit: &'static str,
    from: f64,
    to: f64,
    /// Values are the logarithms, to base 10, of what is meant.
    by_decades: bool,
}

/// Draws charts that share an axis.
pub(super) fn draw(path: &Path, caption: &str, (unit, to): Axis, charts: &[Chart]) -> Result<(), Failure> {
    save(path, caption, Scale { unit, from: 0.0, to, by_decades: false }, charts)
}

/// Draws charts of [dots](Shape::Dots) that share an axis on which each decade is as long as the next; places on it are above 0.
pub(super) fn draw_by_decades(
    path: &Path,
    caption: &str,
    unit: &'static str,
    charts: &[Chart],
) -> Result<(), Failure> {
    let mut charts = charts.to_vec();
    let (mut from, mut to) = (f64::INFINITY, f64::NEG_INFINITY);
    for (place, _) in
        charts.iter_mut().flat_map(|chart| &mut chart.series).flat_map(|series| &mut series.points)
    {
        *place = place.log10();
        (from, to) = (from.min(*place), to.max(*place));
    }
    let scale = Scale { unit, from: from - MARGIN_DECADES, to: to + MARGIN_DECADES, by_decades: true };
    save(path, caption, scale, &charts)
}

fn save(path: &Path, caption: &str, scale: Scale, charts: &[Chart]) -> Result<(), Failure> {
    let failed =
        |error: String| Failure::new(Exit::Failed, format!("cannot draw {}: {error}", path.display()));
    let svg = render(caption, scale, charts).map_err(|error| failed(error.to_string()))?;
    std::fs::write(path, svg).map_err(|error| failed(error.to_string()))
}

fn render(caption: &str, scale: Scale, charts: &[Chart]) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    let count = u32::try_from(charts.len())?;
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, CAPTION_HEIGHT + CHART_HEIGHT * count))
            .into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(caption, (FONT, 18))?;
        for (area, chart) in root.split_evenly((charts.len().max(1), 1)).iter().zip(charts) {
            draw_chart(area, scale, chart)?;
        }
        root.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_chart(area: &Area<'_>, scale: Scale, chart: &Chart) -> Result<(), Box<dyn std::error::Error>> {
    let values = chart.series.iter().flat_map(|series| &series.points).map(|(_, value)| *value);
    let top = values.fold(0.0, f64::max).max(f64::MIN_POSITIVE) * HEADROOM;
    let top = if top < 1e-6 { 1.0 } else { top };
    let mut context = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(scale.from..scale.to, 0.0..top)?;
    let mut mesh = context.configure_mesh();
    mesh.disable_x_mesh().max_light_lines(1).x_desc(scale.unit).y_desc(&chart.label);
    if scale.by_decades {
        mesh.x_label_formatter(&whole_decade);
    }
    mesh.draw()?;
    for marks in &chart.marks {
        let style = marks.colour.mix(0.45);
        let lines = marks.at.iter().map(|at| PathElement::new(vec![(*at, 0.0), (*at, top)], style));
        context.draw_series(lines)?.label(&marks.name).legend(move |(x, y)| key(x, y, style.to_rgba()));
    }
    for series in &chart.series {
        let colour = series.colour;
        let drawn = match series.shape {
            Shape::Line => {
                context.draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)))?
            }
            Shape::Stems => context.draw_series(
                series
                    .points
                    .iter()
                    .map(|(x, y)| PathElement::new(vec![(*x, 0.0), (*x, *y)], colour.stroke_width(3))),
            )?,
            Shape::Dots => {
                context
                    .draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)))?;
                let dot = |place: &(f64, f64)| Circle::new(*place, DOT, colour.filled());
                context.draw_series(series.points.iter().map(dot))?
            }
        };
        drawn.label(&series.name).legend(move |(x, y)| key(x, y, colour.to_rgba()));
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(GREY)
        .draw()?;
    Ok(())
}

/// How a power of ten is written, given its logarithm; other places have no label.
fn whole_decade(place: &f64) -> String {
    let is_whole = (place - place.round()).abs() < 1e-6;
    if is_whole { format!("{:.0}", 10_f64.powf(*place)) } else { String::new() }
}

/// The sample of a colour beside its name.
fn key(x: i32, y: i32, colour: RGBAColor) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_become_an_svg() {
        let series = |shape| Series {
            name: "goodput".to_owned(),
            colour: BLUE,
            shape,
            points: vec![(0.0, 1.0), (1.0, 3.0)],
        };
        let marks = Marks { name: "killed".to_owned(), colour: ORANGE, at: vec![0.5] };
        let full = Chart {
            label: "MB/s".to_owned(),
            series: vec![series(Shape::Line), series(Shape::Stems)],
            marks: vec![marks],
        };
        let empty = Chart { label: "ms".to_owned(), series: vec![], marks: vec![] };
        let scale = Scale { unit: "seconds", from: 0.0, to: 2.0, by_decades: false };
        let svg = render("a run", scale, &[full, empty]).unwrap();
        for text in ["<svg", "a run", "goodput", "killed", "MB/s", "seconds", "</svg>"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn decades_are_named_and_no_other_places() {
        for (place, label) in [(3.0, "1000"), (3.5, ""), (6.0, "1000000"), (5.999_999_999, "1000000")] {
            assert_eq!(whole_decade(&place), label);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("decades.svg");
        let series = Series {
            name: "p50".to_owned(),
            colour: BLUE,
            shape: Shape::Dots,
            points: vec![(1e3, 1.0), (1e6, 2.0)],
        };
        let chart = Chart { label: "µs".to_owned(), series: vec![series], marks: vec![] };
        draw_by_decades(&path, "pools", "relays", &[chart]).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for label in ["\n1000\n", "\n100000\n", "<circle"] {
            assert!(svg.contains(label), "{label:?} in {svg}");
        }
    }
}
