//! `Datum`: a value as four bytes, and the table that knows what they stand for.
//!
//! ```text
//! 41        the number itself, in 31 bits
//! "ab"      place 7 of the table
//! [1 "ab"]  place 8, elements 12..14 of one long list of data
//! ```
//!
//! A history of millions of operations holds the same few values again and again, or small numbers. Equal values have
//! equal data, so that comparing, hashing and grouping need no table. Deliberately grows only: a history does.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};

use crate::Value;
use std::hash::{Hash, Hasher};

/// A [`Value`] in the table of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Datum(u32);

/// Numbers have the highest bit set, and are kept in the others.
const NUMBER: u32 = 1 << 31;
const OFFSET: i64 = 1 << 30;
/// Places in the table come after the three values that need no table.
const FIRST: u32 = 3;

impl Datum {
    /// [`Value::Nil`].
    pub(crate) const NIL: Datum = Datum(0);
    /// [`Value::Bool`].
    pub(crate) const FALSE: Datum = Datum(1);
    pub(crate) const TRUE: Datum = Datum(2);
    /// No value of any history.
    pub(crate) const UNUSED: Datum = Datum(NUMBER - 1);

    /// As a number, to be stored among other things.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// What [`Datum::bits`] gave.
    pub(crate) fn from_bits(bits: u32) -> Datum {
        Datum(bits)
    }

    fn small(number: i64) -> Option<Datum> {
        (-OFFSET..OFFSET).contains(&number).then(|| Datum(NUMBER | (number + OFFSET) as u32))
    }
}

#[derive(Clone, Debug)]
enum Entry {
    Number(i64),
    Text(Arc<str>),
    /// Elements, in [`Values::elements`].
    List(u64, u32),
}

/// Values, each stored once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    entries: Vec<Entry>,
    elements: Vec<Datum>,
    /// By hash, the place of the newest entry; the others of the same hash follow in `older`.
    newest: FxHashMap<u64, u32>,
    older: Vec<u32>,
}

impl Values {
    /// The datum of a value, which is added if it is new.
    ///
    /// # Panics
    /// If there are more than two thousand million different values.
    pub(crate) fn intern(&mut self, value: &Value) -> Datum {
        match value {
            Value::Nil => Datum::NIL,
            Value::Bool(truth) => Datum(1 + u32::from(*truth)),
            Value::Int(number) => Datum::small(*number).unwrap_or_else(|| {
                let same = |entry: &Entry, _: &[Datum]| matches!(entry, Entry::Number(n) if n == number);
                self.place(hash(&(0u8, number)), same, |_| Entry::Number(*number))
            }),
            Value::Text(text) => {
                let same = |entry: &Entry, _: &[Datum]| matches!(entry, Entry::Text(t) if t == text);
                self.place(hash(&(1u8, &**text)), same, |_| Entry::Text(text.clone()))
            }
            Value::List(values) => {
                let list: Vec<Datum> = values.iter().map(|value| self.intern(value)).collect();
                self.list(&list)
            }
        }
    }

    /// The datum of a value, if the history has it anywhere.
    pub(crate) fn find(&self, value: &Value) -> Option<Datum> {
        let known = |hash: u64, same: &dyn Fn(&Entry) -> bool| {
            let mut at = self.newest.get(&hash).copied()?;
            while !same(&self.entries[at as usize]) {
                at = self.older[at as usize];
                if at == u32::MAX {
                    return None;
                }
            }
            Some(Datum(at + FIRST))
        };
        match value {
            Value::Nil => Some(Datum::NIL),
            Value::Bool(truth) => Some(Datum(1 + u32::from(*truth))),
            Value::Int(number) => Datum::small(*number).or_else(|| {
                known(hash(&(0u8, number)), &|entry| matches!(entry, Entry::Number(n) if n == number))
            }),
            Value::Text(text) => {
                known(hash(&(1u8, &**text)), &|entry| matches!(entry, Entry::Text(t) if t == text))
            }
            Value::List(values) => {
                let list: Option<Vec<Datum>> = values.iter().map(|value| self.find(value)).collect();
                let list = &list?[..];
                known(hash(&(2u8, list)), &|entry| match entry {
                    Entry::List(start, length) => slice(&self.elements, *start, *length) == list,
                    _ => false,
                })
            }
        }
    }

