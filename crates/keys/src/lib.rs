//! From the text in a table's columns to the key of a record: the steps of a job's recipe.
//!
//! Who has a table uses this; a service never does. A step drops how a value is written, never what it
//! means: what is not a value of its kind is invalid, and takes part in no match.
//!
//! ```
//! use convelo_keys::{Dropped, Encoded, Normaliser, Reason};
//! use convelo_psi::{KeyPart, encode_parts};
//!
//! let mut part = KeyPart::new("phone", vec!["phone:49".parse()?]);
//! part.ignore = vec!["n/a".to_owned()];
//! let mut normaliser = Normaliser::new(&[part]);
//! let key = encode_parts(&["+4930123456"]);
//! assert!(normaliser.encode(["030 123456"]) == Encoded::Key(key[..].into()));
//! assert!(normaliser.encode(["+49 (0)30 12 34 56"]) == Encoded::Key(key[..].into()));
//! assert!(normaliser.encode(["N/A"]) == Encoded::Dropped { part: 0, why: Dropped::Ignored });
//! let why = Dropped::Invalid(Reason::Letters);
//! assert!(normaliser.encode(["030 ask Ada"]) == Encoded::Dropped { part: 0, why });
//! # Ok::<_, convelo_psi::StepError>(())
//! ```

mod ascii;
mod date;
mod decimal;
mod digits;
mod dropped;
mod email;
mod folding;
mod ignored;
mod integer;
mod normaliser;
mod phone;
mod plain;
mod surroundings;

pub use digits::is_exponent;
pub use dropped::{Dropped, Reason};
pub use ignored::{UNKNOWN_VALUES, is_unknown};
pub use normaliser::{Encoded, Normaliser};
pub use surroundings::{is_guarded, is_invisible};
