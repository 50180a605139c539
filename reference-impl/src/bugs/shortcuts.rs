//! Mistakes that can be made about changes of membership, planted by the simulator's tests and by nothing else.
//!
//! ```text
//! if self.config.shortcuts.prepares_anew() { … }        a correct node always does
//! ```
//!
//! They are not in the catalogue, and no flag plants them: the tester's plans do not change the members of a cluster.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Shortcut {
    /// A leader goes on in the next configuration, under a ballot of its own making, without asking what was accepted there.
    NoNewPhaseOne,
    /// A leader reads by its lease while a stop-sign is open, and until the lease has run out if it is a member no more.
    LeaseOutlivesStopSign,
    /// A node takes part in a configuration as soon as it has heard of it, not when it has applied everything before it.
    VotesBeforeCaughtUp,
    /// A node with an empty disk has its vote as soon as it finds its number among the members.
    AnyDiskVotes,
    /// A new leader keeps what is reported behind a stop-sign.
    ProposesBehindStopSign,
}

/// What a node does right about membership. Empty (the default) is a correct node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shortcuts(u8);

impl Shortcuts {
    /// Those of a node that takes this one.
    pub fn taking(shortcut: Shortcut) -> Self {
        Shortcuts(1 << shortcut as u8)
    }

    fn lacks(self, shortcut: Shortcut) -> bool {
        self.0 & (1 << shortcut as u8) == 0
    }

    /// Whoever leads in a configuration has run a phase 1 there.
    pub fn prepares_anew(self) -> bool {
        self.lacks(Shortcut::NoNewPhaseOne)
    }

    /// A leader reads nothing from its memory from the moment on at which it has proposed a stop-sign.
    pub fn stops_reading(self) -> bool {
        self.lacks(Shortcut::LeaseOutlivesStopSign)
    }

    /// A node is in the configuration that it has applied.
    pub fn waits_until_applied(self) -> bool {
        self.lacks(Shortcut::VotesBeforeCaughtUp)
    }

    /// A vote belongs to the disk that was added, not to whoever has its number.
    pub fn knows_disks(self) -> bool {
        self.lacks(Shortcut::AnyDiskVotes)
    }

    /// Nothing is proposed behind a stop-sign.
    pub fn heeds_stop_signs(self) -> bool {
        self.lacks(Shortcut::ProposesBehindStopSign)
    }
}
