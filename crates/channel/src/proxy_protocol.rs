//! What a balancer says before the bytes of a connection that it passes on: where that comes from.
//! This is version 2 of the PROXY protocol, in binary; version 1 is text and has no length.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::limits::MAXIMUM_PROXY_HEADER_BYTES;

/// The signature, the version with the command, the address family with the protocol, and the
/// length of what follows.
const FIXED_BYTES: usize = 16;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2; the balancer's own connection, such as a health check.
const LOCAL: u8 = 0x20;
/// Version 2; a connection on behalf of somebody else.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// A connection that does not begin with such a header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "found {0}, expected a PROXY protocol header, version 2; only a balancer that sends one may reach a \
     port that is behind a balancer"
)]
pub struct NotProxied(&'static str);

/// Reads a header, and nothing beyond it. Returns where the connection comes from, or nothing if it
/// is the balancer's own.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<Option<SocketAddr>, NotProxied>> {
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await?;
    match length(&header) {
        Ok(length) => {
            header.resize(FIXED_BYTES + length, 0);
            stream.read_exact(&mut header[FIXED_BYTES..]).await?;
            Ok(address(&header))
        }
        Err(not) => Ok(Err(not)),
    }
}

/// The address in a whole header, or nothing if it is a balancer's own connection.
///
/// # Errors
/// If it is not a header of version 2 for a TCP connection.
pub fn address(header: &[u8]) -> Result<Option<SocketAddr>, NotProxied> {
    let length = length(header)?;
    let rest = header.get(FIXED_BYTES..).unwrap_or_default();
    if rest.len() != length {
        return Err(NotProxied("a header of another length than it says"));
    }
    match (header[12], header[13]) {
        (LOCAL, _) => Ok(None),
        (PROXY, TCP_OVER_IPV4) => match rest.first_chunk() {
            Some(&[a, b, c, d, _, _, _, _, high, low, _, _]) => {
                let port = u16::from_be_bytes([high, low]);
                Ok(Some((Ipv4Addr::new(a, b, c, d), port).into()))
            }
            None => Err(NotProxied("a header without room for two IPv4 addresses")),
        },
        (PROXY, TCP_OVER_IPV6) => match (rest.first_chunk::<36>(), rest.first_chunk::<16>()) {
            (Some(both), Some(source)) => {
                let port = u16::from_be_bytes([both[32], both[33]]);
                Ok(Some((IpAddr::from(Ipv6Addr::from(*source)), port).into()))
            }
            _ => Err(NotProxied("a header without room for two IPv6 addresses")),
        },
        (PROXY, _) => Err(NotProxied("a header for something else than TCP over IPv4 or IPv6")),
        _ => Err(NotProxied("a header of another version, or with an unknown command")),
    }
}

/// How much follows the fixed part.
fn length(header: &[u8]) -> Result<usize, NotProxied> {
    let Some(fixed) = header.first_chunk::<FIXED_BYTES>() else {
        return Err(NotProxied("fewer than 16 bytes"));
    };
    if !fixed.starts_with(SIGNATURE) {
        return Err(NotProxied("other bytes"));
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + length > MAXIMUM_PROXY_HEADER_BYTES {
        return Err(NotProxied("a header of more than 1 KiB"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn addresses_of_both_families_and_what_follows_is_left() {
        let ipv4 = header(PROXY, TCP_OVER_IPV4, &[192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 187]);
        let source = Some("192.0.2.7:8080".parse().expect("an address"));
        assert_eq!(address(&ipv4), Ok(source));
        let mut stream: &[u8] = &[&ipv4[..], b"hello"].concat();
        assert_eq!(read(&mut stream).await.expect("bytes"), Ok(source));
        assert_eq!(stream, b"hello");

        let [from, to]: [Ipv6Addr; 2] =
            ["2001:db8::7", "::1"].map(|text| text.parse().expect("an address"));
        let both =
            [&from.octets()[..], &to.octets(), &[0x1f, 0x90, 1, 187], &[3, 0, 1, 9]].concat();
        let source = "[2001:db8::7]:8080".parse().expect("an address");
        assert_eq!(address(&header(PROXY, TCP_OVER_IPV6, &both)), Ok(Some(source)));
        assert_eq!(address(&header(LOCAL, 0, &[])), Ok(None));
    }

    #[tokio::test]
    async fn what_is_no_header_is_named() {
        for (bytes, found) in [
            (vec![0x16; 16], "other bytes"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(), "other bytes"),
            (header(0x11, TCP_OVER_IPV4, &[0; 12]), "a header of another version"),
            (header(PROXY, 0x12, &[0; 12]), "a header for something else than TCP"),
            (header(PROXY, TCP_OVER_IPV4, &[0; 11]), "without room for two IPv4 addresses"),
            (header(PROXY, TCP_OVER_IPV6, &[0; 35]), "without room for two IPv6 addresses"),
            (header(PROXY, TCP_OVER_IPV4, &[0; 2000]), "more than 1 KiB"),
        ] {
            let refused = read(&mut &bytes[..]).await.expect("bytes").unwrap_err().to_string();
            assert!(refused.contains(found) && refused.contains("expected"), "{refused}");
        }
        assert!(address(b"").is_err());
        let cut = header(PROXY, TCP_OVER_IPV4, &[0; 12]);
        assert!(read(&mut &cut[..20]).await.is_err());
    }
}
