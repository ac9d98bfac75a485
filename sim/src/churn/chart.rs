//! A run as a picture.

use super::report::{Report, Sample};
use plotters::prelude::*;
use std::error::Error;

const SIZE: (u32, u32) = (1000, 1320);
const FONT: &str = "sans-serif";
const HEADROOM: f64 = 1.15;
/// Colours that most people can tell apart (Wong, Nature Methods 8, 2011).
const BLUE: RGBColor = RGBColor(0, 114, 178);

type Curve = (&'static str, fn(&Sample) -> f64);

const CURVES: [Curve; 6] = [
    ("bytes delivered a second", |sample| sample.delivered),
    ("relays alive", |sample| sample.living as f64),
    ("failovers a second", |sample| sample.reroutes),
    ("control bytes a second, per relay", |sample| sample.repair_bytes_per_relay),
    ("questions to the bootstrap a second", |sample| sample.asks),
    ("fairness of load (Jain)", |sample| sample.fairness),
];

/// The run as an SVG document.
pub(crate) fn draw(caption: &str, report: &Report) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(caption, (FONT, 18))?;
        for (area, (label, curve)) in root.split_evenly((CURVES.len(), 1)).iter().zip(CURVES) {
            let points: Vec<(f64, f64)> =
                report.samples.iter().map(|sample| (sample.at.as_secs_f64(), curve(sample))).collect();
            let end = points.last().map_or(1.0, |(at, _)| *at);
            let top = points.iter().map(|(_, value)| *value).fold(1e-3, f64::max) * HEADROOM;
            let mut chart = ChartBuilder::on(area)
                .margin(8)
                .caption(label, (FONT, 14))
                .x_label_area_size(24)
                .y_label_area_size(64)
                .build_cartesian_2d(0.0..end, 0.0..top)?;
            chart.configure_mesh().disable_x_mesh().max_light_lines(1).draw()?;
            chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
        }
        root.present()?;
    }
    Ok(svg)
}
