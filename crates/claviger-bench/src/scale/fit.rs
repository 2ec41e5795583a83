//! How a figure grows: the slope of a straight line through its points, both axes logarithmic.

use std::fmt;

/// A slope up to this far from 0 is flat, and up to this far from 1 linear: a factor of 1.26 for each factor of ten.
const TOLERANCE: f64 = 0.1;
/// Points below which nothing is said.
const POINTS_MIN: usize = 3;

/// What a figure should do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// A cost that does not grow.
    Flat,
    /// A cost that grows no faster than what it is for.
    Linear,
    /// A rate that does not fall.
    KeptUp,
}

impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Flat => "flat",
            Self::Linear => "linear",
            Self::KeptUp => "kept up",
        })
    }
}

/// A line through points: y is proportional to x to the power of `slope`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Fit {
    pub(super) slope: f64,
    /// How much of what the figures differ by (as logarithms) the line explains, 0 to 1. Of what is flat a line explains nothing.
    pub(super) r2: f64,
}

impl Fit {
    /// By least squares; none if there are too few points, or one that has no logarithm.
    pub(super) fn of(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < POINTS_MIN || points.iter().any(|(x, y)| *x <= 0.0 || *y <= 0.0) {
            return None;
        }
        let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
        #[allow(clippy::cast_precision_loss, reason = "a handful of points")]
        let count = logs.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / count;
        let (x_mean, y_mean) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            logs.iter().map(|(x, y)| of(x - x_mean, y - y_mean)).sum()
        };
        let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
        if xx == 0.0 {
            return None;
        }
        Some(Self { slope: xy / xx, r2: if yy == 0.0 { 1.0 } else { xy * xy / (xx * yy) } })
    }

    /// In a word.
    pub(super) fn verdict(self) -> &'static str {
        match self.slope {
            slope if slope < -TOLERANCE => "falls",
            slope if slope <= TOLERANCE => "flat",
            slope if slope < 1.0 - TOLERANCE => "less than linear",
            slope if slope <= 1.0 + TOLERANCE => "linear",
            _ => "worse than linear",
        }
    }

    /// Whether it is as it should be, or better.
    pub(super) fn is_as(self, shape: Shape) -> bool {
        match shape {
            Shape::Flat => self.slope <= TOLERANCE,
            Shape::Linear => self.slope <= 1.0 + TOLERANCE,
            Shape::KeptUp => self.slope >= -TOLERANCE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(of: impl Fn(f64) -> f64) -> Fit {
        let points: Vec<_> = [1.0, 10.0, 100.0, 1e3, 1e4].map(|x| (x, of(x))).into();
        Fit::of(&points).unwrap()
    }

    #[test]
    fn powers_are_found() {
        for slope in [-1.0, 0.0, 0.5, 1.0, 2.0] {
            let fit = fit(|x| 3.0 * x.powf(slope));
            assert!((fit.slope - slope).abs() < 1e-9 && fit.r2 > 0.999, "{slope}: {fit:?}");
        }
    }

    #[test]
    fn each_shape_has_its_word() {
        let noise = |x: f64| 1.0 + 0.2 * (x.ln() * 7.0).sin();
        let words = [-0.5, 0.0, 0.5, 1.0, 1.5].map(|slope| fit(|x| x.powf(slope) * noise(x)).verdict());
        assert_eq!(words, ["falls", "flat", "less than linear", "linear", "worse than linear"]);
    }

    #[test]
    fn what_is_better_than_it_has_to_be_is_as_it_should_be() {
        assert!(fit(|x| 1.0 / x).is_as(Shape::Flat));
        assert!(fit(f64::sqrt).is_as(Shape::Linear) && !fit(f64::sqrt).is_as(Shape::Flat));
        assert!(!fit(|x| x * x.ln_1p().powi(3)).is_as(Shape::Linear));
        assert!(fit(f64::sqrt).is_as(Shape::KeptUp) && !fit(|x| 1.0 / x).is_as(Shape::KeptUp));
    }

    #[test]
    fn nothing_is_said_of_too_few_points_or_of_none_at_all() {
        assert_eq!(Fit::of(&[(1.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(Fit::of(&[(1.0, 1.0); 4]), None);
        assert_eq!(Fit::of(&[(1.0, 1.0), (2.0, 0.0), (3.0, 1.0)]), None);
    }
}
