//! What a subject found, for people and programs.

use std::io::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// All figures of one subject.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    histograms: Vec<(String, Histogram<u64>)>,
    notes: Vec<String>,
}

/// One thing that was measured.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// What.
    pub name: String,
    /// Figures with their units, in order.
    pub figures: Vec<(&'static str, f64)>,
}

/// Ours beside a peer's.
#[derive(Debug, Clone)]
struct Ratio {
    name: String,
    ours: f64,
    peer: f64,
}

impl Report {
    /// Adds a row.
    pub fn row(&mut self, name: impl Into<String>, figures: Vec<(&'static str, f64)>) {
        self.rows.push(Row {
            name: name.into(),
            figures,
        });
    }

    /// Adds a distribution of microseconds.
    pub fn histogram(&mut self, name: impl Into<String>, histogram: &Histogram<u64>) {
        self.histograms.push((name.into(), histogram.clone()));
    }

    /// Adds a ratio, ours divided by the peer's.
    pub fn ratio(&mut self, name: impl Into<String>, ours: f64, peer: f64) {
        self.ratios.push(Ratio {
            name: name.into(),
            ours,
            peer,
        });
    }

    /// Adds a remark, such as a peer that was not found.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Writes everything to stdout.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn print(&self, as_json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if as_json {
            writeln!(out, "{}", self.json())?;
            return Ok(());
        }
        for (name, histogram) in &self.histograms {
            writeln!(out, "{name}")?;
            write_histogram(&mut out, histogram)?;
            writeln!(out)?;
        }
        for row in &self.rows {
            writeln!(out, "{}", row.name)?;
            for (unit, figure) in &row.figures {
                writeln!(out, "    {:>14}  {unit}", number(*figure))?;
            }
        }
        if !self.ratios.is_empty() {
            writeln!(
                out,
                "\n{:44} {:>12} {:>12} {:>8}",
                "ratio", "ours", "peer", ""
            )?;
        }
        for ratio in &self.ratios {
            let (ours, peer) = (number(ratio.ours), number(ratio.peer));
            let times = ratio.ours / ratio.peer;
            writeln!(out, "{:44} {ours:>12} {peer:>12} {times:>7.3}x", ratio.name)?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let figures: serde_json::Map<_, _> = row
                    .figures
                    .iter()
                    .map(|(unit, figure)| ((*unit).to_owned(), json!(figure)))
                    .collect();
                json!({"name": row.name, "figures": figures})
            })
            .collect();
        let ratios: Vec<Value> = self
            .ratios
            .iter()
            .map(|r| json!({"name": r.name, "ours": r.ours, "peer": r.peer, "ratio": r.ours / r.peer}))
            .collect();
        let latency: Vec<Value> = self
            .histograms
            .iter()
            .map(|(name, h)| {
                json!({
                    "name": name, "count": h.len(), "p50_us": h.value_at_quantile(0.5),
                    "p90_us": h.value_at_quantile(0.9), "p99_us": h.value_at_quantile(0.99),
                    "p999_us": h.value_at_quantile(0.999), "max_us": h.max(),
                })
            })
            .collect();
        json!({"rows": rows, "ratios": ratios, "latency": latency, "notes": self.notes})
    }
}

fn write_histogram(
    out: &mut impl std::io::Write,
    histogram: &Histogram<u64>,
) -> std::io::Result<()> {
    let all = histogram.len().max(1) as f64;
    for step in histogram.iter_log(16, 2.0) {
        let share = step.count_since_last_iteration() as f64 / all;
        if share > 0.0 {
            let bar = "#".repeat((share * 50.0).ceil() as usize);
            let upto = micros(step.value_iterated_to());
            writeln!(out, "    up to {upto:>9}  {:>6.2} %  {bar}", share * 100.0)?;
        }
    }
    let at = |quantile| micros(histogram.value_at_quantile(quantile));
    writeln!(
        out,
        "    p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        micros(histogram.max())
    )
}

fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stay_what_they_are_in_json() {
        let mut report = Report::default();
        report.row("a", vec![("per second", 2.0)]);
        report.ratio("a beside b", 1.0, 4.0);
        let mut histogram = crate::drive::histogram().unwrap();
        histogram.record(1_500).unwrap();
        report.histogram("a", &histogram);
        let json = report.json();
        assert_eq!(json["rows"][0]["figures"]["per second"], 2.0);
        assert_eq!(json["ratios"][0]["ratio"], 0.25);
        assert_eq!(json["latency"][0]["count"], 1);
        let mut out = Vec::new();
        write_histogram(&mut out, &histogram).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("100.00 %") && text.contains("max 1.50 ms"),
            "{text}"
        );
    }
}
