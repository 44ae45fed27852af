//! Plots as SVG: lines with marks on axes that name their units. Nothing more than `evidence` needs.

use std::fmt::Write;

use crate::results::text;

/// A plot.
pub struct Plot {
    /// Above it.
    pub title: String,
    /// In small letters below it: the machine.
    pub below: String,
    /// Along the bottom, with the unit.
    pub x: String,
    /// Along the side, with the unit.
    pub y: String,
    /// The lines.
    pub lines: Vec<Series>,
}

/// A line.
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 330.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 70.0;
/// Colours that those who see few of them tell apart (Okabe and Ito), and black.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31"];

/// So many points of a line, or of a plot, are the course of something: a line without marks, by its own scale.
const MANY: usize = 100;

/// One direction: from values to places, by their logarithm where they span more than two decades.
struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let values: Vec<f64> = values.collect();
        let high = values.iter().copied().fold(0.0, f64::max);
        let least = values.iter().copied().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        let is_log = least.is_finite() && high / least >= 200.0 && values.len() < MANY;
        if is_log {
            // Nothing at all stands half a decade before the least.
            let low = if values.iter().any(|value| *value <= 0.0) { least / 3.2 } else { least };
            return Self { low, high, is_log, from, to };
        }
        let high = if high > 0.0 { high } else { 1.0 };
        // Up to the next round value, so that the highest point has a number above it.
        let step = step(high);
        Self { low: 0.0, high: (high / step * 0.9999).ceil() * step, is_log, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// Round values: powers of ten, or four to ten steps of 1, 2 or 5.
    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let first = self.low.log10().ceil();
            return (0..20)
                .map(|step| 10_f64.powf(first + f64::from(step)))
                .take_while(|tick| *tick <= self.high)
                .collect();
        }
        let step = step(self.high);
        (0..=10)
            .map(|number| f64::from(number) * step)
            .take_while(|tick| *tick <= self.high * 1.0001)
            .collect()
    }
}

/// A round step that fits at most ten times.
fn step(high: f64) -> f64 {
    let decade = 10_f64.powf((high / 10.0).log10().ceil());
    let parts = [0.1, 0.2, 0.5, 1.0].into_iter().map(|part| part * decade);
    parts.into_iter().find(|step| high / step <= 10.0).unwrap_or(decade)
}

impl Plot {
    /// The file's text.
    pub fn to_svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Axis::new(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::new(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        self.frame(&mut svg, &x, &y);
        for (number, line) in self.lines.iter().enumerate() {
            draw(&mut svg, line, number, &x, &y);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn frame(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        words(svg, LEFT, 22.0, "start\" font-size=\"15", &self.title);
        words(svg, LEFT, HEIGHT - 12.0, "start\" fill=\"#666", &self.below);
        let logarithmic =
            |axis: &Axis, name: &str| format!("{name}{}", if axis.is_log { " (logarithmic)" } else { "" });
        words(svg, f64::midpoint(LEFT, right), HEIGHT - 34.0, "middle", &logarithmic(x, &self.x));
        let middle = f64::midpoint(TOP, bottom);
        let turned = format!("middle\" transform=\"rotate(-90 16 {middle})");
        words(svg, 16.0, middle, &turned, &logarithmic(y, &self.y));
        for tick in x.ticks() {
            let at = x.place(tick);
            stroke(svg, [at, TOP, at, bottom]);
            words(svg, at, bottom + 16.0, "middle", &short(tick));
        }
        for tick in y.ticks() {
            let at = y.place(tick);
            stroke(svg, [LEFT, at, right, at]);
            words(svg, LEFT - 6.0, at + 4.0, "end", &short(tick));
        }
    }
}

fn draw(svg: &mut String, line: &Series, number: usize, x: &Axis, y: &Axis) {
    let colour = COLOURS.get(number % COLOURS.len()).unwrap_or(&"black");
    let dashes = if number < COLOURS.len() { "" } else { " stroke-dasharray=\"5 3\"" };
    let mut points = line.points.clone();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    let places: Vec<(f64, f64)> = points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    put(
        svg,
        format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{dashes}/>",
            path.join(" ")
        ),
    );
    let marks = if places.len() < MANY { places.as_slice() } else { &[] };
    for (x, y) in marks {
        put(svg, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"));
    }
    let at = TOP + 14.0 + 18.0 * f64::from(u32::try_from(number).unwrap_or(0));
    let left = WIDTH - RIGHT + 16.0;
    put(
        svg,
        format_args!(
            "<line x1=\"{left}\" y1=\"{0}\" x2=\"{1}\" y2=\"{0}\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
            at - 4.0,
            left + 22.0
        ),
    );
    words(svg, left + 28.0, at, "start", &line.name);
}

fn stroke(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    put(
        svg,
        format_args!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"),
    );
}

/// Text, with its anchor and whatever attributes follow it.
fn words(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    put(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"));
}

fn put(svg: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(svg, "{line}");
}

/// `20k`, `1M`.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value if value.fract().abs() < 1e-9 => format!("{value:.0}"),
        // Three digits that count, and no zeros behind them.
        value if value < 0.1 => format!("{value:.4}").trim_end_matches('0').to_owned(),
        value => text(value).trim_end_matches('0').to_owned(),
    }
}
