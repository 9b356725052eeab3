//! Evidence from a file, or presented by a peer.

use std::path::Path;

use convelo_channel::{Dialler, Identity};
use convelo_party::Error;

use crate::exit::Failure;
use crate::files;

/// The bytes of a certificate or quote, from a file or presented at an address.
pub(crate) async fn read(from: &str) -> Result<Vec<u8>, Failure> {
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
    certificate.map_err(|error| Error::from(error).into())
}

/// Reads a certificate, in PEM or DER, or a quote.
fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = files::bytes(path, "the evidence")?;
    if !bytes.starts_with(b"-----BEGIN") {
        return Ok(bytes);
    }
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(convelo_attest::certificate_from_pem)
        .ok_or_else(|| Failure::usage(format!("{} is not one certificate in PEM", path.display())))
}
