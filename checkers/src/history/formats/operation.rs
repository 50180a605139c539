//! What `:f` and `:value` mean: a form's fields as an [`Op`] and a [`Ret`].
//!
//! ```text
//! :invoke :cas     [1 2]              Cas { expected: 1, new: 2 }
//! :ok     :cas     [1 2]              Swapped { swapped: true }
//! :ok     :read    #{3 1 2}           Value([1 2 3])
//! :ok     :acquire {:client "a", :fence 5}    owner "a", Value(5)
//! :ok     :txn     [[:r :x 1] [:append :y 2]] Txn([1])
//! ```
//!
//! Deliberately about one event: which key it has, and how it goes with its invocation, is for [`import`](super::import).

use serde_json::Value as Json;

use super::{
    Datum,
    form::Form,
    value::{Dialect, to_contents, to_json, to_value},
};
use crate::{Key, Mop, Op, ReadMode, Ret, Value, history::op::BUILT_IN};

/// How the values of a file are to be read.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) dialect: Dialect,
    /// Written by us: every value is exactly what it was.
    pub(crate) ours: bool,
}

impl Reading {
    fn value(self, datum: &Datum<'_>) -> Result<Value, String> {
        to_value(datum, self.dialect)
    }

    /// What a whole register or bank holds.
    fn contents(self, datum: &Datum<'_>) -> Result<Value, String> {
        if self.ours { self.value(datum) } else { to_contents(datum, self.dialect) }
    }

    fn json(self, datum: &Datum<'_>) -> Result<Json, String> {
        to_json(datum, self.dialect)
    }

    /// The request that an event names. `key` is `None` when it has none.
    ///
    /// # Errors
    /// The value has a shape that this operation cannot have.
    pub(crate) fn request(
        self,
        f: &std::sync::Arc<str>,
        key: Option<Key>,
        value: &Datum<'_>,
        mode: ReadMode,
    ) -> Result<Op, String> {
        let prefix = key.clone();
        let one = |key: Option<Key>| key.unwrap_or_default();
        Ok(match &**f {
            "read" | "write" if !self.ours && key.is_none() && is_several(value) => {
                Op::Txn { mops: self.mops(f, None, value)?.into_iter().map(|(mop, _)| mop).collect() }
            }
            "read" => Op::Read { key: one(key), mode },
            "write" => Op::Write { key: one(key), value: self.contents(value)? },
            "cas" => match value.list() {
                Some([expected, new]) => {
                    Op::Cas { key: one(key), expected: self.contents(expected)?, new: self.contents(new)? }
                }
                _ => return Err(shape("cas", "[expected new]", value)),
            },
            "append" => Op::Append { key: one(key), value: self.value(value)? },
            // Without keys of its own the history names here what is deleted.
            "delete" if key.is_none() && !self.ours => Op::Delete { key: self.value(value)? },
            "delete" => Op::Delete { key: one(key) },
            "add" => Op::Add { key: one(key), value: self.value(value)? },
            "enqueue" => Op::Enqueue { key: one(key), value: self.value(value)? },
            "dequeue" => Op::Dequeue { key: one(key) },
            "remove" => Op::Remove { key: one(key), value: self.value(value)? },
            "contains" => Op::Contains { key: one(key), value: self.value(value)? },
            "drain" => Op::Drain { key: one(key) },
            "push" => Op::Push { key: one(key), value: self.value(value)? },
            "pop" => Op::Pop { key: one(key) },
            "generate" => Op::Generate { key: one(key) },
            "acquire" => Op::Acquire { key: one(key), owner: self.owner(value)? },
            "release" => Op::Release { key: one(key), owner: self.owner(value)? },
            "transfer" => self.transfer(prefix.as_ref(), value)?,
            "txn" => Op::Txn {
                mops: self.mops("txn", prefix.as_ref(), value)?.into_iter().map(|(mop, _)| mop).collect(),
            },
            _ => Op::Custom { f: f.clone(), key, value: self.json(value)? },
        })
    }

    /// What the nemesis or an observer has to tell. It is no operation, so it may not take the name of one.
    ///
    /// # Errors
    /// The value nests too deep.
    pub(crate) fn remark(self, f: Option<&std::sync::Arc<str>>, value: &Datum<'_>) -> Result<Op, String> {
        let f = match f {
            None => "event".into(),
            Some(f) if BUILT_IN.contains(&&**f) => format!("nemesis-{f}").into(),
            Some(f) => f.clone(),
        };
        Ok(Op::Custom { f, key: None, value: self.json(value)? })
    }

