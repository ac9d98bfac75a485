//! What came of all runs.

use crate::cases::Case;
use crate::network::Outcome;
use std::fmt;
use std::path::Path;
use std::time::Duration;

const BEGIN: &str = "<!-- matrix -->\n";
const END: &str = "<!-- end of matrix -->";
const WAYS: [&str; 2] = ["forward", "backward"];

/// The runs of one case at one place.
struct Row {
    name: &'static str,
    hops: u8,
    at: Option<u8>,
    runs: u32,
    equal: [u32; 2],
    calm: [Duration; 2],
    pause: [Duration; 2],
}

#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// One more run; `None` if the flow did not come to its end.
    pub fn add(&mut self, case: &Case, outcome: Option<&Outcome>) {
        let key = (case.name, case.hops, case.at);
        let place = self.0.iter().position(|row| (row.name, row.hops, row.at) == key);
        let place = place.unwrap_or_else(|| {
            let (equal, calm, pause) = Default::default();
            let (name, hops, at) = key;
            self.0.push(Row { name, hops, at, runs: 0, equal, calm, pause });
            self.0.len() - 1
        });
        let row = &mut self.0[place];
        row.runs += 1;
        let Some(outcome) = outcome else { return };
        for way in 0..WAYS.len() {
            row.equal[way] += u32::from(outcome.equal[way]);
            row.calm[way] = row.calm[way].max(outcome.calm[way]);
            row.pause[way] = row.pause[way].max(outcome.pause[way]);
        }
    }

    pub fn runs(&self) -> u32 {
        self.0.iter().map(|row| row.runs).sum()
    }

    /// Writes it, with when and how it was made, to a file of its own or into its place in a document.
    pub fn write(&self, path: &Path) {
        let date = std::process::Command::new("date").arg("+%Y-%m-%d").output().unwrap().stdout;
        let date = String::from_utf8(date).unwrap();
        let settings: Vec<String> = std::env::vars()
            .filter(|(name, _)| name.starts_with("HOPLINE_MATRIX"))
            .map(|(name, value)| format!("{name}={value} "))
            .collect();
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        let command = format!("{}cargo test{profile} --test matrix", settings.concat());
        let made = format!("Made {} by `{command}`:\n\n{self}", date.trim());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let place = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let whole = match place {
            Some((before, after)) => format!("{before}{BEGIN}\n{made}\n{END}{after}"),
            None => made,
        };
        std::fs::write(path, whole).unwrap();
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| case | hop | direction | runs | longest pause before, ms | longest pause, ms | SHA-256 equal |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        for row in &self.0 {
            let at = row.at.map_or_else(|| "all".to_owned(), |at| at.to_string());
            for (way, name) in WAYS.iter().enumerate() {
                let (calm, pause) = (ms(row.calm[way]), ms(row.pause[way]));
                let equal = match row.equal[way] {
                    equal if equal == row.runs => "yes".to_owned(),
                    equal => format!("**{equal} of {}**", row.runs),
                };
                let (case, hops, runs) = (row.name, row.hops, row.runs);
                writeln!(
                    f,
                    "| {case} | {at} of {hops} | {name} | {runs} | {calm:.1} | {pause:.1} | {equal} |"
                )?;
            }
        }
        Ok(())
    }
}
