//! Goodput as bars, one group for each path.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::report::Report;
use super::{CAPACITY, Pair};

const WIDTH: i32 = 900;
const LEFT: i32 = 20;
const BARS: f64 = 600.0;
const BAR_HEIGHT: i32 = 16;
const ROW_HEIGHT: i32 = 104;

const fn color(pair: Pair) -> RGBColor {
    match pair {
        Pair::Linux => RGBColor(150, 150, 150),
        Pair::Ours => RGBColor(31, 119, 180),
        Pair::ToLinux => RGBColor(44, 160, 44),
        Pair::FromLinux => RGBColor(214, 120, 40),
    }
}

/// Draws `report` into `directory` and returns the file.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(report: &Report, directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    std::fs::create_dir_all(directory)?;
    let file = directory.join("path.svg");
    let height = 50 + i32::try_from(report.rows.len())? * ROW_HEIGHT;
    {
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::new(&file, size).into_drawing_area();
        area.fill(&WHITE)?;
        let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
        area.draw(&Text::new(
            format!(
                "goodput over 100 Mbit/s, Mbit/s: median of {} rounds, line from least to most",
                report.rounds
            ),
            (LEFT, 12),
            text(18),
        ))?;
        let x = |goodput: f64| LEFT + (goodput / CAPACITY * BARS).round() as i32;
        let mut top = 48;
        for row in &report.rows {
            area.draw(&Text::new(row.name.clone(), (LEFT, top), text(15)))?;
            for (index, side) in (0..).zip(&row.sides) {
                let y = top + 20 + index * (BAR_HEIGHT + 3);
                area.draw(&Rectangle::new(
                    [(LEFT, y), (x(side.median), y + BAR_HEIGHT)],
                    color(side.pair).filled(),
                ))?;
                let least = side.samples.iter().copied().fold(f64::INFINITY, f64::min);
                let most = side.samples.iter().copied().fold(0.0, f64::max);
                let middle = y + BAR_HEIGHT / 2;
                area.draw(&PathElement::new(
                    vec![(x(least), middle), (x(most), middle)],
                    BLACK.stroke_width(2),
                ))?;
                area.draw(&Text::new(
                    format!(
                        "{} {:.1} ({:.2}×)",
                        side.pair.name(),
                        side.median,
                        side.ratio
                    ),
                    (x(CAPACITY) + 30, y + 2),
                    text(13),
                ))?;
            }
            top += ROW_HEIGHT;
        }
        area.present()?;
    }
    Ok(file)
}
