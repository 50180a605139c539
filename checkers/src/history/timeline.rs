//! Operations as a picture of text: one lane a process, time to the right.
//!
//! ```text
//! process 0  |-- w 5 --|
//! process 1       |-- cas 5->6 ok --|
//! process 2                            |== r -> 5 ==|
//! ```
//!
//! The axis is condensed: only the order of calls and returns is true, which is all that linearizability is about;
//! bars that overlap here overlapped then. Deliberately not for a whole history: it draws what it is given.

use crate::{Op, OpOutcome, Operation, Ret, Value, history::op::Mops};

/// A short label: `w 5`, `r -> 3`, `cas 1->2 ok`, `cas 1->2 no (7)`, and `w 5 ?` when nobody knows.
pub fn label(operation: &Operation) -> String {
    let asked = match &operation.op {
        Op::Read { .. } => "r".to_string(),
        Op::Write { value, .. } => format!("w {value}"),
        Op::Cas { expected, new, .. } => format!("cas {expected}->{new}"),
        Op::Append { value, .. } => format!("append {value}"),
        Op::Delete { .. } => "del".to_string(),
        Op::Add { value, .. } => format!("add {value}"),
        Op::Enqueue { value, .. } => format!("enq {value}"),
        Op::Dequeue { .. } => "deq".to_string(),
        Op::Remove { value, .. } => format!("remove {value}"),
        Op::Contains { value, .. } => format!("contains {value}"),
        Op::Drain { .. } => "drain".to_string(),
        Op::Push { value, .. } => format!("push {value}"),
        Op::Pop { .. } => "pop".to_string(),
        Op::Acquire { owner: Value::Nil, .. } => "acquire".to_string(),
        Op::Acquire { owner, .. } => format!("acquire {owner}"),
        Op::Release { owner: Value::Nil, .. } => "release".to_string(),
        Op::Release { owner, .. } => format!("release {owner}"),
        Op::Generate { .. } => "generate".to_string(),
        Op::Transfer { from, to, amount } => format!("{from} pays {to} {amount}"),
        Op::Txn { mops } => match &operation.outcome {
            OpOutcome::Ok(Ret::Txn(found)) => return Mops(mops, Some(found)).to_string(),
            _ => Mops(mops, None).to_string(),
        },
        Op::Custom { f, .. } => f.to_string(),
    };
    match &operation.outcome {
        OpOutcome::Ok(Ret::Done | Ret::Txn(_)) => asked,
        OpOutcome::Ok(Ret::Value(value)) => format!("{asked} -> {}", brief(value)),
        OpOutcome::Ok(Ret::Swapped { swapped: true, .. }) => format!("{asked} ok"),
        OpOutcome::Ok(Ret::Swapped { swapped: false, found: None }) => format!("{asked} no"),
        OpOutcome::Ok(Ret::Swapped { swapped: false, found: Some(found) }) => format!("{asked} no ({found})"),
        OpOutcome::Ok(Ret::Custom(value)) => format!("{asked} -> {value}"),
        OpOutcome::Fail => format!("{asked} failed"),
        OpOutcome::Info => format!("{asked} ?"),
    }
}

/// A value in words; of a long list only the ends.
pub(crate) fn brief(value: &Value) -> String {
    const WHOLE: usize = 64;
    const END: usize = 8;
    let Value::List(all) = value else { return value.to_string() };
    if all.len() <= WHOLE {
        return value.to_string();
    }
    let words = |part: &[Value]| part.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
    let (head, tail) = (words(&all[..END]), words(&all[all.len() - END..]));
    format!("[{head} … {tail}] ({} elements)", all.len())
}

/// Longer labels are cut.
const MAX_LABEL: usize = 48;

/// Draws `operations`, one lane for each process; the bars of those whose id is in `marked` are made of `=`.
///
/// Bars of unknown outcome run on to the right edge. A process has a second lane where its operations touch in time,
/// since closed intervals that touch overlap.
pub fn draw(operations: &[&Operation], marked: &[usize]) -> String {
    let bars = layout(operations);
    let mut lanes: Vec<(u64, Vec<&Bar<'_>>)> = Vec::new();
    let mut sorted: Vec<&Bar<'_>> = bars.iter().collect();
    sorted.sort_by_key(|bar| (bar.operation.process, bar.start));
    for bar in sorted {
        let free = lanes.iter_mut().find(|(process, lane)| {
            *process == bar.operation.process && lane.last().is_none_or(|last| last.end < bar.start)
        });
        match free {
            Some((_, lane)) => lane.push(bar),
            None => lanes.push((bar.operation.process, vec![bar])),
        }
    }
    let width = lanes.iter().map(|(process, _)| process.to_string().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (process, lane) in lanes {
        let mut line = format!("process {process:<width$}  ");
        let margin = line.chars().count();
        for bar in lane {
            let gap = (margin + bar.start).saturating_sub(line.chars().count());
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(&bar.paint(marked.contains(&bar.operation.id)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// An operation with its place on the page, in columns, both ends included.
struct Bar<'a> {
    operation: &'a Operation,
    label: String,
    start: usize,
    end: usize,
}

impl Bar<'_> {
    /// The room that the label needs: `|- w 5 -|`.
    fn min_len(label: &str) -> usize {
        label.chars().count() + 6
    }

    fn paint(&self, marked: bool) -> String {
        let line = if marked { '=' } else { '-' };
        let len = self.end - self.start + 1;
        let room = len.saturating_sub(self.label.chars().count() + 4);
        let (left, right) = (room / 2, room - room / 2);
        let mut text = String::from("|");
        text.extend(std::iter::repeat_n(line, left));
        text.push(' ');
        text.push_str(&self.label);
        text.push(' ');
        text.extend(std::iter::repeat_n(line, right));
        text.push(if self.operation.ret.is_some() { '|' } else { '>' });
        text
    }
}

/// Gives every call and every return a column of its own, in the order in which they happened, and as far apart as the
/// labels need.
fn layout<'a>(operations: &[&'a Operation]) -> Vec<Bar<'a>> {
    let mut bars: Vec<Bar<'a>> = operations
        .iter()
        .map(|operation| {
            let mut label = label(operation);
            if label.chars().count() > MAX_LABEL {
                label = label.chars().take(MAX_LABEL - 1).chain(['…']).collect();
            }
            Bar { operation, label, start: 0, end: 0 }
        })
        .collect();
    let mut events: Vec<(u64, bool, u64, usize)> = Vec::new();
    for (i, operation) in operations.iter().enumerate() {
        events.push((operation.call, false, operation.call_index, i));
        if let Some(ret) = operation.ret {
            events.push((ret, true, operation.ret_index.unwrap_or(u64::MAX), i));
        }
    }
    events.sort_unstable();
    let mut column = 0;
    for (_, returns, _, i) in events {
        let bar = &mut bars[i];
        if returns {
            bar.end = column.max(bar.start + Bar::min_len(&bar.label) - 1);
            column = bar.end + 1;
        } else {
            bar.start = column;
            column += 1;
        }
    }
    let open = bars.iter().filter(|bar| bar.operation.ret.is_none());
    let edge = open.map(|bar| bar.start + Bar::min_len(&bar.label)).max().unwrap_or(0).max(column);
    for bar in bars.iter_mut().filter(|bar| bar.operation.ret.is_none()) {
        bar.end = edge;
    }
    bars
}
