//! A run as pictures: sequence numbers, windows, round-trip times and queues over time.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plotters::prelude::*;

use super::trace::Recording;

/// Lines of one picture, by name.
type Series = BTreeMap<String, Vec<(f64, f64)>>;

/// Draws `recording` into `directory`: `sequence.svg`, `cwnd.svg`, `rtt.svg` and `queue.svg`. Returns the files.
///
/// # Errors
/// A file cannot be written.
pub fn draw(recording: &Recording, directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    std::fs::create_dir_all(directory)?;
    let pictures = [
        (
            "sequence",
            "bytes sent, from the first",
            sequence(recording),
        ),
        (
            "cwnd",
            "congestion window and bytes in flight",
            windows(recording),
        ),
        (
            "rtt",
            "smoothed round-trip time in ms",
            round_trips(recording),
        ),
        ("queue", "frames that wait for a link", queues(recording)),
    ];
    let mut files = Vec::new();
    for (name, title, series) in pictures {
        let file = directory.join(format!("{name}.svg"));
        chart(&file, title, &series)?;
        files.push(file);
    }
    Ok(files)
}

fn seconds(at: Duration) -> f64 {
    at.as_secs_f64()
}

fn sender(connection: usize, server: bool) -> String {
    format!("{connection} {}", if server { "server" } else { "client" })
}

fn sequence(recording: &Recording) -> Series {
    let mut first = BTreeMap::new();
    let mut series = Series::new();
    for segment in &recording.segments {
        let who = sender(segment.connection, segment.by_server);
        let first = *first.entry(who.clone()).or_insert(segment.seq);
        if segment.len > 0 {
            let end = segment.seq.wrapping_sub(first) as f64 + segment.len as f64;
            series
                .entry(who)
                .or_default()
                .push((seconds(segment.at), end));
        }
    }
    series
}

fn windows(recording: &Recording) -> Series {
    let mut series = Series::new();
    for sample in &recording.samples {
        let who = sender(sample.connection, sample.server);
        let mut add = |what: &str, value: u32| {
            let line = series.entry(format!("{who} {what}")).or_default();
            line.push((seconds(sample.at), f64::from(value)));
        };
        add("cwnd", sample.info.snd_cwnd);
        add("in flight", sample.info.unacked);
    }
    series
}

fn round_trips(recording: &Recording) -> Series {
    let mut series = Series::new();
    for sample in &recording.samples {
        let line = series
            .entry(sender(sample.connection, sample.server))
            .or_default();
        line.push((seconds(sample.at), seconds(sample.info.rtt) * 1e3));
    }
    series
}

fn queues(recording: &Recording) -> Series {
    let mut series = Series::new();
    for &(at, host, down, len) in &recording.queues {
        let towards = if down { "to" } else { "from" };
        let line = series.entry(format!("{towards} host {host}")).or_default();
        line.push((seconds(at), len as f64));
    }
    series
}

fn chart(file: &Path, title: &str, series: &Series) -> Result<(), Box<dyn Error>> {
    let points = || series.values().flatten();
    let end = points().map(|point| point.0).fold(1e-6, f64::max);
    let top = points().map(|point| point.1).fold(1.0, f64::max);
    let area = SVGBackend::new(file, (1_000, 600)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end, 0.0..top * 1.05)?;
    chart.configure_mesh().x_desc("virtual seconds").draw()?;
    for (index, (name, line)) in series.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(line.iter().copied(), color))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    if (1..=16).contains(&series.len()) {
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
    }
    area.present()?;
    Ok(())
}
