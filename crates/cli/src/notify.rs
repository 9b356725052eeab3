//! What a supervisor is told: that the service listens, and that it begins to stop (sd_notify(3)). It
//! names its socket in `NOTIFY_SOCKET`; systemd does for units of `Type=notify`.

#[cfg(unix)]
use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt as _, os::unix::net, time::Duration};

/// The supervisor reads what it is told within this time, or is not told.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for `stop`, and tells the supervisor when it begins to wait and when the wait is over.
pub(crate) async fn while_serving(stop: impl Future<Output = ()>) {
    tell("READY=1");
    stop.await;
    tell("STOPPING=1");
}

fn tell(state: &str) {
    #[cfg(unix)]
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, state)
    {
        tracing::warn!(%error, state, "the supervisor at NOTIFY_SOCKET was not told");
    }
    #[cfg(not(unix))]
    let _ = state;
}

#[cfg(unix)]
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let datagrams = net::UnixDatagram::unbound()?;
    datagrams.set_write_timeout(Some(PATIENCE))?;
    datagrams.send_to_addr(state.as_bytes(), &address(socket)?)?;
    Ok(())
}

/// A path, or a name behind an @, which is in no directory.
#[cfg(unix)]
fn address(socket: &OsStr) -> io::Result<net::SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        return net::SocketAddr::from_abstract_name(name);
    }
    net::SocketAddr::from_pathname(socket)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt as _;

    #[test]
    fn a_supervisor_without_a_directory_is_told() {
        let name = format!("convelo-notify-{}", std::process::id());
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        let supervisor = net::UnixDatagram::bind_addr(&address).unwrap();
        supervisor.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        let mut heard = [0; 16];
        let length = supervisor.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
    }

    #[test]
    fn a_supervisor_that_reads_nothing_keeps_nobody() {
        let name = format!("convelo-notify-full-{}", std::process::id());
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        let _supervisor = net::UnixDatagram::bind_addr(&address).unwrap();
        let full = (0..10_000).find_map(|_| send(OsStr::new(&format!("@{name}")), "READY=1").err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
