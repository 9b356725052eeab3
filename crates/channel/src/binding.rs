//! What ties a quote to one connection.

use std::io;
use std::sync::Arc;

use convelo_attest::{EXPORTER_LABEL, Evidence, Refusal, Role, Session};
use rustls::ConnectionCommon;
use zeroize::Zeroizing;

/// The secrets and keys of one TLS connection, which a fresh quote is bound to. Both ends compute
/// the same binding.
#[derive(Clone)]
pub struct Binding(Arc<Ends>);

struct Ends {
    exporter: Zeroizing<[u8; 32]>,
    party_spki: Arc<[u8]>,
    service_spki: Arc<[u8]>,
}

/// The nonces of one exchange, and the job it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The party's random bytes.
    pub party_nonce: [u8; 32],
    /// The service's random bytes.
    pub service_nonce: [u8; 32],
    /// SHA-256 of the canonical job.
    pub job: [u8; 32],
}

impl Binding {
    /// The binding of a connection after its handshake.
    pub(crate) fn of<Side>(
        connection: &ConnectionCommon<Side>,
        party_spki: Arc<[u8]>,
        service_spki: Arc<[u8]>,
    ) -> io::Result<Self> {
        let exporter = connection
            .export_keying_material(Zeroizing::new([0; 32]), EXPORTER_LABEL, None)
            .map_err(io::Error::other)?;
        Ok(Self(Arc::new(Ends { exporter, party_spki, service_spki })))
    }

    /// The report data that one end's quote must carry.
    pub fn report_data(&self, role: Role, exchange: &Exchange) -> [u8; 64] {
        Session {
            exporter: &self.0.exporter,
            party_nonce: &exchange.party_nonce,
            service_nonce: &exchange.service_nonce,
            party_spki: &self.0.party_spki,
            service_spki: &self.0.service_spki,
            job: &exchange.job,
        }
        .report_data(role)
    }

    /// Reads the quote with which the end in this role answers. Checks that it is bound to this
    /// connection and this exchange, but does not verify it.
    ///
    /// # Errors
    /// A [`Refusal`], including for a quote bound to anything else.
    pub fn evidence(
        &self,
        role: Role,
        exchange: &Exchange,
        quote: &[u8],
    ) -> Result<Evidence, Refusal> {
        let spki = match role {
            Role::Party => &self.0.party_spki,
            Role::Service => &self.0.service_spki,
        };
        Evidence::from_quote(quote, &self.report_data(role, exchange), spki)
    }
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Binding(..)")
    }
}
