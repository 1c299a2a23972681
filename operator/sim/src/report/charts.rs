//! The charts.
//!
//! They decide shapes, colours and scales. Costs and waits differ by orders of magnitude between contenders, so both
//! have logarithmic axes; what is below the least that an axis shows stands on its edge.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::replicas::Line;
use super::{Failure, labels};
use crate::suite::{Contender, Interval, Measured, Results, compare};

/// Poolwright, tuned peers, peers with their defaults.
const OURS: RGBColor = RGBColor(200, 30, 30);
const TUNED: RGBColor = RGBColor(31, 90, 180);
const DEFAULT: RGBColor = RGBColor(150, 150, 150);
const LINES: [RGBColor; 4] = [OURS, TUNED, RGBColor(40, 140, 60), DEFAULT];

/// A wait below this is drawn as this, in seconds.
const LEAST_WAIT: f64 = 0.1;

/// Width of a row of bars, and height of one.
const BARS: (u32, u32) = (1100, 22);

/// A name and its values.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) ours: Option<(f64, Option<Interval>)>,
    pub(super) other: Option<(f64, Option<Interval>)>,
}

impl Bar {
    /// The shorter of its values.
    pub(super) fn length(&self) -> f64 {
        let values = [self.ours, self.other].into_iter().flatten();
        values.map(|(value, _)| value).fold(f64::INFINITY, f64::min)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws on an area of this size.
fn draw(size: (u32, u32), with: impl FnOnce(&Area<'_>) -> Result<(), Failure>) -> Result<String, Failure> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE)?;
        with(&area)?;
        area.present()?;
    }
    Ok(text)
}

/// p95 wait against slot-hours, one point for each entrant, and the front that nobody beats in both.
pub(super) fn scatter(results: &Results, workload: &Measured) -> Result<String, Failure> {
    let points: Vec<(usize, f64, f64)> = (0..results.entrants.len())
        .map(|at| (at, compare(results, workload, at)))
        .filter(|(_, row)| row.undone == 0 && row.slot_hours > 0.0)
        .map(|(at, row)| (at, row.slot_hours, row.waits[1].max(LEAST_WAIT)))
        .collect();
    let most = |of: fn(&(usize, f64, f64)) -> f64| points.iter().map(of).fold(LEAST_WAIT, f64::max);
    let least = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let least = if least.is_finite() { least } else { 1.0 };
    let (right, top) = (most(|point| point.1).max(least), most(|point| point.2));
    draw((560, 380), |area| {
        let mut chart = ChartBuilder::on(area)
            .caption("p95 wait against slot-hours", ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(
                (least * 0.8..right * 1.6).log_scale(),
                (LEAST_WAIT * 0.8..top * 1.6).log_scale(),
            )?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc("slot-hours")
            .y_desc("p95 wait, seconds")
            .draw()?;
        let front = front(&points);
        let corners = corners(&front);
        chart.draw_series(LineSeries::new(corners, BLACK.mix(0.4)))?;
        for (at, x, y) in &points {
            let entrant = &results.entrants[*at];
            let (colour, size) = look(&entrant.contender, entrant.tuned);
            chart.draw_series([Circle::new((*x, *y), size, colour.filled())])?;
        }
        let named = points
            .iter()
            .filter(|(at, ..)| *at == 0 || front.iter().any(|point| point.0 == *at));
        let named: Vec<(usize, (i32, i32))> = named
            .map(|(at, x, y)| (*at, chart.backend_coord(&(*x, *y))))
            .collect();
        names(area, results, &named, chart.plotting_area().get_pixel_range())?;
        Ok(())
    })
}

/// Writes the names of these entrants beside their points.
fn names(
    area: &Area<'_>,
    results: &Results,
    points: &[(usize, (i32, i32))],
    (across, down): (Range<i32>, Range<i32>),
) -> Result<(), Failure> {
    let sized: Vec<((i32, i32), usize)> = points
        .iter()
        .map(|(at, point)| (*point, results.entrants[*at].name.chars().count()))
        .collect();
    for ((at, point), label) in points.iter().zip(labels::place(&sized, &across, &down)) {
        let entrant = &results.entrants[*at];
        let (colour, _) = look(&entrant.contender, entrant.tuned);
        if label.leads {
            let end = (label.x, label.y + labels::HEIGHT / 2);
            area.draw(&PathElement::new([*point, end], colour.mix(0.5)))?;
        }
        let anchor = if label.is_left { HPos::Right } else { HPos::Left };
        let style = ("sans-serif", 11).into_font().color(&colour);
        let style = style.pos(Pos::new(anchor, VPos::Top));
        area.draw(&Text::new(entrant.name.clone(), (label.x, label.y), style))?;
    }
    Ok(())
}

fn look(contender: &Contender, tuned: bool) -> (RGBColor, i32) {
    match contender {
        Contender::Poolwright(settings) if settings.wait_target => (OURS, 6),
        Contender::Poolwright(_) => (OURS, 3),
        Contender::Peer(_) if tuned => (TUNED, 3),
        Contender::Peer(_) => (DEFAULT, 3),
    }
}

/// The points that no other beats in both, from the cheapest on; of equal ones the first.
fn front(points: &[(usize, f64, f64)]) -> Vec<(usize, f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)));
    let mut best = f64::INFINITY;
    sorted.retain(|point| {
        let stays = point.2 < best;
        best = best.min(point.2);
        stays
    });
    sorted
}

