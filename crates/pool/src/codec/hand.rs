//! What `serde` cannot express, passed between a value and its serializer on the side.
//!
//! A value leaves it here, then goes through `serde` in a form that everybody understands; our own
//! serializer picks it up and uses it instead. Whoever leaves something here clears it when the
//! call returns, so that nobody else finds it.

use std::cell::RefCell;

use bytes::Bytes;

use super::{Array, Integer};

/// The newtype names that our own serializer and deserializer know.
pub(super) const ARRAY: &str = "$convelo_pool::Array";
pub(super) const INTEGER: &str = "$convelo_pool::Integer";
pub(super) const TYPED: &str = "$convelo_pool::Typed";

pub(super) enum Handed {
    Bytes(Bytes),
    Array(Array),
    Integer(Integer),
}

thread_local! {
    static HANDED: RefCell<Option<Handed>> = const { RefCell::new(None) };
}

/// Runs `call` while `handed` is available.
pub(super) fn with<T>(handed: Handed, call: impl FnOnce() -> T) -> T {
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            take();
        }
    }
    let _clear = Clear;
    HANDED.replace(Some(handed));
    call()
}

pub(super) fn take() -> Option<Handed> {
    HANDED.take()
}

/// The owner of `bytes`, if it is the one that was handed over; otherwise a copy of them.
pub(super) fn owner(bytes: &[u8]) -> Bytes {
    match take() {
        Some(Handed::Bytes(owner))
            if (owner.as_ptr(), owner.len()) == (bytes.as_ptr(), bytes.len()) =>
        {
            owner
        }
        _ => Bytes::copy_from_slice(bytes),
    }
}
