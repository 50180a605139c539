//! Where boxes stand and how arrows run between them: a ring, a row or a column, curves from side to side, labels apart.
//!
//! ```text
//!      T4 ──> T1            T1 ─┐
//!     ↗         ↘           T2 <┘─┐        more than eight
//!    T3 <────── T2          T3 <──┘
//! ```
//!
//! Deliberately knows nothing of transactions, and uses no randomness: the same boxes always stand at the same places.

/// The height of a box's head and of a row, and the room that a letter takes, in pixels.
pub(super) const HEAD: f64 = 24.0;
pub(super) const ROW: f64 = 19.0;
pub(super) const LETTER: f64 = 6.9;
/// Between two boxes in a row.
pub(super) const GAP: f64 = 210.0;
/// Without edges between them.
pub(super) const SMALL_GAP: f64 = 40.0;
/// The least room in a ring between boxes, side by side or one above the other.
const BESIDE: f64 = 120.0;
const ABOVE: f64 = 46.0;
/// More than this do not stand in a ring.
pub(super) const RING: usize = 8;

/// A box on the page.
pub(super) struct Shape {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    /// The micro-operations that are shown, by their places, and `None` for those that are left out.
    pub(super) rows: Vec<(Option<usize>, String)>,
}

impl Shape {
    pub(super) fn height(&self) -> f64 {
        HEAD + ROW * self.rows.len() as f64 + 6.0
    }

    pub(super) fn centre(&self) -> (f64, f64) {
        (self.x + self.width / 2.0, self.y + self.height() / 2.0)
    }

    /// The height at which an edge meets the box.
    pub(super) fn anchor(&self, mop: Option<usize>) -> f64 {
        let row = mop.and_then(|mop| self.rows.iter().position(|row| row.0 == Some(mop)));
        self.y + row.map_or(HEAD / 2.0, |row| HEAD + ROW * (row as f64 + 0.5))
    }

    /// Whether there is too little room for an edge between the two.
    fn meets(&self, other: &Shape) -> bool {
        let apart = |a: f64, a_size: f64, b: f64, b_size: f64, gap: f64| {
            a + a_size + gap <= b || b + b_size + gap <= a
        };
        !apart(self.x, self.width, other.x, other.width, BESIDE)
            && !apart(self.y, self.height(), other.y, other.height(), ABOVE)
    }
}

/// Gives every box its place.
pub(super) fn place(mut shapes: Vec<Shape>, gap: f64) -> Vec<Shape> {
    let n = shapes.len();
    if n > RING {
        let mut y = 10.0;
        for shape in &mut shapes {
            (shape.x, shape.y) = (10.0, y);
            y += shape.height() + 26.0;
        }
        return shapes;
    }
    let tallest = shapes.iter().map(Shape::height).fold(0.0, f64::max);
    let widest = shapes.iter().map(|shape| shape.width).fold(0.0, f64::max);
    if n <= 2 || gap < GAP {
        let mut x = 10.0;
        for shape in &mut shapes {
            (shape.x, shape.y) = (x, 10.0 + (tallest - shape.height()) / 2.0);
            x += shape.width + gap;
        }
        return shapes;
    }
    // A ring that is wider than high, as large as it must be for the boxes to stand apart.
    let (mut rx, mut ry) = (widest * 0.6, tallest * 0.6);
    loop {
        for (i, shape) in shapes.iter_mut().enumerate() {
            let angle = std::f64::consts::TAU
                * (i as f64 - 0.25 * n as f64 + if n.is_multiple_of(2) { 0.5 } else { 0.0 })
                / n as f64;
            (shape.x, shape.y) =
                (rx * angle.cos() - shape.width / 2.0, ry * angle.sin() - shape.height() / 2.0);
        }
        let met = (0..n).any(|i| (0..i).any(|j| shapes[i].meets(&shapes[j])));
        if !met {
            break;
        }
        (rx, ry) = (rx * 1.06 + 4.0, ry * 1.06 + 2.0);
    }
    let left = shapes.iter().map(|shape| shape.x).fold(f64::MAX, f64::min);
    let top = shapes.iter().map(|shape| shape.y).fold(f64::MAX, f64::min);
    for shape in &mut shapes {
        (shape.x, shape.y) = (shape.x - left + 10.0, shape.y - top + 10.0);
    }
    shapes
}

/// A curve from box to box, and which way it arrives.
pub(super) struct Curve {
    pub(super) points: [(f64, f64); 4],
    to_the_right: bool,
}

impl Curve {
    /// From this height at one box to that at the other. `outwards`: to which side of boxes that stand one above the other, true for the right.
    pub(super) fn new(from: &Shape, to: &Shape, (ya, yb): (f64, f64), outwards: bool) -> Curve {
        // Side by side they are joined by the sides that face each other; one above the other, by the same side.
        let gap = (to.x - from.x - from.width).max(from.x - to.x - to.width);
        let beside = gap >= BESIDE * 0.7;
        let leaves_right = if beside { to.x > from.x } else { outwards };
        let arrives_left = if beside { leaves_right } else { !outwards };
        let xa = if leaves_right { from.x + from.width } else { from.x };
        let xb = if arrives_left { to.x } else { to.x + to.width };
        let bend = if beside { (xb - xa).abs() / 2.0 } else { (34.0 + (yb - ya).abs() / 5.0).min(180.0) };
        let out = |x: f64, right: bool| if right { x + bend } else { x - bend };
        Curve {
            points: [(xa, ya), (out(xa, leaves_right), ya), (out(xb, !arrives_left), yb), (xb, yb)],
            to_the_right: arrives_left,
        }
    }

