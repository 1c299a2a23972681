//! Where the names of points stand, so that none lies on another.
//!
//! Pixels, from the upper left corner. A name stands beside its point where it can, and else above or below that place
//! as near as there is room, with a line that leads to the point. It draws nothing.

use std::ops::Range;

/// Height of a line of text.
pub(super) const HEIGHT: i32 = 13;
/// Width that a character takes at most in the mean.
const CHARACTER: i32 = 7;
/// Room between a point and its name.
const GAP: i32 = 6;

/// A name at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// The end of the text that is next to the point.
    pub(super) x: i32,
    /// The text's upper edge.
    pub(super) y: i32,
    /// The text is left of the point, and ends at `x`.
    pub(super) is_left: bool,
    /// The point is too far off to be seen as the text's own.
    pub(super) leads: bool,
    wide: i32,
}

impl Label {
    fn across(&self) -> Range<i32> {
        if self.is_left {
            self.x - self.wide..self.x
        } else {
            self.x..self.x + self.wide
        }
    }

    fn meets(&self, other: &Self) -> bool {
        let (own, their) = (self.across(), other.across());
        own.start < their.end && their.start < own.end && (self.y - other.y).abs() < HEIGHT
    }
}

/// The places of the names of these points, in their order; each has the number of its name's characters. On the right
/// half of `across` names stand left of their points. Where there is no room at all in `down`, a name stays beside its
/// point.
pub(super) fn place(points: &[((i32, i32), usize)], across: &Range<i32>, down: &Range<i32>) -> Vec<Label> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|at| (points[*at].0.1, points[*at].0.0));
    let mut placed: Vec<Label> = Vec::with_capacity(points.len());
    let mut all = vec![None; points.len()];
    for at in order {
        let ((x, y), characters) = points[at];
        let is_left = x > i32::midpoint(across.start, across.end);
        let beside = Label {
            x: if is_left { x - GAP } else { x + GAP },
            y: y - HEIGHT - 1,
            is_left,
            leads: false,
            wide: i32::try_from(characters).unwrap_or(0) * CHARACTER,
        };
        let steps = (0..=down.end - down.start).flat_map(|far| [far, -far]);
        let moved = steps.map(|by| Label {
            y: beside.y + by,
            leads: by.abs() >= HEIGHT,
            ..beside
        });
        let is_inside = |label: &Label| down.start <= label.y && label.y + HEIGHT <= down.end;
        let mut free = moved.filter(|label| is_inside(label) && !placed.iter().any(|one| one.meets(label)));
        let label = free.next().unwrap_or(beside);
        placed.push(label);
        all[at] = Some(label);
    }
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_lies_on_another() {
        let points: Vec<((i32, i32), usize)> = (0..12).map(|at| ((200 + at % 3, 100 + at), 18)).collect();
        let labels = place(&points, &(68..548), &(40..330));
        assert_eq!(labels.len(), points.len());
        for (at, label) in labels.iter().enumerate() {
            assert!((40..=330 - HEIGHT).contains(&label.y), "{label:?}");
            assert!(labels[..at].iter().all(|other| !other.meets(label)), "{labels:?}");
        }
        let beside = |label: &&Label| !label.leads;
        assert!(labels.iter().filter(beside).count() >= 1 && labels.iter().any(|label| label.leads));
    }

    #[test]
    fn a_name_with_room_stands_beside_its_point() {
        let labels = place(
            &[((100, 100), 5), ((500, 100), 5), ((100, 60), 5)],
            &(68..548),
            &(40..330),
        );
        let found: Vec<(i32, i32, bool, bool)> = labels
            .iter()
            .map(|label| (label.x, label.y, label.is_left, label.leads))
            .collect();
        assert_eq!(
            found,
            [
                (106, 86, false, false),
                (494, 86, true, false),
                (106, 46, false, false)
            ]
        );
    }
}
