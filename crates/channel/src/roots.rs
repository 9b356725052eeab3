//! The authorities we trust, and the path from a certificate to one of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use convelo_attest::{Matter, Refusal, Stage};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::certificate::{Certificate, shown_name, shown_time};
use crate::credential::{CredentialError, certificates, parse};

/// Certificates we trust: authorities (`CA:TRUE`), which may issue others, and any other
/// certificate, which is trusted as exactly that one.
#[derive(Clone)]
pub struct Roots(Arc<Trusted>);

struct Trusted {
    exactly: Vec<CertificateDer<'static>>,
    /// In the same order as `authorities`.
    anchors: Vec<TrustAnchor<'static>>,
    authorities: Vec<Authority>,
}

struct Authority {
    subject: Vec<u8>,
    spki: Vec<u8>,
    not_before: u64,
    not_after: u64,
}

/// What a certificate is presented for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// By a peer that dials.
    Client,
    /// By a peer that was dialled.
    Server,
}

impl Roots {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// [`CredentialError`]; an authority with X.509 version 1 is refused with the command that
    /// makes a version 3 certificate from it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CredentialError> {
        let what = "the file of trusted authorities";
        let exactly = certificates(pem, what)?;
        let (mut anchors, mut authorities) = (Vec::new(), Vec::new());
        for (number, der) in (1..).zip(&exactly) {
            let certificate = parse(der, what, number)?;
            if certificate.version != 3 {
                return Err(CredentialError::AuthorityVersion {
                    subject: shown_name(certificate.subject),
                    number,
                    version: certificate.version,
                });
            }
            if !certificate.is_authority() {
                continue;
            }
            let anchor = webpki::anchor_from_trusted_cert(der).map_err(|error| {
                CredentialError::Certificate { what, number, reason: error.to_string() }
            })?;
            anchors.push(anchor.to_owned());
            authorities.push(Authority {
                subject: certificate.subject.to_vec(),
                spki: certificate.spki.to_vec(),
                not_before: certificate.not_before,
                not_after: certificate.not_after,
            });
        }
        Ok(Self(Arc::new(Trusted { exactly, anchors, authorities })))
    }

    /// Whether the certificate itself is trusted, or a path leads from it to an authority.
    pub(crate) fn verify(
        &self,
        der: &CertificateDer<'_>,
        certificate: &Certificate<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: u64,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Refusal> {
        in_its_life(certificate, now)?;
        if self.0.exactly.contains(der) {
            return Ok(());
        }
        if certificate.version != 3 {
            return self.signed_directly(certificate, now, algorithms);
        }
        let leaf = EndEntityCert::try_from(der).map_err(|e| unverifiable(certificate, &e))?;
        // Path and handshake must be about the same key, regardless of the parser.
        if leaf.subject_public_key_info().as_ref() != certificate.spki {
            return Err(unverifiable(certificate, &webpki::Error::BadDer));
        }
        let usage = match side {
            Side::Client => KeyUsage::client_auth(),
            Side::Server => KeyUsage::server_auth(),
        };
        leaf.verify_for_usage(
            algorithms.all,
            &self.0.anchors,
            intermediates,
            unix(now),
            usage,
            None,
            Some(&|path: &VerifiedPath<'_>| self.path_holds(path, now)),
        )
        .map(|_| ())
        .map_err(|error| self.no_path(certificate, error))
    }

    /// Version 1 has no extensions, so such a certificate can only end a path, and webpki does not
    /// read it.
    fn signed_directly(
        &self,
        certificate: &Certificate<'_>,
        now: u64,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Refusal> {
        let mut error = webpki::Error::UnknownIssuer;
        for authority in &self.0.authorities {
            if authority.subject == certificate.issuer
                && certificate.is_signed_by(&authority.spki, algorithms)
            {
                match authority.lives(now) {
                    Ok(()) => return Ok(()),
                    Err(over) => error = over,
                }
            }
        }
        Err(self.no_path(certificate, error))
    }

    /// What Python's ssl checks and webpki takes for granted: that the trust anchor has not
    /// expired, and that every issuer's key usage lets it sign certificates.
    fn path_holds(&self, path: &VerifiedPath<'_>, now: u64) -> Result<(), webpki::Error> {
        for issuer in path.intermediate_certificates() {
            if !Certificate::parse(&issuer.der()).is_ok_and(|issuer| issuer.is_authority()) {
                return Err(webpki::Error::EndEntityUsedAsCa);
            }
        }
        let found = self.0.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
        found.map_or(Err(webpki::Error::UnknownIssuer), |at| self.0.authorities[at].lives(now))
    }

    fn no_path(&self, certificate: &Certificate<'_>, error: webpki::Error) -> Refusal {
        use webpki::Error as Pki;
        match error {
            Pki::CertExpired { .. } | Pki::CertNotValidYet { .. } => refusal(
                "authority-expired",
                Matter::Clock,
                format!(
                    "{}, below an authority that is not valid at this time",
                    certificate.describe()
                ),
                "authorities that are valid now",
                "renew the authority's certificate on both sides, or compare the clocks",
            ),
            Pki::UnknownIssuer | Pki::InvalidSignatureForPublicKey => refusal(
                "unknown-authority",
                Matter::Peer,
                certificate.describe(),
                &format!("a certificate signed by {}", self.names()),
                "give this side the certificate of the peer's authority (and any intermediate \
                 ones); a name alone proves nothing, the authority's key must be the same",
            ),
            Pki::RequiredEkuNotFoundContext(_) | Pki::EmptyEkuExtension => refusal(
                "certificate-usage",
                Matter::Peer,
                format!("{}, whose extended key usage excludes this", certificate.describe()),
                "a certificate for both TLS servers and TLS clients, or without that limit",
                "have it issued with extendedKeyUsage=serverAuth,clientAuth",
            ),
            Pki::EndEntityUsedAsCa => refusal(
                "certificate-issuer",
                Matter::Peer,
                format!(
                    "{}, issued by a certificate that is not an authority's",
                    certificate.describe()
                ),
                "issuers that say CA:TRUE and whose key usage includes keyCertSign",
                "a party's certificate was used to issue another one: refuse this peer, or have a \
                 trusted authority issue its certificate",
            ),
            Pki::CaUsedAsEndEntity => refusal(
                "certificate-usage",
                Matter::Peer,
                format!("{}, which is an authority (CA:TRUE)", certificate.describe()),
                "a party's own certificate (CA:FALSE)",
                "issue a certificate for the party, or trust exactly this one: put it into the \
                 file of trusted authorities",
            ),
            other => unverifiable(certificate, &other),
        }
    }

    fn names(&self) -> String {
        const SHOWN: usize = 3;
        let authorities = &self.0.authorities;
        let names: Vec<_> = authorities
            .iter()
            .take(SHOWN)
            .map(|authority| format!("'{}'", shown_name(&authority.subject)))
            .collect();
        match authorities.len() {
            0 => "one of the trusted authorities (the file names none with CA:TRUE)".to_owned(),
            1..=SHOWN => names.join(" or "),
            more => format!("{} or {} others", names.join(", "), more - SHOWN),
        }
    }
}

impl Authority {
    fn lives(&self, now: u64) -> Result<(), webpki::Error> {
        let (time, not_after) = (unix(now), unix(self.not_after));
        if now > self.not_after {
            return Err(webpki::Error::CertExpired { time, not_after });
        }
        if now < self.not_before {
            let not_before = unix(self.not_before);
            return Err(webpki::Error::CertNotValidYet { time, not_before });
        }
        Ok(())
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({} certificates)", self.0.exactly.len())
    }
}

/// A refusal of a certificate.
pub(crate) fn refusal(
    code: &'static str,
    matter: Matter,
    found: String,
    expected: &str,
    advice: &str,
) -> Refusal {
    Refusal::new(Stage::Certificate, code, matter).found(found).expected(expected).advice(advice)
}

fn in_its_life(certificate: &Certificate<'_>, now: u64) -> Result<(), Refusal> {
    let expected = format!("one valid now, at {}", shown_time(now));
    if now < certificate.not_before {
        return Err(refusal(
            "certificate-not-yet-valid",
            Matter::Clock,
            format!(
                "{}, which is not valid before {}",
                certificate.describe(),
                shown_time(certificate.not_before)
            ),
            &expected,
            "compare the clocks of both sides",
        ));
    }
    if now > certificate.not_after {
        return Err(refusal(
            "certificate-expired",
            Matter::Clock,
            format!(
                "{}, which expired at {}",
                certificate.describe(),
                shown_time(certificate.not_after)
            ),
            &expected,
            "have the peer renew its certificate, or compare the clocks",
        ));
    }
    Ok(())
}

fn unverifiable(certificate: &Certificate<'_>, error: &webpki::Error) -> Refusal {
    refusal(
        "certificate-form",
        Matter::Peer,
        format!("{}, which cannot be verified ({error})", certificate.describe()),
        "an X.509 version 3 certificate with a key and a signature of RSA (2048 bits or more, \
         SHA-256 or longer), ECDSA (P-256 or P-384) or Ed25519",
        "have it issued again, as version 3 and with such a key",
    )
}

fn unix(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
