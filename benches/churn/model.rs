//! How long relays stay: distributions that are given by their median.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Exp1, Gamma};
use std::time::Duration;

/// No session is longer than this many medians.
///
/// A heavy tail has to end somewhere: a Pareto session of shape 1 or less has no mean, and without one there is no rate
/// of arrivals that keeps a pool at its size. A session that would be longer ends at the bound, as a machine does that
/// is restarted for maintenance, so the median stays what it is. What the bound takes from the mean: nothing
/// measurable from exponential sessions, 0.05 % from Weibull sessions of shape 0.4, 1.7 % from Pareto sessions of shape
/// 1.5.
pub const LONGEST_MEDIANS: f64 = 1000.0;
/// The shapes that a [`Family`] may have.
pub const SHAPES: std::ops::RangeInclusive<f64> = 0.2..=10.0;
/// The medians that a [`Model`] may have.
pub const MEDIANS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(366 * 24 * 3600);
/// Intervals of the numeric integral that is a mean.
const INTERVALS: u32 = 4000;

/// A family of distributions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Family {
    /// Without memory: what Bamboo was tested with, at medians from 1.4 minutes up (Rhea, Geels, Roscoe and Kubiatowicz,
    /// *Handling Churn in a DHT*, USENIX 2004).
    Exponential,
    /// Who has stayed long stays on: what Stutzbach and Rejaie measured in Gnutella, Kad and `BitTorrent`, where it fits
    /// better than the other two (*Understanding Churn in Peer-to-Peer Networks*, IMC 2006).
    Weibull {
        /// 1 is exponential; the smaller, the heavier the tail.
        shape: f64,
    },
    /// A tail as heavy as a power of time, as earlier work assumed.
    Pareto {
        /// The power. At 1 or less there is no mean but for [`LONGEST_MEDIANS`].
        shape: f64,
    },
}

/// Why there is no such model.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// The shape is outside [`SHAPES`].
    #[error("a shape is {} to {}, not {shape}", SHAPES.start(), SHAPES.end())]
    Shape {
        /// What was asked for.
        shape: f64,
    },
    /// The median is outside [`MEDIANS`].
    #[error("a median session is 1 ms to 366 days, not {median:?}")]
    Median {
        /// What was asked for.
        median: Duration,
    },
}

/// A distribution of sessions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    family: Family,
    median: Duration,
    /// In seconds: lambda of a Weibull distribution, the shortest session of a Pareto distribution.
    scale: f64,
    mean: f64,
}

impl Model {
    /// Sessions of a family, half of which are shorter than `median`.
    ///
    /// # Errors
    /// [`ModelError`] if the shape or the median is out of bounds.
    pub fn new(family: Family, median: Duration) -> Result<Self, ModelError> {
        if !MEDIANS.contains(&median) {
            return Err(ModelError::Median { median });
        }
        let seconds = median.as_secs_f64();
        let scale = match family {
            Family::Weibull { shape } | Family::Pareto { shape } if !SHAPES.contains(&shape) => {
                return Err(ModelError::Shape { shape });
            }
            Family::Exponential => seconds / std::f64::consts::LN_2,
            Family::Weibull { shape } => seconds / std::f64::consts::LN_2.powf(1.0 / shape),
            Family::Pareto { shape } => seconds / 2f64.powf(1.0 / shape),
        };
        let model = Self { family, median, scale, mean: 0.0 };
        Ok(Self { mean: model.integrate(), ..model })
    }

    /// The distribution's family.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Half of the sessions are shorter.
    #[must_use]
    pub const fn median(&self) -> Duration {
        self.median
    }

