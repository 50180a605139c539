//! Judges what clients see of lists, while a run goes on.
//!
//! ```text
//! every key is a list that clients append unique numbers to; a read shows all that was acknowledged before it began,
//! nothing twice, nothing that was refused, and any two reads agree on their common part
//! ```
//!
//! Append-only lists make linearizability cheap to check: the order of the writes is in the value. Deliberately no general
//! checker; that is the tester's business.

use std::collections::{BTreeMap, BTreeSet};

/// One append, as its client sees it. Times are virtual nanoseconds.
#[derive(Clone, Debug)]
struct Append {
    key: usize,
    invoked: u64,
    acked: Option<u64>,
    refused: bool,
}

/// Everything that was claimed so far.
#[derive(Debug, Default)]
pub(super) struct Lists {
    appends: Vec<Append>,
    longest: BTreeMap<usize, Vec<u32>>,
    /// Per key: (completed, length) of reads, lengths growing.
    reads: BTreeMap<usize, Vec<(u64, usize)>>,
}

type Check = Result<(), String>;

impl Lists {
    /// A client is about to append; returns the number that it must append.
    pub(super) fn invoke_append(&mut self, key: usize, now: u64) -> u32 {
        self.appends.push(Append { key, invoked: now, acked: None, refused: false });
        (self.appends.len() - 1) as u32
    }

    pub(super) fn acked(&mut self, token: u32, now: u64) {
        self.appends[token as usize].acked.get_or_insert(now);
    }

    pub(super) fn refused(&mut self, token: u32) {
        self.appends[token as usize].refused = true;
    }

    /// A linearizable read of `key`, invoked then, has just shown `list`.
    pub(super) fn read(&mut self, key: usize, invoked: u64, now: u64, list: &[u32]) -> Check {
        let mut seen = BTreeSet::new();
        for token in list {
            if !seen.insert(*token) {
                return Err(format!("append {token} is in the list of key {key} twice"));
            }
            let Some(append) = self.appends.get(*token as usize).filter(|append| append.key == key) else {
                return Err(format!("append {token} is in the list of key {key}, but was never sent to it"));
            };
            if append.refused {
                return Err(format!(
                    "append {token} was refused as not applied, but is in the list of key {key}"
                ));
            }
        }
        for (token, append) in (0u32..).zip(&self.appends) {
            if append.key == key
                && append.acked.is_some_and(|acked| acked < invoked)
                && !seen.contains(&token)
            {
                return Err(format!(
                    "append {token} to key {key} was acknowledged before a read that lacks it"
                ));
            }
        }
        let longest = self.longest.entry(key).or_default();
        let common = longest.len().min(list.len());
        if longest[..common] != list[..common] {
            return Err(format!("two reads of key {key} disagree: {longest:?} and {list:?}"));
        }
        if list.len() > longest.len() {
            longest.clone_from(&list.to_vec());
        }
        let reads = self.reads.entry(key).or_default();
        if let Some((_, length)) = reads.iter().rev().find(|(completed, _)| *completed < invoked)
            && *length > list.len()
        {
            return Err(format!("a read of key {key} went back from {length} to {} entries", list.len()));
        }
        let length = reads.last().map_or(0, |(_, length)| *length).max(list.len());
        reads.push((now, length));
        self.real_time_order(key)
    }

    /// What was acknowledged before another append was sent stands before it.
    fn real_time_order(&self, key: usize) -> Check {
        let mut earliest_ack_after = u64::MAX;
        for token in self.longest[&key].iter().rev() {
            let append = &self.appends[*token as usize];
            if earliest_ack_after < append.invoked {
                return Err(format!(
                    "append {token} to key {key} stands before one acknowledged before it was sent"
                ));
            }
            earliest_ack_after = earliest_ack_after.min(append.acked.unwrap_or(u64::MAX));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_a_doubled_and_a_refused_append_are_found_and_a_good_list_is_not() {
        let mut lists = Lists::default();
        let a = lists.invoke_append(0, 10);
        lists.acked(a, 20);
        let b = lists.invoke_append(0, 30);
        lists.refused(b);
        let c = lists.invoke_append(0, 40);
        assert!(lists.read(0, 15, 25, &[]).is_ok(), "it overlaps the append");
        assert!(lists.read(0, 50, 60, &[]).unwrap_err().contains("lacks it"));
        assert!(lists.read(0, 50, 60, &[a, a]).unwrap_err().contains("twice"));
        assert!(lists.read(0, 50, 60, &[a, b]).unwrap_err().contains("refused"));
        assert!(lists.read(0, 50, 60, &[c, a]).unwrap_err().contains("stands before"));
        let mut lists = Lists::default();
        let (a, b) = (lists.invoke_append(0, 1), lists.invoke_append(0, 1));
        assert!(lists.read(0, 2, 3, &[a, b]).is_ok());
        assert!(lists.read(0, 4, 5, &[a]).unwrap_err().contains("went back"));
        assert!(lists.read(0, 4, 5, &[b, a]).unwrap_err().contains("disagree"));
    }
}
