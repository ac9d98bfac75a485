//! Charts over one axis, one below the other, as an SVG file.

use super::{Exit, Failure};
use plotters::prelude::*;
use std::path::Path;

const WIDTH: u32 = 1000;
const CHART_HEIGHT: u32 = 320;
const CAPTION_HEIGHT: u32 = 40;
const FONT: &str = "sans-serif";
/// Room above the highest value.
const HEADROOM: f64 = 1.1;

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

/// Draws charts that share an axis.
pub(super) fn draw(path: &Path, caption: &str, axis: Axis, charts: &[Chart]) -> Result<(), Failure> {
    let failed =
        |error: String| Failure::new(Exit::Failed, format!("cannot draw {}: {error}", path.display()));
    let svg = render(caption, axis, charts).map_err(|error| failed(error.to_string()))?;
    std::fs::write(path, svg).map_err(|error| failed(error.to_string()))
}

fn render(caption: &str, axis: Axis, charts: &[Chart]) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    let count = u32::try_from(charts.len())?;
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, CAPTION_HEIGHT + CHART_HEIGHT * count))
            .into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(caption, (FONT, 18))?;
        for (area, chart) in root.split_evenly((charts.len().max(1), 1)).iter().zip(charts) {
            draw_chart(area, axis, chart)?;
        }
        root.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_chart(area: &Area<'_>, (unit, end): Axis, chart: &Chart) -> Result<(), Box<dyn std::error::Error>> {
    let values = chart.series.iter().flat_map(|series| &series.points).map(|(_, value)| *value);
    let top = values.fold(0.0, f64::max).max(f64::MIN_POSITIVE) * HEADROOM;
    let top = if top < 1e-6 { 1.0 } else { top };
    let mut context = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    context.configure_mesh().disable_x_mesh().max_light_lines(1).x_desc(unit).y_desc(&chart.label).draw()?;
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
        let svg = render("a run", ("seconds", 2.0), &[full, empty]).unwrap();
        for text in ["<svg", "a run", "goodput", "killed", "MB/s", "seconds", "</svg>"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
