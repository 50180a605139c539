//! The undo log of one file: what it takes to go back to the last sync.
//!
//! ```text
//!   synced      a a a a a a|                 base = 6
//!   write 2..4  a a B B a a|                 saved: 2..4 = "aa"
//!   append      a a B B a a c c|             saved: 6..8 = nothing (zeros)
//!   undo        a a a a a a|                 length back to 6, 2..4 back to "aa"
//! ```
//!
//! Only the *first* pre-image of a byte counts: going back means going back to the last sync, never to a
//! point in between, so the second write to the same place costs nothing. A sync that arrives closes the
//! layer written so far; what comes after it goes to a new layer. The sync's success drops the layers it
//! covers, its failure joins them with what followed.
//!
//! A torn failure decides per 512-byte sector, as a disk does: a sector is wholly as it was synced or
//! wholly as it was last written. It decides the length too (see [`Log::power_failure`]).
//!
//! No I/O here: whoever writes hands in a closure that reads the old bytes, and applies the [`Undo`]. It is
//! not a journal (it lives in memory) and knows nothing of names, owners or times.

use std::{collections::BTreeMap, ops::Range};

#[cfg(test)]
mod tests;

/// What a disk writes wholly or not at all.
pub const SECTOR: u64 = 512;

/// Pre-images are read and kept in pieces of at most this size.
const PIECE: u64 = 64 * 1024;

/// The bytes that stood somewhere before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pre {
    /// These.
    Bytes(Vec<u8>),
    /// So many zeros: a hole, space set aside, or nothing at all (beyond the old end).
    Zeros(u64),
}

impl Pre {
    fn new(bytes: Vec<u8>) -> Pre {
        if bytes.iter().all(|&byte| byte == 0) { Pre::Zeros(bytes.len() as u64) } else { Pre::Bytes(bytes) }
    }

    fn len(&self) -> u64 {
        match self {
            Pre::Bytes(bytes) => bytes.len() as u64,
            Pre::Zeros(len) => *len,
        }
    }

    fn part(&self, from: u64, to: u64) -> Pre {
        match self {
            Pre::Bytes(bytes) => Pre::Bytes(bytes[from as usize..to as usize].to_vec()),
            Pre::Zeros(_) => Pre::Zeros(to - from),
        }
    }

    /// Takes in what directly follows; gives it back when the two do not go together.
    fn join(&mut self, next: Pre, most: u64) -> Option<Pre> {
        match (self, next) {
            (Pre::Zeros(len), Pre::Zeros(more)) => *len += more,
            (Pre::Bytes(bytes), Pre::Bytes(more)) if (bytes.len() + more.len()) as u64 <= most => {
                bytes.extend(more)
            }
            (_, next) => return Some(next),
        }
        None
    }
}

/// What was changed between two syncs.
#[derive(Debug, Default)]
struct Layer {
    id: u64,
    /// The length before the first change; none: nothing was changed.
    base: Option<u64>,
    /// First pre-images by place, never overlapping.
    saved: BTreeMap<u64, Pre>,
    bytes: u64,
}

impl Layer {
    fn new(id: u64) -> Layer {
        Layer { id, ..Layer::default() }
    }