    /// What an ok says, and the request as the completion tells it, where it tells it otherwise.
    ///
    /// # Errors
    /// The answer has a shape that this operation cannot get.
    pub(crate) fn answer(
        self,
        op: &Op,
        key: Option<&Key>,
        value: &Datum<'_>,
        form: &Form<'_>,
    ) -> Result<(Option<Op>, Option<Ret>), String> {
        let request = || {
            let key = key.or(op.key()).cloned();
            self.request(&op.f().into(), key, value, ReadMode::Default)
        };
        let ret = match (&form.ret, op) {
            (None, _) => Ret::Done,
            (Some(ret), Op::Custom { .. }) => Ret::Custom(self.json(ret)?),
            (Some(ret), _) => Ret::Value(self.value(ret)?),
        };
        Ok(match op {
            Op::Read { .. } => (None, Some(Ret::Value(self.contents(value)?))),
            Op::Dequeue { .. } | Op::Pop { .. } | Op::Generate { .. } => {
                (None, Some(Ret::Value(self.value(value)?)))
            }
            Op::Drain { .. } => (None, Some(self.drained(value)?)),
            Op::Cas { .. } => {
                let swapped = form.swapped.unwrap_or(true);
                let told = value.list().is_some_and(|pair| pair.len() == 2).then(request).transpose()?;
                (told, Some(Ret::Swapped { swapped, found: form.found.clone() }))
            }
            // The answer may stand in the place of the element.
            Op::Contains { value: element, .. } if form.ret.is_none() => match value {
                Datum::Bool(there) if *element != Value::Bool(*there) => {
                    (None, Some(Ret::Value((*there).into())))
                }
                _ => {
                    return Err("contains is ok without an answer; it is the field ret: true or false".into());
                }
            },
            Op::Txn { .. } => {
                let f = form.f.as_deref().unwrap_or("txn");
                let (mops, found): (Vec<Mop>, Vec<Option<Value>>) =
                    self.mops(f, key, value)?.into_iter().unzip();
                (Some(Op::Txn { mops: mops.into() }), Some(Ret::Txn(found.into_iter().flatten().collect())))
            }
            Op::Acquire { key, owner } | Op::Release { key, owner } if !self.ours => {
                let (told, fence) = self.held(op, owner, value)?;
                let (key, acquires) = (key.clone(), matches!(op, Op::Acquire { .. }));
                let op = told.map(|owner| match acquires {
                    true => Op::Acquire { key, owner },
                    false => Op::Release { key, owner },
                });
                (op, Some(fence.map_or(ret, Ret::Value)))
            }
            Op::Custom { f, key, .. } => {
                let told = Op::Custom { f: f.clone(), key: key.clone(), value: self.json(value)? };
                (Some(told), Some(ret))
            }
            _ if value.is_nil() || self.ours => (None, Some(ret)),
            // Some answer with the new balances.
            Op::Transfer { .. } => (request().ok(), Some(ret)),
            _ => (Some(request()?), Some(ret)),
        })
    }

    fn drained(self, value: &Datum<'_>) -> Result<Ret, String> {
        match value.untagged() {
            Datum::Nil if !self.ours => Ok(Ret::Value(Vec::new().into())),
            Datum::List(items) | Datum::Set(items) => {
                let items = items.iter().map(|item| self.value(item)).collect::<Result<Vec<_>, _>>()?;
                Ok(Ret::Value(items.into()))
            }
            _ => Err(shape("drain", "the list of what was taken", value)),
        }
    }

    /// Who acquires or releases: a plain value, or the `:client` of a map.
    fn owner(self, value: &Datum<'_>) -> Result<Value, String> {
        match value.untagged() {
            Datum::Map(entries) if !self.ours => match field(entries, "client") {
                Some(client) => self.value(client),
                None if field(entries, "fence").is_some() => Ok(Value::Nil),
                None => self.value(value),
            },
            _ => self.value(value),
        }
    }

