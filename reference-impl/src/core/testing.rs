//! What unit tests of a core share: a disk that is immediate.

use super::{Core, Effect, Input, Message, Mono, NodeId};

/// Steps, and has everything on the disk before anything else happens. Returns the other effects.
pub(super) fn step(core: &mut Core, at: Mono, input: Input) -> Vec<Effect> {
    let (mut inputs, mut others) = (vec![input], Vec::new());
    while let Some(input) = inputs.pop() {
        for effect in core.step(at, input) {
            match effect {
                Effect::Persist { token, .. } | Effect::Truncate { token, .. } => {
                    inputs.push(Input::Persisted(token));
                }
                other => others.push(other),
            }
        }
    }
    others
}

/// What is sent, and to whom.
pub(super) fn sent(effects: Vec<Effect>) -> Vec<(NodeId, Message)> {
    let sent = |effect| match effect {
        Effect::Send { to, message, .. } => Some((to, message)),
        _ => None,
    };
    effects.into_iter().filter_map(sent).collect()
}
