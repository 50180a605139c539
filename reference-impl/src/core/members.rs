//! Who decides: a configuration, and what may be asked for in the place of one.
//!
//! ```text
//! configuration 0  {1, 2, 3}          by flags             ballots of rounds 0 …
//! configuration 1  {1, 2, 3, 4, 5}    since slot 812       ballots of rounds 2^40 …
//! configuration 2  {3, 4, 5}          since slot 2,044     ballots of rounds 2 × 2^40 …
//! ```
//!
//! A configuration is part of the replicated state, from the slot on at which the one before it ended (see `reconfigure`). Only the
//! first, number 0, is told by flags. Deliberately only data: what follows from it is in the other modules.

use std::collections::BTreeMap;

use super::ballot::{NodeId, Slot};

/// Nodes of one configuration, at most.
pub const MEMBERS_MAX: usize = 31;
/// Bytes of an address, at most.
const ADDRESS_MAX: usize = 256;

/// One node of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Where the other nodes reach it: `HOST:PORT`.
    pub address: String,
    /// An incarnation that it had when it was added: a node with another disk has no vote yet, whatever its number (see `joining`). 0 for a
    /// node of configuration 0. The leader fills it in.
    pub born: u64,
}

/// Nodes by their numbers.
pub type Nodes = BTreeMap<NodeId, Member>;

/// A configuration that the log has begun.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Members {
    /// Its number, from 1.
    pub config: u64,
    /// The slot of the stop-sign that has ended the one before; it decides all slots behind that.
    pub since: Slot,
    /// Who decides.
    pub nodes: Nodes,
}

/// Whether two sets have the same nodes at the same addresses.
pub(super) fn are_same(a: &Nodes, b: &Nodes) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.address == b.1.address)
}

/// Whether a set may be a configuration at all.
///
/// # Errors
/// Why not, and what would be right.
pub(super) fn validate(nodes: &Nodes) -> Result<(), String> {
    if nodes.is_empty() {
        return Err("the change names no node; name every node of the new configuration".to_owned());
    }
    if nodes.len() > MEMBERS_MAX {
        return Err(format!("the change names {} nodes; at most {MEMBERS_MAX} are allowed", nodes.len()));
    }
    for (node, Member { address, .. }) in nodes {
        if *node == 0 {
            return Err("the change names node 0; numbers begin with 1".to_owned());
        }
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        let known = port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        let plain = address.len() <= ADDRESS_MAX && address.chars().all(|c| c.is_ascii_graphic() && c != '/');
        if !known || !plain {
            return Err(format!("{address:?} is no address of node {node}; write HOST:PORT"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(all: &[(NodeId, &str)]) -> Nodes {
        let member = |address: &str| Member { address: address.to_owned(), born: 0 };
        all.iter().map(|(node, address)| (*node, member(address))).collect()
    }

    #[test]
    fn a_set_needs_nodes_with_numbers_and_addresses() {
        assert_eq!(
            validate(&nodes(&[(1, "10.0.0.1:7001"), (9, "[::1]:7"), (12, "a.example:65535")])),
            Ok(())
        );
        let refused = |all: &[(NodeId, &str)]| validate(&nodes(all)).unwrap_err();
        assert!(refused(&[]).contains("no node"));
        assert!(refused(&[(0, "a:1")]).contains("node 0"));
        for wrong in ["", "a", ":1", "a:", "a:0", "a:65536", "a:b", "http://a:1", "a b:1"] {
            assert!(refused(&[(1, "a:1"), (2, wrong)]).contains("address of node 2"), "{wrong}");
        }
        let many: Vec<_> = (1..=MEMBERS_MAX as NodeId + 1).map(|node| (node, "a:1")).collect();
        assert!(refused(&many).contains("at most"));
    }

    #[test]
    fn sets_are_compared_by_number_and_address() {
        let mut other = nodes(&[(1, "a:1"), (2, "b:1")]);
        other.get_mut(&2).unwrap().born = 7;
        assert!(are_same(&nodes(&[(1, "a:1"), (2, "b:1")]), &other));
        assert!(!are_same(&nodes(&[(1, "a:1"), (2, "b:2")]), &other));
        assert!(!are_same(&nodes(&[(1, "a:1")]), &other));
    }
}
