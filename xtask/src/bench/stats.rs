//! Samples and what is told of them.

use serde_json::json;

/// One figure, measured many times.
#[derive(Debug, Clone)]
pub(super) struct Row {
    name: &'static str,
    unit: &'static str,
    /// Sorted, never empty.
    samples: Vec<f64>,
}

impl Row {
    /// A row of at least one sample.
    pub(super) fn new(name: &'static str, unit: &'static str, mut samples: Vec<f64>) -> Self {
        assert!(!samples.is_empty(), "invariant: {name} was measured");
        samples.sort_by(f64::total_cmp);
        Self { name, unit, samples }
    }

    /// The sample below which `percent` of all lie (nearest rank).
    fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.samples.len() * percent).div_ceil(100);
        self.samples[rank.saturating_sub(1)]
    }

    /// Least, median, 90th percentile, greatest.
    fn summary(&self) -> [f64; 4] {
        [0, 50, 90, 100].map(|percent| self.percentile(percent))
    }
}

/// Prints rows for people, or one JSON object a line.
pub(super) fn print(rows: &[Row], as_json: bool) {
    if !as_json {
        let heads = ["unit", "n", "min", "median", "p90", "max"];
        let [unit, n, min, median, p90, max] = heads;
        println!("{:<44} {unit:<5}{n:>5}{min:>10}{median:>10}{p90:>10}{max:>10}", "figure");
    }
    for row in rows {
        let Row { name, unit, samples } = row;
        let [min, median, p90, max] = row.summary();
        let n = samples.len();
        if as_json {
            let row = json!({"figure": name, "unit": unit, "n": n, "min": min,
                "median": median, "p90": p90, "max": max});
            println!("{row}");
        } else {
            println!("{name:<44} {unit:<5}{n:>5}{min:>10.3}{median:>10.3}{p90:>10.3}{max:>10.3}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let row = Row::new("", "", vec![5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(row.summary(), [1.0, 3.0, 5.0, 5.0]);
        assert_eq!(Row::new("", "", vec![7.0]).summary(), [7.0; 4]);
        let hundred = Row::new("", "", (1..=100_u8).map(f64::from).collect());
        assert_eq!(hundred.summary(), [1.0, 50.0, 90.0, 100.0]);
    }
}
