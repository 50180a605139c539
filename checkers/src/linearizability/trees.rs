//! Two trees over a row of numbers, for questions about a part of the row.
//!
//! ```text
//! Maxima   7 2 9 4      max(1..4) = 9      find(0..2, at least 5) = 0
//! Cover    1 2 0 1      first zero of 1..4 = 2      one less of 0..2: 0 1 0 1
//! ```
//!
//! Every question and every change takes logarithmic time. Deliberately no more than is asked for.

/// Numbers, and the greatest of any part. A zero counts as none.
pub(super) struct Maxima {
    leaves: usize,
    /// The node `n` has the children `2n` and `2n + 1`; the first is number 1.
    nodes: Vec<u64>,
}

impl Maxima {
    pub(super) fn new(numbers: impl ExactSizeIterator<Item = u64>) -> Self {
        let leaves = numbers.len().next_power_of_two();
        let mut nodes = vec![0; 2 * leaves];
        for (node, number) in nodes[leaves..].iter_mut().zip(numbers) {
            *node = number;
        }
        for node in (1..leaves).rev() {
            nodes[node] = nodes[2 * node].max(nodes[2 * node + 1]);
        }
        Maxima { leaves, nodes }
    }

    pub(super) fn set(&mut self, at: usize, number: u64) {
        let mut node = at + self.leaves;
        self.nodes[node] = number;
        while node > 1 {
            node /= 2;
            let greatest = self.nodes[2 * node].max(self.nodes[2 * node + 1]);
            if self.nodes[node] == greatest {
                break;
            }
            self.nodes[node] = greatest;
        }
    }

    /// The greatest of `from..to`.
    pub(super) fn max(&self, from: usize, to: usize) -> u64 {
        self.parts(from, to).map(|node| self.nodes[node]).max().unwrap_or(0)
    }

    /// Some place of `from..to` with a number of at least `least`, which is not zero.
    pub(super) fn find(&self, from: usize, to: usize, least: u64) -> Option<usize> {
        debug_assert!(least > 0);
        let mut node = self.parts(from, to).find(|node| self.nodes[*node] >= least)?;
        while node < self.leaves {
            node *= 2;
            if self.nodes[node] < least {
                node += 1;
            }
        }
        Some(node - self.leaves)
    }

    /// The nodes that together stand for `from..to`.
    fn parts(&self, from: usize, to: usize) -> impl Iterator<Item = usize> + use<> {
        let (mut from, mut to) = (from + self.leaves, to + self.leaves);
        std::iter::from_fn(move || {
            while from < to {
                let part = if from & 1 == 1 {
                    from += 1;
                    Some(from - 1)
                } else if to & 1 == 1 {
                    to -= 1;
                    Some(to)
                } else {
                    None
                };
                if part.is_some() {
                    return part;
                }
                from /= 2;
                to /= 2;
            }
            None
        })
    }
}

/// Counts, of which parts go down by one, and the zeros among them.
pub(super) struct Cover {
    leaves: usize,
    /// The least of what is below, less what was taken from the nodes above.
    least: Vec<i32>,
}

impl Cover {
    pub(super) fn new(counts: impl ExactSizeIterator<Item = u32>) -> Self {
        let leaves = counts.len().next_power_of_two();
        // Beyond the end there are no zeros, however much is taken.
        let mut least = vec![i32::MAX / 2; 2 * leaves];
        for (node, count) in least[leaves..].iter_mut().zip(counts) {
            *node = count as i32;
        }
        let mut cover = Cover { leaves, least };
        for node in (1..leaves).rev() {
            let (left, right) = (cover.least[2 * node], cover.least[2 * node + 1]);
            let common = left.min(right);
            // A node holds what all of its part have in common; its children what they have beyond that.
            cover.least[2 * node] -= common;
            cover.least[2 * node + 1] -= common;
            cover.least[node] = common;
        }
        cover
    }

    /// One less of each of `from..to`.
    pub(super) fn take_one(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let (mut left, mut right) = (from + self.leaves, to - 1 + self.leaves);
        self.least[left] -= 1;
        if left != right {
            self.least[right] -= 1;
        }
        while left / 2 != right / 2 {
            if left & 1 == 0 {
                self.least[left + 1] -= 1;
            }
            if right & 1 == 1 {
                self.least[right - 1] -= 1;
            }
            left /= 2;
            right /= 2;
            self.level(left);
            self.level(right);
        }
        while left > 1 {
            left /= 2;
            self.level(left);
        }
    }

    /// Moves what both children have in common up to the node.
    fn level(&mut self, node: usize) {
        let common = self.least[2 * node].min(self.least[2 * node + 1]);
        if common != 0 {
            self.least[2 * node] -= common;
            self.least[2 * node + 1] -= common;
            self.least[node] += common;
        }
    }

    /// The first zero of `from..to`.
    pub(super) fn first_zero(&self, from: usize, to: usize) -> Option<usize> {
        if from >= to {
            return None;
        }
        self.zero_below(1, 0, (0, self.leaves), from, to)
    }

    /// As deep as the tree is high.
    fn zero_below(
        &self,
        node: usize,
        above: i32,
        (start, end): (usize, usize),
        from: usize,
        to: usize,
    ) -> Option<usize> {
        let here = above + self.least[node];
        if end <= from || to <= start || here > 0 {
            return None;
        }
        if node >= self.leaves {
            return Some(start);
        }
        let middle = start + (end - start) / 2;
        self.zero_below(2 * node, here, (start, middle), from, to)
            .or_else(|| self.zero_below(2 * node + 1, here, (middle, end), from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn maxima_are_those_of_the_row(
            row in prop::collection::vec(0u64..9, 1..40),
            changes in prop::collection::vec((any::<usize>(), 0u64..9), 0..20),
            ends in (any::<usize>(), any::<usize>()),
            least in 1u64..9,
        ) {
            let mut row = row;
            let mut tree = Maxima::new(row.iter().copied());
            for (at, number) in changes {
                let at = at % row.len();
                row[at] = number;
                tree.set(at, number);
            }
            let (from, to) = (ends.0 % (row.len() + 1), ends.1 % (row.len() + 1));
            let part = if from <= to { &row[from..to] } else { &[] };
            prop_assert_eq!(tree.max(from, to.max(from)), part.iter().copied().max().unwrap_or(0));
            match tree.find(from, to.max(from), least) {
                Some(at) => prop_assert!((from..to).contains(&at) && row[at] >= least),
                None => prop_assert!(part.iter().all(|number| *number < least)),
            }
        }

        #[test]
        fn zeros_are_those_of_the_row(
            row in prop::collection::vec(0u32..4, 1..40),
            taken in prop::collection::vec((any::<usize>(), any::<usize>()), 0..30),
        ) {
            let mut row = row;
            let mut tree = Cover::new(row.iter().copied());
            for (one, two) in taken {
                let (one, two) = (one % (row.len() + 1), two % (row.len() + 1));
                let (from, to) = (one.min(two), one.max(two));
                let zero = (from..to).find(|at| row[*at] == 0);
                prop_assert_eq!(tree.first_zero(from, to), zero);
                if zero.is_none() {
                    tree.take_one(from, to);
                    row[from..to].iter_mut().for_each(|count| *count -= 1);
                }
                prop_assert_eq!(tree.first_zero(0, row.len()), row.iter().position(|count| *count == 0));
            }
        }
    }
}
