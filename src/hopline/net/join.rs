//! How a newcomer proves, inside a TLS connection to a bootstrap, that it holds a ticket and a key, without sending
//! either.
//!
//! Both proofs cover the connection's exported keying material (RFC 8446, 7.5), so they are of no use on any other
//! connection. Pure functions over that material: what a bootstrap then does, and which single-use or revoked tickets
//! it remembers, is not known here.

use super::identity::{Identity, Signature};
use super::ticket::{Grant, Ticket};
use hopline_proto::crypto::{Key, Mac};
use hopline_proto::{NodeId, Time};
use serde::{Deserialize, Serialize};

const EXPORTER_LABEL: &[u8] = b"EXPORTER-hopline-join";
const PURPOSE: &str = "join";

/// Keying material that only the two ends of one TLS connection know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelBinding([u8; 32]);

impl ChannelBinding {
    /// That of an established QUIC connection; both its ends get the same.
    ///
    /// # Panics
    /// If the handshake is not complete (a 0-RTT connection, which Hopline never makes).
    #[must_use]
    pub fn of(connection: &quinn::Connection) -> Self {
        let mut bytes = [0; 32];
        connection
            .export_keying_material(&mut bytes, EXPORTER_LABEL, &[])
            .expect("an established connection exports 32 bytes");
        Self(bytes)
    }

    /// One from its 32 bytes, for other transports and tests.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// What a newcomer sends. About 200 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    grant: Grant,
    public_key: [u8; 32],
    proof: Mac,
    possession: Signature,
}

/// Why a newcomer is not admitted. Sent to it, so append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The proof was not made with the secret of this grant in this network on this connection.
    #[error("the ticket is of another network, or was altered; ask for a new one (`hopline ticket new`)")]
    WrongSecret,
    /// The ticket's time is over.
    #[error(
        "the ticket expired at {}, and the bootstrap's clock says {}; ask for a new one (`hopline ticket new`)",
        expires.shown(),
        now.shown()
    )]
    Expired {
        /// When it ended.
        expires: Time,
        /// What the bootstrap's clock says.
        now: Time,
    },
    /// The newcomer doesn't hold the private half of its key.
    #[error(
        "this node did not prove that the key it named is its own; try again, and report it if it happens twice"
    )]
    NotYours,
    /// A single-use ticket has admitted another node.
    #[error("the ticket was for one node and another has used it; ask for a new one (`hopline ticket new`)")]
    Used,
    /// The ticket was revoked.
    #[error("the ticket was revoked; ask for a new one (`hopline ticket new`)")]
    Revoked,
    /// The node was removed from the network.
    #[error("this node was removed from the network; ask whoever runs it")]
    Removed,
    /// A single-use ticket gives no right to manage the network.
    #[error("a single-use ticket does not allow this; use the one that `hopline bootstrap` printed")]
    SingleUse,
    /// For a reason that only a newer bootstrap knows.
    #[error(
        "the bootstrap refuses for a reason that this node does not know, as it is newer; upgrade this node"
    )]
    #[serde(other)]
    Unknown,
}

impl JoinRequest {
    /// The request of `identity`, for the connection that `binding` stands for.
    #[must_use]
    pub fn new(ticket: &Ticket, identity: &Identity, binding: &ChannelBinding) -> Self {
        let public_key = *identity.public_key();
        Self {
            grant: *ticket.grant(),
            public_key,
            proof: prove(ticket.secret(), binding, &public_key),
            possession: identity.sign(PURPOSE, &binding.0),
        }
    }

    /// The ticket it was made with.
    #[must_use]
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The key to certify, once verified.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Who asks, if its proofs hold on the connection that `binding` stands for.
    ///
    /// The cheapest checks come first, and a stranger learns nothing about tickets: all that is refused before the
    /// secret is proven is [`Refusal::WrongSecret`].
    ///
    /// # Errors
    /// [`Refusal::WrongSecret`], [`Refusal::Expired`] or [`Refusal::NotYours`].
    pub fn verify(
        &self,
        binding: &ChannelBinding,
        network_secret: &Key,
        now: Time,
    ) -> Result<NodeId, Refusal> {
        let secret = self.grant.secret(network_secret);
        if self.proof != prove(&secret, binding, &self.public_key) {
            return Err(Refusal::WrongSecret);
        }
        if now >= self.grant.expires {
            return Err(Refusal::Expired { expires: self.grant.expires, now });
        }
        if !self.possession.verify(&self.public_key, PURPOSE, &binding.0) {
            return Err(Refusal::NotYours);
        }
        Ok(NodeId::of_public_key(&self.public_key))
    }
}

