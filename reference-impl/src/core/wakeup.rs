//! When the core wants a tick: the next moment at which one would do anything.
//!
//! ```text
//! follower: silence for too long          leader: heartbeat, lost quorum, accepts to repeat       everyone: clients' patience,
//! candidate: ask again, give up           proposer (Basic Paxos): back-off, repeat, gossip        catch-up, a commit hint,
//! unknown to somebody: greet again        (nothing else matters before a first start)              a copy that is served
//! ```
//!
//! A driver may tick as often as it likes: a tick before that moment changes nothing. One that sleeps until then misses nothing,
//! if it looks again after every input. The moment may be early, never late; and after a tick it is in the future, so that nobody
//! ticks for ever. Deliberately only looks: what is done then is done by the ticks of the other modules.

use super::ballot::Mono;
use super::{COMMIT_HINT_EVERY, Core, Protocol, Role};

impl Core {
    /// The next moment at which a tick would do anything; `None` if only an input can.
    pub fn wakeup(&self) -> Option<Mono> {
        if self.is_asking() {
            return Some(self.joining_wakeup());
        }
        let role = match (&self.role, self.config.protocol) {
            (_, Protocol::BasicPaxos) => self.basic_wakeup(),
            (Role::Follower, _) => self.election_at,
            (Role::Candidate(candidate), _) => candidate.wakeup(),
            (Role::Leader(leader), _) => leader.wakeup(self.config.timing.lease).min(self.resend_due),
        };
        let hint = if self.learner.applied() > self.commit_noted {
            self.commit_noted_at + COMMIT_HINT_EVERY
        } else {
            Mono::NEVER
        };
        let storage = self.snapshots_wakeup().min(self.joining_wakeup());
        let others = self.catch_up_wakeup().min(self.clients.wakeup()).min(self.reads.wakeup());
        let due = role.min(others).min(storage).min(hint);
        (due != Mono::NEVER).then_some(due)
    }
}
