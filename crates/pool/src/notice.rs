//! What the transport tells people while it works.

use std::sync::Arc;

/// A notice's importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For close observers.
    Debug,
    /// An ordinary event.
    Info,
    /// Somebody should take a look.
    Warning,
}

/// Something people may want to know. Never contains the content of a message.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Its importance.
    pub level: Level,
    /// The peer it is about.
    pub peer: Option<String>,
    /// The text.
    pub text: String,
}

/// Receives notices. Called on the transport's threads: it must not block.
pub type Observer = Arc<dyn Fn(Notice) + Send + Sync>;