    /// The parts of `range` of which nothing is saved yet.
    fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        if let Some((start, pre)) = self.saved.range(..=range.start).next_back() {
            at = at.max(start + pre.len());
        }
        for (&start, pre) in self.saved.range(range.start..).take_while(|(start, _)| **start < range.end) {
            if at < start {
                gaps.push(at..start);
            }
            at = at.max(start + pre.len());
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Saves a pre-image in a gap. Neighbours are joined, else a log of small appends would be all nodes.
    fn keep(&mut self, at: u64, pre: Pre) {
        if pre.len() == 0 {
            return;
        }
        self.bytes += pre.len();
        let before = self.saved.range_mut(..at).next_back().filter(|(start, old)| **start + old.len() == at);
        let rest = match before {
            Some((_, old)) => old.join(pre, PIECE),
            None => Some(pre),
        };
        if let Some(pre) = rest {
            self.saved.insert(at, pre);
        }
    }

    /// Saves what `range` holds before it is overwritten or cut off.
    fn save<E>(
        &mut self,
        range: Range<u64>,
        base: u64,
        read: &mut impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        for gap in self.gaps(range) {
            let mut at = gap.start;
            while at < gap.end.min(base) {
                let end = gap.end.min(base).min(at + PIECE);
                let mut bytes = read(at..end)?;
                bytes.resize((end - at) as usize, 0);
                self.keep(at, Pre::new(bytes));
                at = end;
            }
            self.keep(at, Pre::Zeros(gap.end - at));
        }
        Ok(())
    }

    /// Takes in the layer that followed this one: where both know a byte, the older pre-image holds.
    fn absorb(&mut self, later: Layer) {
        self.id = later.id;
        let Some(later_base) = later.base else { return };
        let base = *self.base.get_or_insert(later_base);
        for (start, pre) in later.saved {
            for gap in self.gaps(start..start + pre.len()) {
                let known = gap.end.min(base).max(gap.start);
                self.keep(gap.start, pre.part(gap.start - start, known - start));
                self.keep(known, Pre::Zeros(gap.end - known));
            }
        }
    }
}

/// A sync under way: which layers it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What has to be done to a file, in this order: set its length, then put the bytes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// The length the file is to have.
    pub len: u64,
    /// The length it had when the power failed.
    pub written_len: u64,
    /// The bytes to put back, and where; all within the length.
    pub back: Vec<(u64, Pre)>,
    /// Changed bytes that are undone.
    pub lost: u64,
    /// Changed bytes that survive (torn only).
    pub kept: u64,
}

/// The undo log of one file.
#[derive(Debug)]
pub struct Log {
    /// Oldest first; the last one takes what is written now.
    layers: Vec<Layer>,
    /// How many syncs are under way for a ticket.
    waiting: BTreeMap<u64, u32>,
}

impl Default for Log {
    fn default() -> Log {
        Log { layers: vec![Layer::new(1)], waiting: BTreeMap::new() }
    }
}

impl Log {
    /// Nothing to undo.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(|layer| layer.base.is_none())
    }

    /// Changed bytes since the last sync (twice, where changed before and after a sync still under way).
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }

    /// Call before a write of `count` bytes at `at` to a file of length `len`. `read` gives old bytes.
    pub fn before_write<E>(
        &mut self,
        len: u64,
        at: u64,
        count: u64,
        mut read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let layer = self.top();
        let base = *layer.base.get_or_insert(len);
        layer.save(at..at + count, base, &mut read)
    }

    /// Call before the length becomes `new`: what is cut off is saved.
    pub fn before_resize<E>(
        &mut self,
        len: u64,
        new: u64,
        read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        self.before_write(len, new.min(len), len.saturating_sub(new), read)
    }

    /// A sync arrived: it covers what was written up to now, and no more.
    pub fn sync_begin(&mut self) -> Ticket {
        let top = self.top();
        let id = top.id;
        let sealed = if top.base.is_none() { id - 1 } else { id };
        if sealed == id {
            self.layers.push(Layer::new(id + 1));
        }
        *self.waiting.entry(sealed).or_default() += 1;
        Ticket(sealed)
    }

    /// The sync is over. Only a success drops what it covered; tickets from before a power failure are void.
    pub fn sync_end(&mut self, ticket: Ticket, success: bool) {
        let Some(count) = self.waiting.get_mut(&ticket.0) else { return };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.waiting.remove(&ticket.0);
        }
        if success {
            self.layers.retain(|layer| layer.id > ticket.0);
        } else if last {
            // Nobody needs the boundary any more; the layers must not pile up under a failing disk.
            self.join_above(ticket.0);
        }
    }

    /// The power fails while the file has length `len`: what is to be done to it, none if all is synced.
    ///
    /// With a seed the failure is torn: each sector with changed bytes goes back or stays by a throw of the
    /// dice. A file that has grown ends up with its old length, its new one, or cut at a sector in between;
    /// one that has shrunk with its old or its new length (then all that was cut off comes back, or none).
    /// The log is empty afterwards.
    pub fn power_failure(&mut self, len: u64, torn: Option<u64>) -> Option<Undo> {
        let next = self.top().id + 1;
        self.waiting.clear();
        let mut layers = std::mem::replace(&mut self.layers, vec![Layer::new(next)]).into_iter();
        let mut all = layers.next()?;
        layers.for_each(|layer| all.absorb(layer));
        let base = all.base?;
        Some(match torn {
            None => undo_all(all, base, len),
            Some(seed) => undo_torn(all, base, len, seed),
        })
    }

    fn top(&mut self) -> &mut Layer {
        if self.layers.is_empty() {
            self.layers.push(Layer::new(1));
        }
        let last = self.layers.len() - 1;
        &mut self.layers[last]
    }

    fn join_above(&mut self, id: u64) {
        let Some(at) = self.layers.iter().position(|layer| layer.id == id) else { return };
        if at + 1 < self.layers.len() {
            let later = self.layers.remove(at + 1);
            self.layers[at].absorb(later);
        }
    }
}

