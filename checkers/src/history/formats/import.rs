//! Forms to events: joins what Jepsen leaves to the reader, so that a history of anybody's keeps our rules.
//!
//! ```text
//! {:process 3 :type :invoke :f :read :value nil}      3  invoke  read
//! {:process 3 :type :info   :f :read}                 3  info    read         a completion repeats its invocation
//! {:process 3 :type :invoke :f :cas  :value [1 2]}   17  invoke  cas 1 2      a process is used again: a new number
//! {:process 3 :type :fail   :f :cas}                 17  fail    cas 1 2
//! ```
//!
//! The order of the file is the order of real time, as for Knossos: times that are missing, equal or go backwards are moved
//! up by just so much that they strictly increase. A history that we wrote ourselves says so in its first event; it is
//! taken as it is. Deliberately strict about what cannot be told apart from damage: a completion of nothing is an error.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    Datum, NilReads, Options,
    form::Form,
    operation::Reading,
    source::Place,
    value::{Dialect, to_json, to_value},
};
use crate::{Event, Header, History, Key, Kind, Op, Process, Ret, Value, history::jsonl::Names};

/// Process numbers from here on are our own, until the highest number in the file is known.
const FRESH: u64 = 1 << 63;

/// A history while it is read.
pub(crate) struct Import {
    reading: Reading,
    keyed: bool,
    nil_reads: NilReads,
    header: Header,
    events: Vec<Event>,
    clients: FxHashMap<u64, Client>,
    /// The highest process number in the file.
    highest: u64,
    /// How many processes got a number of their own.
    fresh: u64,
    /// Events without an index of their own.
    unnumbered: bool,
    /// The first index that is not higher than the one before: where, and what.
    disordered: Option<(Place, String)>,
    names: Names,
}

/// A process of the file.
struct Client {
    /// Its number in the history.
    number: u64,
    state: State,
}

enum State {
    Idle,
    /// The event at this place invoked.
    Open(usize, Arc<str>),
    Retired,
}

/// What our own header says beyond [`Header`].
pub(crate) struct Ours {
    header: Header,
    keyed: bool,
}

impl Ours {
    /// The header that a first event carries, if we wrote it.
    ///
    /// # Errors
    /// We did, but newer than this build knows.
    pub(crate) fn of(form: &Form<'_>, dialect: Dialect) -> Result<Option<Ours>, String> {
        let Some(datum) = &form.header else { return Ok(None) };
        let json = to_json(datum, dialect)?;
        let keyed = json.get("keyed").and_then(serde_json::Value::as_bool).unwrap_or_default();
        let Ok(header) = serde_json::from_value::<Header>(json) else { return Ok(None) };
        if header.format != Header::FORMAT {
            return Ok(None);
        }
        if header.version > Header::VERSION {
            return Err(format!(
                "the history is of version {}, but this build reads up to version {}; judge it with a newer build",
                header.version,
                Header::VERSION
            ));
        }
        Ok(Some(Ours { header, keyed }))
    }
}

impl Import {
    pub(crate) fn new(dialect: Dialect, ours: Option<Ours>, keyed: bool, options: &Options) -> Self {
        let reading = Reading { dialect, ours: ours.is_some() };
        let (header, keyed) = match ours {
            Some(ours) => (ours.header, ours.keyed),
            None => (Header::new("imported", 0, "", Vec::new()), keyed),
        };
        Import {
            reading,
            keyed,
            nil_reads: options.nil_reads,
            header,
            events: Vec::new(),
            clients: FxHashMap::default(),
            highest: 0,
            fresh: 0,
            unnumbered: false,
            disordered: None,
            names: Names::default(),
        }
    }

    /// Adds an event.
    ///
    /// # Errors
    /// It is none, or it cannot follow the events before it.
    pub(crate) fn add(&mut self, datum: Datum<'_>, place: Place) -> Result<(), String> {
        let mut form = Form::new(datum, self.reading.dialect, &mut self.names)?;
        let value = form.value.take().unwrap_or(Datum::Nil);
        if self.reading.ours {
            let event = self.as_it_is(form, &value)?;
            self.events.push(event);
            return Ok(());
        }
        self.number(&mut form, place);
        match form.process {
            Process::Client(process) => self.client(process, form, &value),
            _ => {
                let op = self.reading.remark(form.f.as_ref(), &value)?;
                let ret = (form.kind == Kind::Ok).then_some(Ret::Done);
                self.push(form, op, ret);
                Ok(())
            }
        }
    }