    /// The datum of a list of what is in the table already.
    pub(crate) fn list(&mut self, list: &[Datum]) -> Datum {
        let same = |entry: &Entry, elements: &[Datum]| match entry {
            Entry::List(start, length) => slice(elements, *start, *length) == list,
            _ => false,
        };
        self.place(hash(&(2u8, list)), same, |elements| {
            let start = elements.len() as u64;
            elements.extend_from_slice(list);
            Entry::List(start, list.len() as u32)
        })
    }

    fn place(
        &mut self,
        hash: u64,
        same: impl Fn(&Entry, &[Datum]) -> bool,
        make: impl FnOnce(&mut Vec<Datum>) -> Entry,
    ) -> Datum {
        let newest = self.newest.get(&hash).copied().unwrap_or(u32::MAX);
        let mut at = newest;
        while at != u32::MAX {
            if same(&self.entries[at as usize], &self.elements) {
                return Datum(at + FIRST);
            }
            at = self.older[at as usize];
        }
        let at = self.entries.len() as u32;
        assert!(at < NUMBER - 1 - FIRST, "a history of more than two thousand million different values");
        self.entries.push(make(&mut self.elements));
        self.older.push(newest);
        self.newest.insert(hash, at);
        Datum(at + FIRST)
    }

    /// What a datum stands for.
    pub(crate) fn get(&self, datum: Datum) -> Value {
        if let Some(number) = self.number(datum) {
            return Value::Int(number);
        }
        match datum.0 {
            0 => Value::Nil,
            bool @ (1 | 2) => Value::Bool(bool == 2),
            at => match &self.entries[(at - FIRST) as usize] {
                Entry::Number(number) => Value::Int(*number),
                Entry::Text(text) => Value::Text(text.clone()),
                Entry::List(start, length) => {
                    slice(&self.elements, *start, *length).iter().map(|datum| self.get(*datum)).collect()
                }
            },
        }
    }

    /// The number that a datum stands for, if it is one.
    pub(crate) fn number(&self, datum: Datum) -> Option<i64> {
        if datum.0 & NUMBER != 0 {
            return Some(i64::from(datum.0 & !NUMBER) - OFFSET);
        }
        match self.entries.get(datum.0.checked_sub(FIRST)? as usize)? {
            Entry::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The elements of a list, if it is one.
    pub(crate) fn elements(&self, datum: Datum) -> Option<&[Datum]> {
        if datum.0 & NUMBER != 0 {
            return None;
        }
        match self.entries.get(datum.0.checked_sub(FIRST)? as usize)? {
            Entry::List(start, length) => Some(slice(&self.elements, *start, *length)),
            _ => None,
        }
    }
}

fn slice(elements: &[Datum], start: u64, length: u32) -> &[Datum] {
    &elements[start as usize..start as usize + length as usize]
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_equal_data_and_come_back() {
        let list = |values: &[i64]| Value::from(values.iter().map(|v| Value::Int(*v)).collect::<Vec<_>>());
        let all = [
            Value::Nil,
            false.into(),
            true.into(),
            0.into(),
            (-1).into(),
            (OFFSET - 1).into(),
            OFFSET.into(),
            (-OFFSET).into(),
            (-OFFSET - 1).into(),
            i64::MAX.into(),
            i64::MIN.into(),
            "".into(),
            "0".into(),
            list(&[]),
            list(&[0]),
            list(&[0, 1]),
            Value::from(vec![list(&[0]), "".into(), Value::Nil]),
        ];
        let mut values = Values::default();
        let absent = [i64::MAX.into(), "0".into(), list(&[0, 1]), list(&[9, 9])];
        assert_eq!(absent.map(|value| values.find(&value)), [None; 4]);
        let data: Vec<Datum> = all.iter().map(|value| values.intern(value)).collect();
        for (i, value) in all.iter().enumerate() {
            assert_eq!(values.find(value), Some(data[i]));
            assert_eq!(values.intern(value), data[i]);
            assert_eq!(values.get(data[i]), *value);
            assert_eq!(data.iter().filter(|other| **other == data[i]).count(), 1, "{value}");
            let number = if let Value::Int(n) = value { Some(*n) } else { None };
            assert_eq!(values.number(data[i]), number);
            let length = if let Value::List(l) = value { Some(l.len()) } else { None };
            assert_eq!(values.elements(data[i]).map(<[Datum]>::len), length);
            assert_eq!(Datum::from_bits(data[i].bits()), data[i]);
        }
    }
}