    /// The mean of the sessions, bounded as they are by [`LONGEST_MEDIANS`].
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.mean)
    }

    /// The longest session there is.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_secs_f64(self.bound())
    }

    /// The same sessions, `speedup` times as short.
    ///
    /// # Errors
    /// [`ModelError`] if the median gets out of bounds.
    pub fn sped_up(&self, speedup: f64) -> Result<Self, ModelError> {
        Self::new(self.family, super::divide(self.median, speedup))
    }

    /// The share of sessions that are longer than `session`.
    #[must_use]
    pub fn survival(&self, session: Duration) -> f64 {
        let seconds = session.as_secs_f64();
        if seconds < self.bound() { self.unbounded_survival(seconds) } else { 0.0 }
    }

    /// A whole session.
    pub fn session<R: Rng + ?Sized>(&self, rng: &mut R) -> Duration {
        let seconds = match self.family {
            Family::Exponential => self.scale * exponential(rng),
            Family::Weibull { shape } => self.scale * exponential(rng).powf(1.0 / shape),
            Family::Pareto { shape } => self.scale * (exponential(rng) / shape).exp(),
        };
        Duration::from_secs_f64(seconds.min(self.bound()))
    }

    /// What is left of the session of somebody who is met at a random moment.
    ///
    /// Long sessions are met more often than short ones, so with a heavy tail this is far longer than a whole session:
    /// its density is the survival function over the mean (the equilibrium distribution of renewal theory; Cox, *Renewal
    /// Theory*, 1962).
    pub fn residual<R: Rng + ?Sized>(&self, rng: &mut R) -> Duration {
        let seconds = match self.family {
            Family::Exponential => self.weibull_residual(1.0, rng),
            Family::Weibull { shape } => self.weibull_residual(shape, rng),
            Family::Pareto { shape } => self.pareto_residual(shape, rng),
        };
        Duration::from_secs_f64(seconds.clamp(0.0, self.bound()))
    }

    /// A uniform part of a session that was drawn in proportion to its length. The bound cuts the density of what is
    /// left, and changes it nowhere else: what lies beyond is drawn again.
    fn weibull_residual<R: Rng + ?Sized>(&self, shape: f64, rng: &mut R) -> f64 {
        let Ok(gamma) = Gamma::new(1.0 + 1.0 / shape, 1.0) else { return 0.0 };
        loop {
            let met: f64 = self.scale * gamma.sample(rng).powf(1.0 / shape);
            let left = met * rng.random::<f64>();
            if left <= self.bound() {
                return left;
            }
        }
    }

    /// The inverse of the integral of the survival function, which is 1 up to the scale.
    fn pareto_residual<R: Rng + ?Sized>(&self, shape: f64, rng: &mut R) -> f64 {
        let area = self.mean * rng.random::<f64>();
        let beyond = (area - self.scale) / self.scale;
        if beyond <= 0.0 {
            return area;
        }
        let power = 1.0 - shape;
        if power.abs() < 1e-9 {
            return self.scale * beyond.exp();
        }
        self.scale * (1.0 + power * beyond).max(f64::MIN_POSITIVE).powf(1.0 / power)
    }

    fn bound(&self) -> f64 {
        self.median.as_secs_f64() * LONGEST_MEDIANS
    }

    fn unbounded_survival(&self, seconds: f64) -> f64 {
        match self.family {
            Family::Exponential => (-seconds / self.scale).exp(),
            Family::Weibull { shape } => (-(seconds / self.scale).powf(shape)).exp(),
            Family::Pareto { .. } if seconds <= self.scale => 1.0,
            Family::Pareto { shape } => (self.scale / seconds).powf(shape),
        }
    }

    /// The integral of the survival function up to the bound, which is the mean.
    fn integrate(&self) -> f64 {
        let (scale, bound) = (self.scale, self.bound());
        let Family::Pareto { shape } = self.family else { return self.simpson() };
        let power = 1.0 - shape;
        if power.abs() < 1e-9 {
            return scale * (1.0 + (bound / scale).ln());
        }
        scale * (1.0 + ((bound / scale).powf(power) - 1.0) / power)
    }

    /// Simpson's rule over the logarithm of time, in which these functions are smooth.
    fn simpson(&self) -> f64 {
        let end = self.bound().ln();
        let start = end - 40.0;
        let step = (end - start) / f64::from(INTERVALS);
        let sum: f64 = (0..=INTERVALS)
            .map(|place| {
                let seconds = (start + f64::from(place) * step).exp();
                let weight = match place {
                    0 | INTERVALS => 1.0,
                    place if place % 2 == 1 => 4.0,
                    _ => 2.0,
                };
                weight * seconds * self.unbounded_survival(seconds)
            })
            .sum();
        sum * step / 3.0
    }
}

