//! When two cores are the same: a model checker counts states.
//!
//! Everything counts but the generator of random waits, which has no influence where the range of each wait is one moment, and the
//! effects, which are empty between two steps, and what is only kept for those who look in from outside. Deliberately not used outside of model checking.

use std::hash::{Hash, Hasher};

use super::Core;

impl PartialEq for Core {
    fn eq(&self, other: &Core) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Core {}

impl Hash for Core {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl Core {
    fn parts(&self) -> impl Eq + Hash + '_ {
        // Pairs of groups, since tuples compare up to twelve parts.
        (
            (&self.config, self.epoch, &self.acceptor, &self.learner, &self.grant, &self.role, self.follows),
            (
                self.election_at,
                self.top_round,
                self.elections_won,
                &self.proposals,
                self.open_bytes,
                self.resend_due,
            ),
            (
                &self.clients,
                &self.basic,
                &self.catch_up,
                &self.reads,
                self.next_id,
                self.issued,
                self.persisted,
            ),
            (
                &self.loopback,
                &self.inbox,
                &self.unwritten,
                self.commit_noted,
                self.commit_noted_at,
                self.next_gossip,
            ),
            (&self.snapshots, &self.joining, self.truncated, self.lease_noted),
        )
    }
}
