//! Sessions as people write them on a command line.

use super::{Family, Model, ModelError, Sessions, Trace, TraceError};
use jiff::{Span, SpanRelativeTo};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How sessions are drawn: `exp:84s`, `weibull:0.6:84s`, `pareto:1.5:5min` or `trace:FILE`.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// From a distribution.
    Model(Model),
    /// From a file that [`Trace::parse`] reads.
    Trace(PathBuf),
}

/// Why a text does not say how sessions are drawn.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// It begins with none of the known words.
    #[error(
        "write exp:MEDIAN, weibull:SHAPE:MEDIAN, pareto:SHAPE:MEDIAN or trace:FILE, as in weibull:0.6:84s"
    )]
    Form,
    /// The shape is no number.
    #[error("the shape is not a number; write it as in weibull:0.6:84s")]
    Shape,
    /// The median is no duration.
    #[error("the median is not a duration; write 84s, 1.4min, 2h or 500ms")]
    Median,
    /// There is no such model.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Why the sessions of a [`Spec`] can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What its reader said.
        error: std::io::Error,
    },
    /// The file is no trace.
    #[error("{}, {error}", path.display())]
    Trace {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: TraceError,
    },
}

impl Spec {
    /// The sessions themselves; `read` gives a file's text.
    ///
    /// # Errors
    /// [`LoadError`] if the file can't be read or is no trace.
    pub fn load(&self, read: impl FnOnce(&Path) -> std::io::Result<String>) -> Result<Sessions, LoadError> {
        let path = match self {
            Self::Model(model) => return Ok(Sessions::Model(*model)),
            Self::Trace(path) => path,
        };
        let text = read(path).map_err(|error| LoadError::Read { path: path.clone(), error })?;
        let trace = Trace::parse(&text).map_err(|error| LoadError::Trace { path: path.clone(), error })?;
        Ok(Sessions::Trace(trace))
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (family, rest) = text.split_once(':').ok_or(SpecError::Form)?;
        let shaped = || {
            let (shape, median) = rest.split_once(':').ok_or(SpecError::Form)?;
            Ok::<_, SpecError>((shape.trim().parse().map_err(|_| SpecError::Shape)?, median))
        };
        let (family, median) = match family.trim() {
            "exp" => (Family::Exponential, rest),
            "weibull" => shaped().map(|(shape, median)| (Family::Weibull { shape }, median))?,
            "pareto" => shaped().map(|(shape, median)| (Family::Pareto { shape }, median))?,
            "trace" if !rest.is_empty() => return Ok(Self::Trace(rest.into())),
            _ => return Err(SpecError::Form),
        };
        let median = parse_duration(median).ok_or(SpecError::Median)?;
        Ok(Self::Model(Model::new(family, median)?))
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(model) => model.fmt(out),
            Self::Trace(path) => write!(out, "trace:{}", path.display()),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = self.median();
        match self.family() {
            Family::Exponential => write!(out, "exp:{median:?}"),
            Family::Weibull { shape } => write!(out, "weibull:{shape}:{median:?}"),
            Family::Pareto { shape } => write!(out, "pareto:{shape}:{median:?}"),
        }
    }
}

/// Reads `84s`, `1.4min`, `2h` or `500ms`; `None` if the text is no such thing.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let span = text.trim().parse::<Span>().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_written_again() {
        for text in ["exp:84s", "weibull:0.4:84s", "pareto:1.5:4.2s", "exp:250ms", "trace:a:b.csv"] {
            let spec: Spec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            assert_eq!(spec.to_string().parse(), Ok(spec));
        }
        let median = |text: &str| match text.parse() {
            Ok(Spec::Model(model)) => model.median().as_secs_f64(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(median("exp:1.4min"), 84.0);
        assert_eq!(median("weibull:0.6:2h"), 7200.0);
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let no_shape = ModelError::Shape { shape: 20.0 };
        let no_median = ModelError::Median { median: Duration::ZERO };
        let cases = [
            ("", SpecError::Form),
            ("84s", SpecError::Form),
            ("normal:84s", SpecError::Form),
            ("weibull:84s", SpecError::Form),
            ("trace:", SpecError::Form),
            ("weibull:k:84s", SpecError::Shape),
            ("pareto:20:84s", no_shape.into()),
            ("exp:84", SpecError::Median),
            ("exp:-84s", SpecError::Median),
            ("exp:8.4.1s", SpecError::Median),
            ("exp:84parsec", SpecError::Median),
            ("exp:0s", no_median.into()),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Spec>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_trace_is_loaded_and_its_file_named_in_errors() {
        let spec: Spec = "trace:relays.csv".parse().unwrap();
        let loaded = spec.load(|path| {
            assert_eq!(path, Path::new("relays.csv"));
            Ok("0,1\n".to_owned())
        });
        assert!(matches!(loaded, Ok(Sessions::Trace(trace)) if trace.stays().len() == 1));
        let error = spec.load(|_| Ok("0,1\n1,x".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "relays.csv, line 2: the time of leaving is not a number of seconds");
        let error = spec.load(|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_err();
        assert_eq!(error.to_string(), "cannot read relays.csv: entity not found");
    }
}
