//! Bars of medians with their spread, one SVG for each suite.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::report::{Report, Side};

const BAR_HEIGHT: i32 = 22;
const CASE_HEIGHT: i32 = 92;
const WIDTH: i32 = 900;
const LEFT: i32 = 20;
const BARS: f64 = 560.0;

/// Draws `report` into `directory` and returns the file.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(report: &Report, directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    std::fs::create_dir_all(directory)?;
    let file = directory.join(format!("{}.svg", report.suite.name()));
    let rows = i32::try_from(report.rows.len())?;
    let height = 50 + rows * CASE_HEIGHT;
    {
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::new(&file, size).into_drawing_area();
        area.fill(&WHITE)?;
        let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
        area.draw(&Text::new(
            format!(
                "{}: median of {} rounds, line from least to most",
                report.suite.name(),
                report.rounds
            ),
            (LEFT, 12),
            text(18),
        ))?;
        let mut top = 48;
        for row in &report.rows {
            let target = row
                .target
                .map(|t| format!(", target {t}"))
                .unwrap_or_default();
            area.draw(&Text::new(
                format!("{} [{}]: {:.2}×{target}", row.name, row.unit, row.ratio),
                (LEFT, top),
                text(15),
            ))?;
            let most = row.ours.max.max(row.kernel.max).max(f64::MIN_POSITIVE);
            let sides = [
                ("ours", &row.ours, RGBColor(31, 119, 180)),
                ("kernel", &row.kernel, RGBColor(150, 150, 150)),
            ];
            for (index, (name, side, color)) in (0..).zip(sides) {
                let y = top + 22 + index * (BAR_HEIGHT + 4);
                bar(&area, side, most, y, color)?;
                area.draw(&Text::new(
                    format!("{name} {:.2}", side.median),
                    (LEFT + scale(most, most) + 90, y + 4),
                    text(14),
                ))?;
            }
            top += CASE_HEIGHT;
        }
        area.present()?;
    }
    Ok(file)
}

fn scale(value: f64, most: f64) -> i32 {
    (value / most * BARS).round() as i32
}

fn bar<DB: DrawingBackend>(
    area: &DrawingArea<DB, plotters::coord::Shift>,
    side: &Side,
    most: f64,
    y: i32,
    color: RGBColor,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    let end = LEFT + scale(side.median, most);
    area.draw(&Rectangle::new(
        [(LEFT, y), (end, y + BAR_HEIGHT)],
        color.filled(),
    ))?;
    let middle = y + BAR_HEIGHT / 2;
    let spread = vec![
        (LEFT + scale(side.min, most), middle),
        (LEFT + scale(side.max, most), middle),
    ];
    area.draw(&PathElement::new(spread, BLACK.stroke_width(2)))
}
