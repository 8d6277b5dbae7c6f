//! A line for each case over what was recorded.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::cases::CASES;
use crate::history::History;

pub(crate) fn draw(history: &History, file: &Path) -> Result<(), Box<dyn Error>> {
    let counts = |case: &str| -> Vec<u32> {
        let of_case = history.entries.iter().filter(|entry| entry.case == case);
        of_case.map(|entry| entry.instructions).collect()
    };
    let recordings = CASES.iter().map(|(name, _)| counts(name).len()).max();
    let recordings = recordings.unwrap_or(1).max(2);
    let most = history.entries.iter().map(|entry| entry.instructions).max();
    let area = SVGBackend::new(file, (1000, 560)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Instructions per segment", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(
            0..recordings - 1,
            (100..most.unwrap_or(1000) * 2).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("recording")
        .x_labels(recordings.min(20))
        .y_desc("instructions")
        .draw()?;
    for (index, (name, _)) in CASES.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        // A case that came later is recorded in the last ones only.
        let counts = counts(name);
        let first = recordings.saturating_sub(counts.len().max(1));
        let points: Vec<_> = (first..).zip(counts).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), color.stroke_width(2)).point_size(3))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()?;
    Ok(())
}
