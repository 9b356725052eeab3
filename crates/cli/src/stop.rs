//! SIGINT and SIGTERM.

/// Ends when the program is asked to stop. From the call on, and not only while it is waited for, the
/// signals end the program no more by themselves.
#[cfg(unix)]
pub(crate) fn requested() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = signal(SignalKind::terminate());
    let interrupt = signal(SignalKind::interrupt());
    async {
        let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Ends when the program is asked to stop.
#[cfg(not(unix))]
pub(crate) async fn requested() {
    let _ = tokio::signal::ctrl_c().await;
}
