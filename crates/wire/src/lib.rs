//! The service's protocol: the generated types of `proto/convelo/join/v1/join.proto` and their one
//! parse into checked types.
//!
//! [`proto`] is what travels; [`FromParty`] and [`ToParty`] are what the service and the parties
//! work with. The parse checks every length that a peer controls against [`limits`].

pub mod limits;
mod message;
mod reason;

pub use message::{
    Announcement, Challenge, FromParty, Hello, MemberEvidence, NamedConfirmation, OfferEvidence,
    OtherTerms, Proof, ToParty, Waiting, WireError,
};
pub use prost::bytes::Bytes;
pub use reason::{Failed, Reason};

/// The generated messages, client and server. The tests generate them again and compare.
#[expect(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]
pub mod proto {
    include!("generated/convelo.join.v1.rs");
}