    fn at(&self, t: f64) -> (f64, f64) {
        let [a, b, c, d] = self.points;
        let mix = |a: f64, b: f64, c: f64, d: f64| {
            let s = 1.0 - t;
            s * s * s * a + 3.0 * s * s * t * b + 3.0 * s * t * t * c + t * t * t * d
        };
        (mix(a.0, b.0, c.0, d.0), mix(a.1, b.1, c.1, d.1))
    }

    pub(super) fn path(&self) -> String {
        let [a, b, c, d] = self.points.map(|(x, y)| format!("{},{}", px(x), px(y)));
        format!("M{a} C{b} {c} {d}")
    }

    pub(super) fn head(&self) -> String {
        let (x, y) = self.points[3];
        let back = if self.to_the_right { x - 9.0 } else { x + 9.0 };
        format!("{},{} {},{} {},{}", px(x), px(y), px(back), px(y - 4.5), px(back), px(y + 4.5))
    }
}

/// Where the labels go: on their curves, and not on each other. Two curves there and back between the same boxes may cross
/// halfway; then each has its label near its beginning.
pub(super) fn spots(curves: &[Curve], labels: &[String]) -> Vec<(f64, f64)> {
    let mut spots: Vec<(f64, f64, f64)> = Vec::new();
    let same = |a: (f64, f64), b: (f64, f64)| a.0 == b.0 && (a.1 - b.1).abs() < 8.0 * ROW;
    let there_and_back = |curve: &Curve| {
        let ([a, .., b], back) = (curve.points, |other: &Curve| (other.points[3], other.points[0]));
        curves.iter().any(|other| same(a, back(other).0) && same(b, back(other).1))
    };
    for (curve, label) in curves.iter().zip(labels) {
        let half = label.chars().count() as f64 * LETTER / 2.0;
        let free = |(x, y): (f64, f64)| {
            spots.iter().all(|spot| (spot.0 - x).abs() > spot.2 + half + 6.0 || (spot.1 - y).abs() > 17.0)
        };
        let places = if there_and_back(curve) {
            [0.28, 0.34, 0.22, 0.42, 0.5, 0.58, 0.66]
        } else {
            [0.5, 0.42, 0.58, 0.34, 0.66, 0.28, 0.72]
        };
        let tries = places.map(|t| curve.at(t));
        let spot = tries.into_iter().find(|spot| free(*spot));
        // Where curves run close to each other: below.
        let below = |mut spot: (f64, f64)| {
            for _ in 0..8 {
                if free(spot) {
                    break;
                }
                spot.1 += 18.0;
            }
            spot
        };
        let (x, y) = spot.unwrap_or_else(|| below(tries[0]));
        spots.push((x, y, half));
    }
    spots.into_iter().map(|(x, y, _)| (x, y)).collect()
}

/// A length for an attribute.
pub(super) fn px(x: f64) -> String {
    format!("{x:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(n: usize, rows: usize) -> Vec<Shape> {
        let row = |i| (Some(i), String::new());
        (0..n)
            .map(|i| Shape {
                x: 0.0,
                y: 0.0,
                width: 80.0 + 37.0 * (i % 4) as f64,
                rows: (0..1 + (i * rows) % 11).map(row).collect(),
            })
            .collect()
    }

    #[test]
    fn boxes_stand_apart() {
        for (n, rows) in (1..=12).flat_map(|n| (0..5).map(move |rows| (n, rows))) {
            for gap in [GAP, SMALL_GAP] {
                let placed = place(boxes(n, rows), gap);
                for (i, a) in placed.iter().enumerate() {
                    assert!(a.x >= 0.0 && a.y >= 0.0, "{n} {rows}");
                    for b in &placed[..i] {
                        let beside = a.x + a.width < b.x || b.x + b.width < a.x;
                        assert!(beside || a.y + a.height() < b.y || b.y + b.height() < a.y, "{n} {rows}");
                    }
                }
            }
        }
    }

    #[test]
    fn labels_of_arrows_that_run_together_are_apart() {
        let placed = place(boxes(2, 3), GAP);
        let curve = || Curve::new(&placed[0], &placed[1], (20.0, 20.0), true);
        let labels: Vec<String> = (0..6).map(|i| format!("rw key {i}")).collect();
        let spots = spots(&(0..6).map(|_| curve()).collect::<Vec<_>>(), &labels);
        for (i, a) in spots.iter().enumerate() {
            let apart = |b: &(f64, f64)| (a.0 - b.0).abs() > 8.0 * LETTER || (a.1 - b.1).abs() >= 17.0;
            assert!(spots[..i].iter().all(apart), "{spots:?}");
        }
    }
}