    /// What the ok of an acquire or a release says of the owner, and of the fencing token.
    fn held(
        self,
        op: &Op,
        owner: &Value,
        value: &Datum<'_>,
    ) -> Result<(Option<Value>, Option<Value>), String> {
        let fence = match value.untagged() {
            Datum::Map(entries) => field(entries, "fence").filter(|fence| !fence.is_nil()),
            // An owner would have been known when the lock was asked for.
            number @ Datum::Int(_) if *owner == Value::Nil && matches!(op, Op::Acquire { .. }) => {
                return Ok((None, Some(self.value(number)?)));
            }
            _ => None,
        };
        let told = self.owner(value)?;
        let fence = fence.map(|fence| self.value(fence)).transpose()?;
        Ok(((told != Value::Nil).then_some(told), fence))
    }

    fn transfer(self, prefix: Option<&Key>, value: &Datum<'_>) -> Result<Op, String> {
        let wrong = || shape("transfer", "{:from account, :to account, :amount number}", value);
        let Datum::Map(entries) = value.untagged() else { return Err(wrong()) };
        let (Some(from), Some(to), Some(Datum::Int(amount))) =
            (field(entries, "from"), field(entries, "to"), field(entries, "amount"))
        else {
            return Err(wrong());
        };
        let account = |datum| Ok::<_, String>(within(prefix, self.value(datum)?));
        Ok(Op::Transfer { from: account(from)?, to: account(to)?, amount: *amount })
    }

    /// Micro-operations, and what each read found: a list of them, or a map from keys to values, sorted by key, all of
    /// which are read or written as `f` says.
    pub(crate) fn mops(
        self,
        f: &str,
        prefix: Option<&Key>,
        value: &Datum<'_>,
    ) -> Result<Vec<(Mop, Option<Value>)>, String> {
        match value.untagged() {
            Datum::List(items) => items.iter().map(|item| self.mop(prefix, item)).collect(),
            Datum::Map(entries) => {
                let pair =
                    |(k, v): &(Datum<'_>, Datum<'_>)| Ok::<_, String>((self.value(k)?, self.value(v)?));
                let mut pairs = entries.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
                pairs.sort_unstable();
                let mop = |(key, value)| match f {
                    "write" => (Mop::Write { key, value }, None),
                    _ => (Mop::Read { key }, Some(value)),
                };
                Ok(pairs.into_iter().map(mop).collect())
            }
            _ => Err(shape("txn", "a list of [:r key value], [:w key value] and [:append key value]", value)),
        }
    }

    fn mop(self, prefix: Option<&Key>, item: &Datum<'_>) -> Result<(Mop, Option<Value>), String> {
        let wrong = || {
            format!(
                "expected a micro-operation [:r key value], [:w key value] or [:append key value], found {}",
                item.brief()
            )
        };
        let (f, key, value) = match item.list() {
            Some([f, key]) => (f, key, &Datum::Nil),
            Some([f, key, value]) => (f, key, value),
            _ => return Err(wrong()),
        };
        let key = within(prefix, self.value(key)?);
        let value = self.value(value)?;
        Ok(match f.word() {
            Some("r" | "read") => (Mop::Read { key }, Some(value)),
            Some("w" | "write") => (Mop::Write { key, value }, None),
            Some("append") => (Mop::Append { key, value }, None),
            _ => return Err(wrong()),
        })
    }
}

/// A key of a system that exists once for each key of the history.
fn within(prefix: Option<&Key>, key: Value) -> Value {
    match prefix {
        Some(prefix) => vec![prefix.clone(), key].into(),
        None => key,
    }
}

/// Whether the value of a read or a write is about several registers: `[[:read :x nil] …]` or `{:x nil, …}`.
fn is_several(value: &Datum<'_>) -> bool {
    match value.untagged() {
        Datum::Map(entries) => !entries.is_empty(),
        Datum::List(items) => !items.is_empty() && items.iter().all(is_mop),
        _ => false,
    }
}

/// Whether it looks like a micro-operation.
pub(crate) fn is_mop(datum: &Datum<'_>) -> bool {
    let Some([f, _] | [f, _, _]) = datum.list() else { return false };
    matches!(f, Datum::Keyword(_) | Datum::Text(_))
        && matches!(f.word(), Some("r" | "w" | "read" | "write" | "append"))
}

fn field<'d, 'a>(entries: &'d [(Datum<'a>, Datum<'a>)], name: &str) -> Option<&'d Datum<'a>> {
    entries.iter().find(|(key, _)| key.word() == Some(name)).map(|(_, value)| value)
}

fn shape(f: &str, expected: &str, value: &Datum<'_>) -> String {
    format!("the value of {f} is {expected}, found {}: {}", value.kind(), value.brief())
}
