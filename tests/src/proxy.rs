//! Routes to the service: one that breaks, and one through a balancer.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// The direction in which bytes are counted.
#[derive(Clone, Copy, Debug)]
pub enum Counted {
    /// From the party to the service.
    Up,
    /// From the service to the party.
    Down,
}

/// Listens for connections to `service`. Each breaks after the number of bytes at its place in
/// `after`; those beyond the last do not break. Returns `127.0.0.1:port`.
///
/// # Panics
/// If the machine has no free port.
pub fn breaking<After>(service: &str, counted: Counted, after: After) -> String
where
    After: IntoIterator<Item = usize>,
    After::IntoIter: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let service = service.to_owned();
    let mut after = after.into_iter();
    thread::spawn(move || {
        // The thread ends with the test; nobody connects once the job is over.
        for party in listener.incoming().flatten() {
            let Ok(service) = TcpStream::connect(&service) else { continue };
            let both = || Some((party.try_clone().ok()?, service.try_clone().ok()?));
            let (Some((up, to)), Some((back, from))) = (both(), both()) else { continue };
            let most = after.next().unwrap_or(usize::MAX);
            let (up_to, back_to) = match counted {
                Counted::Up => (most, usize::MAX),
                Counted::Down => (usize::MAX, most),
            };
            thread::spawn(move || pass(up, to, up_to));
            thread::spawn(move || pass(from, back, back_to));
        }
    });
    address
}

/// Passes connections on to `service`, each after this header, as a balancer does. Returns
/// `127.0.0.1:port`.
///
/// # Panics
/// If the machine has no free port.
pub fn balancer(service: &str, header: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let service = service.to_owned();
    thread::spawn(move || {
        for party in listener.incoming().flatten() {
            let Ok(mut service) = TcpStream::connect(&service) else { continue };
            let both = || Some((party.try_clone().ok()?, service.try_clone().ok()?));
            let (Some((up, to)), Some((back, from))) = (both(), both()) else { continue };
            let _ = service.write_all(&header);
            thread::spawn(move || pass(up, to, usize::MAX));
            thread::spawn(move || pass(from, back, usize::MAX));
        }
    });
    address
}

fn pass(mut from: TcpStream, mut to: TcpStream, most: usize) {
    let (mut passed, mut buffer) = (0, [0; 4096]);
    while passed < most {
        let room = buffer.len().min(most - passed);
        match from.read(&mut buffer[..room]) {
            Ok(read) if read > 0 && to.write_all(&buffer[..read]).is_ok() => passed += read,
            _ => break,
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
