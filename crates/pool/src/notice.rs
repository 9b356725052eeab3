//! What the transport tells people while it works.

use std::sync::Arc;

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks closely.
    Debug,
    /// An ordinary event.
    Info,
    /// Somebody should look.
    Warning,
}

/// Something that people may want to know. Never holds what a message says.
#[derive(Clone, Debug)]
pub struct Notice {
    /// How loud.
    pub level: Level,
    /// The peer it is about.
    pub peer: Option<String>,
    /// In words.
    pub text: String,
}

/// Takes notices. Called on the transport's threads: it must not block.
pub type Observer = Arc<dyn Fn(Notice) + Send + Sync>;