    /// The history, when all events were added.
    ///
    /// # Errors
    /// Where the event is that breaks the order of the indexes, and how.
    pub(crate) fn finish(mut self) -> Result<History, (Place, String)> {
        if !self.reading.ours {
            if self.unnumbered {
                for (place, event) in self.events.iter_mut().enumerate() {
                    event.index = place as u64;
                }
            } else if let Some(disordered) = self.disordered {
                return Err(disordered);
            }
            if self.fresh > 0 {
                for event in &mut self.events {
                    if let Process::Client(number @ FRESH..) = &mut event.process {
                        *number = *number - FRESH + self.highest + 1;
                    }
                }
            }
        }
        Ok(History::new(self.header, self.events))
    }

    /// An event that we wrote.
    fn as_it_is(&mut self, form: Form<'_>, value: &Datum<'_>) -> Result<Event, String> {
        let f = form.f.clone().ok_or("the event has no f")?;
        let (key, value) = match self.keyed && has_key(&f) {
            true => match value.list() {
                Some([key, value]) => (Some(to_value(key, self.reading.dialect)?), value),
                _ => return Err(format!("{f} needs a value of [key value], found {}", value.brief())),
            },
            false => (form.key.clone(), value),
        };
        let op = self.reading.request(&f, key.clone(), value, form.mode)?;
        // What Jepsen calls a failure is an observation for us.
        let kind = if form.swapped == Some(false) { Kind::Ok } else { form.kind };
        let (_, ret) = match kind {
            Kind::Ok => self.reading.answer(&op, key.as_ref(), value, &form)?,
            _ => (None, None),
        };
        let (Some(index), Some(time)) = (form.index, form.time) else {
            return Err(
                "the event has no index or no time, but the first one says that tribunal wrote them".into()
            );
        };
        Ok(Event { index, time, process: form.process, kind, op, ret, meta: form.meta })
    }

    /// Gives the event its time, and notes whether its index can stay.
    fn number(&mut self, form: &mut Form<'_>, place: Place) {
        let previous = self.events.last();
        let next = previous.map_or(0, |event| event.time.saturating_add(1));
        form.time = Some(form.time.unwrap_or(next).max(next));
        let Some(index) = form.index else {
            self.unnumbered = true;
            return;
        };
        if let Some(previous) = previous
            && previous.index >= index
            && self.disordered.is_none()
        {
            let problem = format!(
                "the index {index} follows the index {}; indexes must increase, so the file was merged, edited or sorted",
                previous.index
            );
            self.disordered = Some((place, problem));
        }
    }

    fn push(&mut self, form: Form<'_>, op: Op, ret: Option<Ret>) {
        let (index, time) = (form.index.unwrap_or_default(), form.time.unwrap_or_default());
        self.events.push(Event {
            index,
            time,
            process: form.process,
            kind: form.kind,
            op,
            ret,
            meta: form.meta,
        });
    }

    /// The key of an operation, and what is left of its value.
    fn split<'d, 'a>(
        &self,
        form: &Form<'_>,
        value: &'d Datum<'a>,
    ) -> Result<Option<(Option<Key>, &'d Datum<'a>)>, String> {
        if !self.keyed || form.key.is_some() {
            return Ok(Some((form.key.clone(), value)));
        }
        match value.list() {
            Some([key, value]) => Ok(Some((Some(to_value(key, self.reading.dialect)?), value))),
            _ => Ok(None),
        }
    }