/// The steps between them.
fn corners(front: &[(usize, f64, f64)]) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for (_, x, y) in front {
        if let Some((_, before)) = corners.last().copied() {
            corners.push((*x, before));
        }
        corners.push((*x, *y));
    }
    corners
}

/// Workers over time.
pub(super) fn steps(caption: &str, lines: &[Line]) -> Result<String, Failure> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = points().map(|point| point.0).fold(0.1, f64::max);
    let top = points().map(|point| point.1).fold(1.0, f64::max);
    draw((560, 380), |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..right, 0.0..top * 1.4)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc("hours")
            .y_desc("workers")
            .draw()?;
        for (line, colour) in lines.iter().zip(LINES).rev() {
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour))?
                .label(line.name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .label_font(("sans-serif", 12))
            .draw()?;
        Ok(())
    })
}

/// Bars from 1, the bound, to the right: ours above, the other below.
pub(super) fn bars(caption: &str, bars: &[Bar]) -> Result<String, Failure> {
    let ends =
        |(value, interval): (f64, Option<Interval>)| interval.map_or(value, |(_, high)| high.max(value));
    let values = bars.iter().flat_map(|bar| [bar.ours, bar.other]).flatten();
    let most = values.map(ends).fold(2.0, f64::max);
    let count = u32::try_from(bars.len()).unwrap_or(u32::MAX).min(1000);
    draw((BARS.0, 80 + count * BARS.1), |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(190)
            .build_cartesian_2d((1.0..most * 1.15).log_scale(), 0.0..f64::from(count.max(1)))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_label_formatter(&|value| format!("{value:.0}"))
            .x_desc("times the bound")
            .draw()?;
        for (row, bar) in (0..count).rev().zip(bars) {
            let bottom = f64::from(row);
            let both = bar.ours.is_some() && bar.other.is_some();
            let (upper, lower) = if both {
                ((0.52, 0.92), (0.08, 0.48))
            } else {
                ((0.15, 0.85), (0.15, 0.85))
            };
            for (value, colour, (from, to)) in [(bar.ours, OURS, upper), (bar.other, TUNED, lower)] {
                let Some((value, interval)) = value else { continue };
                let corners = [(1.0, bottom + from), (value.max(1.0), bottom + to)];
                chart.draw_series([Rectangle::new(corners, colour.mix(0.75).filled())])?;
                let middle = bottom + f64::midpoint(from, to);
                let ends = interval.map(|(low, high)| [(low.max(1.0), middle), (high.max(1.0), middle)]);
                chart.draw_series(ends.map(|ends| PathElement::new(ends, BLACK)))?;
                let right = ends.map_or(value, |ends| ends[1].0.max(value));
                let text = Text::new(format!("{value:.2}"), (5, -5), ("sans-serif", 11));
                chart.draw_series([EmptyElement::at((right.max(1.0), middle)) + text])?;
            }
            let (x, y) = chart.backend_coord(&(1.0, bottom + 0.5));
            let style = ("sans-serif", 12).into_font().color(&BLACK);
            let style = style.pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(bar.name.clone(), (x - 8, y), style))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nobody_beats_in_both() {
        let points = [
            (0, 10.0, 5.0),
            (1, 12.0, 5.0),
            (2, 8.0, 9.0),
            (3, 11.0, 4.0),
            (4, 8.0, 20.0),
        ];
        let found: Vec<usize> = front(&points).iter().map(|point| point.0).collect();
        assert_eq!(found, [2, 0, 3]);
    }

    #[test]
    fn a_chart_of_nothing_is_drawn_too() {
        assert!(steps("none", &[]).unwrap().contains("</svg>"));
        assert!(bars("none", &[]).unwrap().contains("</svg>"));
    }
}
