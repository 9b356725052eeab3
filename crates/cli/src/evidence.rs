//! Evidence from a file, or presented by a peer.

use std::path::Path;

use convelo_channel::{Dialler, Identity};
use convelo_party::Error;

use crate::contents::{Contents, Kind};
use crate::exit::Failure;
use crate::files;

/// What carries evidence.
pub(crate) enum Carrier {
    /// A certificate, DER.
    Certificate(Vec<u8>),
    /// A bare quote.
    Quote(Vec<u8>),
}

/// A certificate or a quote, from a file or presented at an address.
pub(crate) async fn read(from: &str) -> Result<Carrier, Failure> {
    let path = Path::new(from);
    if path.exists() {
        return file(path);
    }
    let port = from.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !port {
        return Err(Failure::usage(format!("{from} is neither a file here nor HOST:PORT")));
    }
    let credential = Identity::generate().plain().map_err(Failure::job)?;
    let certificate = Dialler::new(credential).certificate_of(from).await;
    Ok(Carrier::Certificate(certificate.map_err(|error| Failure::from(Error::from(error)))?))
}

/// The 64 bytes that a bare quote must be over, in hexadecimal digits or from a file. Zeros follow
/// fewer bytes, as in what Gramine and Linux quote.
pub(crate) fn report_data(given: &str) -> Result<[u8; 64], Failure> {
    let bytes = match hex::decode(given) {
        Ok(bytes) => bytes,
        Err(_) if Path::new(given).exists() => files::bytes(Path::new(given), "the report data")?,
        Err(_) => {
            return Err(Failure::usage(format!(
                "the report data {given}: neither hexadecimal digits, two for each byte, nor a file \
                 here"
            )));
        }
    };
    let mut data = [0; 64];
    match bytes.len() {
        length @ 1..=64 => data[..length].copy_from_slice(&bytes),
        length => {
            return Err(Failure::usage(format!(
                "the report data {given}: expected 1 to 64 bytes, found {length}"
            )));
        }
    }
    Ok(data)
}

fn file(path: &Path) -> Result<Carrier, Failure> {
    let bytes = files::bytes(path, "the evidence")?;
    let contents = Contents::of(&bytes);
    match contents.kind {
        Kind::Certificate => Ok(Carrier::Certificate(contents.bytes.into_owned())),
        Kind::Quote => Ok(Carrier::Quote(contents.bytes.into_owned())),
        _ => Err(contents.mistaken(path, "the evidence", "a certificate or a quote")),
    }
}