    fn client(&mut self, process: u64, mut form: Form<'_>, value: &Datum<'_>) -> Result<(), String> {
        if process >= FRESH {
            return Err(format!("the process number {process} is too large; it must be below 2^63"));
        }
        self.highest = self.highest.max(process);
        let client = self.clients.entry(process).or_insert(Client { number: process, state: State::Idle });
        let state = std::mem::replace(&mut client.state, State::Idle);
        match (form.kind, state) {
            (Kind::Invoke, State::Open(open, _)) => {
                let (open, f) = (&self.events[open], form.f.as_deref().unwrap_or("an operation"));
                Err(format!(
                    "process {process} invokes {f} while its \"{}\" is still open; was a line lost?",
                    open.op
                ))
            }
            (Kind::Invoke, state) => {
                if matches!(state, State::Retired) {
                    client.number = FRESH + self.fresh;
                    self.fresh += 1;
                }
                form.process = Process::Client(client.number);
                let f = form.f.clone().ok_or("the invocation has no f: what was asked for?")?;
                let (key, argument) = match self.split(&form, value)? {
                    Some(split) => split,
                    None if has_key(&f) || f.as_ref() == "txn" => {
                        return Err(format!(
                            "{f} needs a value of [key value], since operations before it have keys, found {}; if they are plain values, say so",
                            value.brief()
                        ));
                    }
                    None => (None, value),
                };
                let op = self.reading.request(&f, key, argument, form.mode)?;
                self.set(process, State::Open(self.events.len(), f));
                self.push(form, op, None);
                Ok(())
            }
            (_, State::Open(open, f)) => self.complete(process, form, value, open, &f),
            // Clients have things to say beside their operations.
            (Kind::Info, state) => {
                self.set(process, state);
                form.process = Process::Observer;
                let op = self.reading.remark(form.f.as_ref(), value)?;
                self.push(form, op, None);
                Ok(())
            }
            (kind, _) => Err(format!(
                "process {process} completes ({kind}) {}, but has no open invocation; was a line lost?",
                form.f.as_deref().unwrap_or("an operation")
            )),
        }
    }

    fn set(&mut self, process: u64, state: State) {
        if let Some(client) = self.clients.get_mut(&process) {
            client.state = state;
        }
    }

    fn complete(
        &mut self,
        process: u64,
        mut form: Form<'_>,
        value: &Datum<'_>,
        open: usize,
        f: &Arc<str>,
    ) -> Result<(), String> {
        if let Some(told) = &form.f
            && told != f
        {
            let op = &self.events[open].op;
            return Err(format!("process {process} completes {told}, but its open invocation is \"{op}\""));
        }
        form.f = Some(f.clone());
        form.process = self.events[open].process;
        let op = self.events[open].op.clone();
        if matches!(op, Op::Cas { .. }) && form.swapped == Some(false) && form.kind == Kind::Fail {
            form.kind = Kind::Ok;
        }
        if form.kind == Kind::Info {
            self.set(process, State::Retired);
        }
        if form.kind != Kind::Ok {
            self.push(form, op, None);
            return Ok(());
        }
        let (key, answer) = self.split(&form, value)?.unwrap_or((op.key().cloned(), value));
        if let (Some(key), Some(invoked)) = (&key, op.key())
            && key != invoked
        {
            return Err(format!(
                "process {process} completes {f} of key {key}, but its open invocation is \"{op}\""
            ));
        }
        let (told, ret) = self.reading.answer(&op, key.as_ref(), answer, &form)?;
        if self.nil_reads == NilReads::Unknown
            && matches!(op, Op::Read { .. })
            && ret == Some(Ret::Value(Value::Nil))
        {
            form.kind = Kind::Fail;
            form.meta.error.get_or_insert_with(|| "read nil, which says nothing".into());
            self.push(form, op, None);
            return Ok(());
        }
        // What was done is what the completion says, as for Knossos.
        let op = match told {
            Some(told) if told != op => {
                // A stranger's own operations are filled in by their completions, and nobody looks at the invocation.
                if !matches!(told, Op::Custom { .. }) {
                    self.events[open].op = told.clone();
                }
                told
            }
            _ => op,
        };
        self.push(form, op, ret);
        Ok(())
    }
}

/// Whether an operation of this name has a key, in histories that have any.
fn has_key(f: &str) -> bool {
    f != "transfer" && f != "txn" && crate::history::op::BUILT_IN.contains(&f)
}