fn undo_all(layer: Layer, base: u64, len: u64) -> Undo {
    let mut undo = Undo { len: base, written_len: len, back: Vec::new(), lost: layer.bytes, kept: 0 };
    for (at, pre) in layer.saved {
        undo.put_back(at, pre);
    }
    undo
}

fn undo_torn(layer: Layer, base: u64, len: u64, seed: u64) -> Undo {
    let cut = torn_len(base, len, seed);
    let mut undo = Undo { len: cut, written_len: len, back: Vec::new(), lost: 0, kept: 0 };
    for (start, pre) in layer.saved {
        let end = start + pre.len();
        let mut at = start;
        while at < end {
            let sector = at / SECTOR;
            let to = ((sector + 1) * SECTOR).min(end);
            let goes_back = if at >= undo.len {
                // Beyond the end that is left: an append that is lost, or bytes that were cut off and stay so.
                at < len
            } else {
                // A sector reaching beyond the end as written is needed whole when the old length returns.
                let needed = (sector + 1) * SECTOR > len && undo.len > len;
                needed || dice(seed, sector) & 1 == 0
            };
            if goes_back {
                undo.lost += to - at;
                undo.put_back(at, pre.part(at - start, to - start));
            } else {
                undo.kept += to - at;
            }
            at = to;
        }
    }
    undo
}

impl Undo {
    fn put_back(&mut self, at: u64, pre: Pre) {
        let end = (at + pre.len()).min(self.len);
        if at >= end {
            return;
        }
        let pre = if at + pre.len() > end { pre.part(0, end - at) } else { pre };
        let rest = match self.back.last_mut() {
            Some((start, last)) if *start + last.len() == at => last.join(pre, PIECE),
            _ => Some(pre),
        };
        self.back.extend(rest.map(|pre| (at, pre)));
    }
}

fn torn_len(base: u64, len: u64, seed: u64) -> u64 {
    let throw = dice(seed, u64::MAX);
    if len <= base {
        return if throw & 1 == 0 { base } else { len };
    }
    let (first, last) = (base / SECTOR + 1, (len - 1) / SECTOR);
    match throw % 4 {
        0 => base,
        1 => len,
        _ if first > last => [base, len][(throw >> 8) as usize & 1],
        _ => (first + (throw >> 8) % (last - first + 1)) * SECTOR,
    }
}

/// A throw that depends on nothing but the seed and the place (splitmix64).
pub(crate) fn dice(seed: u64, place: u64) -> u64 {
    let mut mixed = seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    mixed
}