fn exponential<R: Rng + ?Sized>(rng: &mut R) -> f64 {
    Exp1.sample(rng)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const DRAWS: usize = 100_000;
    const MEDIAN: Duration = Duration::from_secs(84);
    const FAMILIES: [Family; 8] = [
        Family::Exponential,
        Family::Weibull { shape: 0.2 },
        Family::Weibull { shape: 0.4 },
        Family::Weibull { shape: 0.6 },
        Family::Pareto { shape: 0.5 },
        Family::Pareto { shape: 1.0 },
        Family::Pareto { shape: 1.5 },
        Family::Pareto { shape: 3.0 },
    ];

    fn draws(mut draw: impl FnMut(&mut StdRng) -> Duration) -> Vec<Duration> {
        let mut rng = StdRng::seed_from_u64(42);
        let mut all: Vec<Duration> = (0..DRAWS).map(|_| draw(&mut rng)).collect();
        all.sort();
        all
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    fn quantile(sorted: &[Duration], share: f64) -> Duration {
        sorted[(share * sorted.len() as f64) as usize]
    }

    #[test]
    fn medians_and_tails_are_those_of_the_family() {
        for family in FAMILIES {
            let model = Model::new(family, MEDIAN).unwrap();
            let sorted = draws(|rng| model.session(rng));
            for share in [0.1, 0.5, 0.9, 0.99] {
                let survived = model.survival(quantile(&sorted, share));
                let longest = quantile(&sorted, share) == model.longest();
                assert!(
                    longest || (survived - (1.0 - share)).abs() < 0.006,
                    "{family:?} at {share}: {survived}"
                );
            }
            let median = quantile(&sorted, 0.5).as_secs_f64();
            assert!((median / 84.0 - 1.0).abs() < 0.05, "{family:?}: median {median}");
            assert!(sorted.iter().all(|session| *session <= model.longest()));
        }
    }

    #[test]
    fn means_are_the_known_ones() {
        let cases = [
            (Family::Exponential, 84.0 / std::f64::consts::LN_2),
            // lambda times Gamma(1 + 1/k): Gamma(3.5) is 3.32335 and Gamma(2.5) 1.32934.
            (Family::Weibull { shape: 0.4 }, 84.0 / std::f64::consts::LN_2.powf(2.5) * 3.32335),
            (Family::Weibull { shape: 2.0 / 3.0 }, 84.0 / std::f64::consts::LN_2.powf(1.5) * 1.32934),
            (Family::Pareto { shape: 3.0 }, 84.0 / 2f64.powf(1.0 / 3.0) * 1.5),
            (Family::Pareto { shape: 1.0 }, 42.0 * (1.0 + 2000f64.ln())),
        ];
        for (family, mean) in cases {
            let model = Model::new(family, MEDIAN).unwrap();
            let ratio = model.mean().as_secs_f64() / mean;
            assert!((ratio - 1.0).abs() < 2e-3, "{family:?}: {ratio}");
        }
    }

    #[test]
    fn what_is_left_follows_the_survival_function() {
        for family in FAMILIES {
            let model = Model::new(family, MEDIAN).unwrap();
            let sorted = draws(|rng| model.residual(rng));
            // The share of residuals up to t is the integral of the survival function up to t, over the mean.
            for share in [0.25, 0.5, 0.9] {
                let end = quantile(&sorted, share).as_secs_f64();
                let steps = 200_000;
                let step = end / f64::from(steps);
                let area: f64 = (0..steps)
                    .map(|n| model.survival(Duration::from_secs_f64((f64::from(n) + 0.5) * step)) * step)
                    .sum();
                let expected = area / model.mean().as_secs_f64();
                assert!((expected - share).abs() < 0.01, "{family:?} at {share}: {expected}");
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_sessions() {
        let model = Model::new(Family::Weibull { shape: 0.4 }, MEDIAN).unwrap();
        assert_eq!(draws(|rng| model.session(rng)), draws(|rng| model.session(rng)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for shape in [0.0, -1.0, 0.1, 11.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(Model::new(Family::Weibull { shape }, MEDIAN), Err(ModelError::Shape { .. })));
            assert!(matches!(Model::new(Family::Pareto { shape }, MEDIAN), Err(ModelError::Shape { .. })));
        }
        let none = Duration::ZERO;
        assert_eq!(Model::new(Family::Exponential, none), Err(ModelError::Median { median: none }));
    }
}
