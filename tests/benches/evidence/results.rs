//! Numbers, and the three forms in which they are left: tables on the screen, JSON lines, plots. Judges none of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::Outcome;
use crate::svg::{Plot, Series};

/// All that was measured in this run.
pub struct Results {
    folder: PathBuf,
    lines: File,
    machine: String,
    rows: Vec<Row>,
}

/// What was measured of one contender in one case.
struct Row {
    subject: &'static str,
    who: String,
    case: String,
    numbers: Vec<Number>,
}

/// A number with its name and its unit.
pub type Number = (&'static str, &'static str, f64);

/// Which numbers of a subject make a plot: one line for each contender and kind, along the case's own number.
pub struct View<'a> {
    /// The file's name, after the subject's.
    pub name: &'a str,
    /// What it is about.
    pub title: String,
    /// The number along the bottom.
    pub x: &'static str,
    /// The number along the side.
    pub y: &'static str,
    /// Which rows it is made of.
    pub of: fn(who: &str, case: &str) -> bool,
}

impl Results {
    /// Begins a run whose results go to `folder`.
    pub fn new(folder: PathBuf, is_quick: bool) -> Outcome<Self> {
        fs::create_dir_all(&folder)?;
        let mut lines = File::create(folder.join("results.jsonl"))?;
        let load = fs::read_to_string("/proc/loadavg")?;
        let load: f64 = load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let machine = machine()?;
        writeln!(lines, "{}", json!({ "machine": machine, "load_before": load, "quick": is_quick }))?;
        println!("\n{machine}; load before: {load}");
        Ok(Self { folder, lines, machine, rows: Vec::new() })
    }

    /// Notes what was measured; it is on disk at once.
    pub fn add(&mut self, subject: &'static str, who: &str, case: &str, numbers: Vec<Number>) -> Outcome<()> {
        let named: BTreeMap<String, f64> =
            numbers.iter().map(|(name, unit, value)| (format!("{name} [{unit}]"), *value)).collect();
        writeln!(
            self.lines,
            "{}",
            json!({ "subject": subject, "who": who, "case": case, "numbers": named })
        )?;
        self.rows.push(Row { subject, who: who.to_owned(), case: case.to_owned(), numbers });
        Ok(())
    }

    /// Writes a plot of what has been measured.
    pub fn plot(&self, subject: &str, view: &View<'_>) -> Outcome<()> {
        let mut lines: Vec<Series> = Vec::new();
        let mut units = ("", "");
        for row in self.rows.iter().filter(|row| row.subject == subject && (view.of)(&row.who, &row.case)) {
            let number = |name: &str| row.numbers.iter().find(|(known, _, _)| *known == name);
            let (Some((_, x_unit, x)), Some((_, y_unit, y))) = (number(view.x), number(view.y)) else {
                continue;
            };
            units = (x_unit, y_unit);
            let name =
                if row.case.is_empty() { row.who.clone() } else { format!("{}, {}", row.who, row.case) };
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push((*x, *y)),
                None => lines.push(Series { name, points: vec![(*x, *y)] }),
            }
        }
        let plot = Plot {
            title: view.title.clone(),
            below: self.machine.clone(),
            x: label(view.x, units.0),
            y: label(view.y, units.1),
            lines,
        };
        fs::write(self.folder.join(format!("{subject}-{}.svg", view.name)), plot.to_svg())?;
        Ok(())
    }

    /// Writes a plot of how many were how fast: one line for each name.
    pub fn distribution(&self, subject: &str, title: &str, of: &[(&str, &[Duration])]) -> Outcome<()> {
        let line = |(name, samples): &(&str, &[Duration])| {
            let points = (0..=100)
                .step_by(5)
                .filter_map(|percent| Some((millis(percentile(samples, percent)?), count(percent))));
            Series { name: (*name).to_owned(), points: points.collect() }
        };
        let plot = Plot {
            title: title.to_owned(),
            below: self.machine.clone(),
            x: "time, ms".to_owned(),
            y: "share, of 100".to_owned(),
            lines: of.iter().map(line).collect(),
        };
        fs::write(self.folder.join(format!("{subject}.svg")), plot.to_svg())?;
        Ok(())
    }

    /// Prints what a subject came to.
    pub fn finish(&mut self, subject: &str) -> Outcome<()> {
        self.lines.flush()?;
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.subject == subject).collect();
        let mut columns: Vec<(&str, &str)> = Vec::new();
        for (name, unit, _) in rows.iter().flat_map(|row| &row.numbers) {
            if !columns.contains(&(*name, *unit)) {
                columns.push((name, unit));
            }
        }
        println!("\n{subject}");
        let heads = columns.iter().map(|(name, unit)| label(name, unit));
        let mut table = vec![[String::new(), String::new()].into_iter().chain(heads).collect::<Vec<_>>()];
        for row in rows {
            let cell = |(name, _): &(&str, &str)| {
                let number = row.numbers.iter().find(|(known, _, _)| known == name);
                number.map_or_else(|| "-".to_owned(), |(_, _, value)| text(*value))
            };
            let begin = [row.who.clone(), row.case.clone()];
            table.push(begin.into_iter().chain(columns.iter().map(cell)).collect());
        }
        print_table(&table);
        Ok(())
    }
}

/// A name with its unit, if it has one.
fn label(name: &str, unit: &str) -> String {
    if unit.is_empty() { name.to_owned() } else { format!("{name}, {unit}") }
}

/// Which machine this is.
fn machine() -> Outcome<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let count = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let model = model.trim_start_matches([' ', '\t', ':']);
    Ok(format!("{model}, {count} processors, Linux {}", kernel.trim()))
}

fn print_table(table: &[Vec<String>]) {
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for row in table {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// A number with about three digits that count.
pub fn text(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A whole number as one that tables take.
#[expect(clippy::cast_precision_loss, reason = "counts lie far below 2^52")]
pub fn count(number: usize) -> f64 {
    number as f64
}

/// The value below which `percent` of all lie, by the nearest rank; `None` of nothing.
pub fn percentile(samples: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Median, 99th percentile and longest of durations, in milliseconds.
pub fn spread(names: [&'static str; 3], samples: &[Duration]) -> Vec<Number> {
    [50, 99, 100]
        .into_iter()
        .zip(names)
        .filter_map(|(percent, name)| Some((name, "ms", millis(percentile(samples, percent)?))))
        .collect()
}
