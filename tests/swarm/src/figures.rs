//! Figures, as they come.

use serde_json::json;

/// Where figures are told.
#[derive(Debug)]
pub(crate) struct Figures {
    json: bool,
}

impl Figures {
    pub(crate) fn new(json: bool) -> Self {
        if !json {
            println!("{:<52} {:<5}{:>6}{:>12}{:>12}", "figure", "unit", "n", "median", "max");
        }
        Self { json }
    }

    /// Tells one, from its samples: at least one.
    pub(crate) fn tell(&mut self, name: &str, unit: &str, samples: &[f64]) {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        // The nearest rank: one of the samples.
        let (median, max) = (sorted[(n - 1) / 2], sorted[n - 1]);
        if self.json {
            let name = name.trim();
            println!(
                "{}",
                json!({"figure": name, "unit": unit, "n": n, "median": median, "max": max})
            );
        } else {
            println!("{name:<52} {unit:<5}{n:>6}{median:>12.2}{max:>12.2}");
        }
    }
}
