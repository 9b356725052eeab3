//! Private set intersection without special hardware: the protocols, as state machines over messages.
//!
//! Everything here is a function of its arguments: time, randomness and bytes come in, bytes and
//! decisions go out. [`vole_psi`] and [`ecdh`] are the protocols, the other modules what they are
//! made of. `docs/protocols.md` says what each reveals, and in which model it is secure.

pub mod curve;
pub mod ecdh;
pub mod ecdh_sum;
pub mod gf128;
mod item;
mod message;
pub mod okvs;
pub mod oprf;
#[cfg(test)]
mod seeded;
#[cfg(test)]
mod sets;
mod tags;
pub mod unbalanced;
pub mod vole;
pub mod vole_multi;
mod vole_oprf;
pub mod vole_psi;

pub use item::ItemHash;
pub use message::MessageError;
pub use tags::MAXIMUM_ITEMS;
