//! The join of the parties' sets.

mod join;

pub use join::intersect;
