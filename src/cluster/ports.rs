//! Ports that stay ours for the whole run, also while the node that listens on them is dead.
//!
//! ```text
//! TCP 12345   the node's, while it lives
//! UDP 12345   the controller's, all along: the claim that other runs respect
//! ```
//! The claim vanishes with its process, however that ends. Ports come from below the range from which the system takes
//! the local ports of outgoing connections, so that none of those can land on a dead node's port.

use anyhow::{Result, bail};
use rand::RngExt;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// A port of 127.0.0.1 that nobody else uses or will be given.
#[derive(Debug)]
pub struct Claim {
    /// The port.
    pub port: u16,
    _claim: UdpSocket,
}

const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// Claims some free port.
pub fn claim_any() -> Result<Claim> {
    for _ in 0..500 {
        let port = rand::rng().random_range(RANGE);
        if let Ok(claim) = claim(port) {
            return Ok(claim);
        }
    }
    bail!("no free port found between {} and {}: is the machine out of ports?", RANGE.start, RANGE.end)
}

/// Claims this port, or says that it is taken.
pub fn claim(port: u16) -> Result<Claim> {
    let taken = || format!("port {port} on 127.0.0.1 is taken");
    let hint = "choose another `base-port`, or leave it out to have free ports found";
    // Bound and closed again without ever accepting: leaves nothing behind that would stop the node from binding it.
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let claim = UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
    match (probe, claim) {
        (Ok(_), Ok(claim)) => Ok(Claim { port, _claim: claim }),
        (Err(e), _) | (_, Err(e)) => bail!("{}: {e}; {hint}", taken()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_port_cannot_be_claimed_again_and_is_free_afterwards() {
        let one = claim_any().unwrap();
        let port = one.port;
        let error = claim(port).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port}")) && error.contains("base-port"), "{error}");
        drop(one);
        claim(port).unwrap();
    }
}