fn prove(secret: &Key, binding: &ChannelBinding, public_key: &[u8; 32]) -> Mac {
    // The key is part of the proof, so nobody can put another in its place.
    secret.mac(&[b"hopline join", &binding.0, public_key])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::authority::Authority;
    use hopline_proto::codec;

    const NOW: Time = Time::from_micros(1_000);
    const BINDING: ChannelBinding = ChannelBinding::from_bytes([7; 32]);

    fn request(authority: &Authority, identity: &Identity, grant: Grant) -> JoinRequest {
        let ticket = Ticket::issue(authority, vec!["b:1".to_owned()], grant).unwrap();
        JoinRequest::new(&ticket, identity, &BINDING)
    }

    #[test]
    fn a_holder_of_a_ticket_is_admitted() {
        let (authority, identity) = (Authority::generate(), Identity::generate());
        let bytes = codec::to_bytes(&request(&authority, &identity, Grant::DEFAULT));
        assert!(bytes.len() < 200, "small on the wire");
        let received: JoinRequest = codec::from_bytes(&bytes).unwrap();
        assert_eq!(received.verify(&BINDING, authority.secret(), NOW), Ok(identity.node_id()));
        assert_eq!(received.public_key(), identity.public_key());
    }

    #[test]
    fn a_ticket_ends() {
        let (authority, identity) = (Authority::generate(), Identity::generate());
        let late = Time::from_micros(1_001);
        let verify = |expires| {
            let grant = Grant { expires, ..Grant::DEFAULT };
            request(&authority, &identity, grant).verify(&BINDING, authority.secret(), NOW)
        };
        assert_eq!(verify(late), Ok(identity.node_id()));
        assert_eq!(verify(NOW), Err(Refusal::Expired { expires: NOW, now: NOW }));
    }

    #[test]
    fn a_ticket_of_another_network_or_an_altered_one_is_refused() {
        let (authority, identity) = (Authority::generate(), Identity::generate());
        let grant = Grant { expires: NOW, ..Grant::DEFAULT };
        let good = request(&authority, &identity, grant);
        let stranger = Authority::generate();
        assert_eq!(good.verify(&BINDING, stranger.secret(), NOW), Err(Refusal::WrongSecret));
        let prolonged = JoinRequest { grant: Grant::DEFAULT, ..good };
        assert_eq!(prolonged.verify(&BINDING, authority.secret(), NOW), Err(Refusal::WrongSecret));
    }

    #[test]
    fn a_proof_is_of_no_use_to_another_connection_or_key() {
        let (authority, identity, thief) =
            (Authority::generate(), Identity::generate(), Identity::generate());
        let seen = request(&authority, &identity, Grant::DEFAULT);
        let elsewhere = ChannelBinding::from_bytes([8; 32]);
        assert_eq!(seen.verify(&elsewhere, authority.secret(), NOW), Err(Refusal::WrongSecret));
        let stolen = JoinRequest { public_key: *thief.public_key(), ..seen.clone() };
        assert_eq!(stolen.verify(&BINDING, authority.secret(), NOW), Err(Refusal::WrongSecret));
        // A holder of the ticket who claims another node's key.
        let claimed = JoinRequest { possession: thief.sign(PURPOSE, &BINDING.0), ..seen.clone() };
        assert_eq!(claimed.verify(&BINDING, authority.secret(), NOW), Err(Refusal::NotYours));
        let replayed = JoinRequest { possession: identity.sign(PURPOSE, &elsewhere.0), ..seen };
        assert_eq!(replayed.verify(&BINDING, authority.secret(), NOW), Err(Refusal::NotYours));
    }
}
