//! Verifying the signatures of a bundle without a quote, and comparing it with older or newer
//! bundles.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ParsedPublicKey, VerificationAlgorithm,
};
use x509_cert::Certificate;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode as _};

use super::{Collateral, CollateralError, part};
use crate::date;
use crate::policy::Policy;

impl Collateral {
    /// Verifies every signature in the bundle under the policy's root, and that it is in force at
    /// `now` (Unix seconds). This is for taking in a bundle from somebody else; only a quote says
    /// what a platform is.
    ///
    /// # Errors
    /// [`CollateralError::Part`], which names the part.
    pub fn verify(&self, policy: &Policy, now: u64) -> Result<(), CollateralError> {
        let bundle = self.bundle();
        let root = policy.anchor().der();
        for piece in self.parts() {
            if now < piece.issued {
                return Err(part(
                    piece.name,
                    format!("issued at {}, after now", date::show(piece.issued)),
                ));
            }
            if now > piece.next_update {
                let ended = date::show(piece.next_update);
                return Err(part(piece.name, format!("it expired at {ended}")));
            }
        }
        let chains = [
            (
                "TCB info",
                &bundle.tcb_info_issuer_chain,
                &bundle.tcb_info,
                &bundle.tcb_info_signature,
            ),
            (
                "QE identity",
                &bundle.qe_identity_issuer_chain,
                &bundle.qe_identity,
                &bundle.qe_identity_signature,
            ),
        ];
        for (name, chain, text, signature) in chains {
            let signer = key(name, &self.signer(name, chain, root)?, &ECDSA_P256_SHA256_FIXED)?;
            signer
                .verify_sig(text.as_bytes(), signature)
                .map_err(|_| part(name, "its signature does not match its issuer's key"))?;
        }
        let ca = self.signer("PCK revocation list", &bundle.pck_crl_issuer_chain, root)?;
        signed_list("PCK revocation list", &bundle.pck_crl, &ca)?;
        let root = Certificate::from_der(root).expect("an anchor is a certificate");
        signed_list("root revocation list", &bundle.root_ca_crl, &root)
    }

    /// The first certificate of a chain of two, issued by the second, which is the root; not
    /// revoked by the root's list.
    fn signer(
        &self,
        name: &'static str,
        chain: &str,
        root: &[u8],
    ) -> Result<Certificate, CollateralError> {
        let chain = Certificate::load_pem_chain(chain.as_bytes())
            .map_err(|error| part(name, format!("its issuer chain: {error}")))?;
        let [signer, last] = <[Certificate; 2]>::try_from(chain).map_err(|chain| {
            part(name, format!("its issuer chain has {} certificates instead of 2", chain.len()))
        })?;
        if last.to_der().ok().as_deref() != Some(root) {
            return Err(CollateralError::OtherRoot { part: name });
        }
        let tbs =
            signer.tbs_certificate().to_der().map_err(|error| part(name, error.to_string()))?;
        key(name, &last, &ECDSA_P256_SHA256_ASN1)?
            .verify_sig(&tbs, signer.signature().raw_bytes())
            .map_err(|_| part(name, "the root did not sign its issuer's certificate"))?;
        if self.revokes_ca(signer.tbs_certificate().serial_number().as_bytes()) {
            return Err(part(name, "its issuer's certificate is revoked"));
        }
        Ok(signer)
    }

    /// The number of Intel's evaluation of known weaknesses that the TCB info comes from.
    pub fn evaluation_number(&self) -> u32 {
        self.tcb_info().tcb_evaluation_data_number
    }

    /// Checks that this bundle may replace `held`: it is about the same platform, and no part is
    /// older. Anyone who hands out an older one, however genuine, hides what has been found since.
    ///
    /// # Errors
    /// [`CollateralError::Older`], which names the part and both dates.
    pub fn may_replace(&self, held: &Self) -> Result<(), CollateralError> {
        if (self.tee(), self.fmspc()) != (held.tee(), held.fmspc()) {
            let about = |bundle: &Self| {
                format!("for {} on FMSPC {}", bundle.tee(), hex::encode(bundle.fmspc()))
            };
            return Err(part("TCB info", format!("{}, expected {}", about(self), about(held))));
        }
        for (ours, theirs) in self.parts().iter().zip(held.parts()) {
            if ours.issued < theirs.issued {
                return Err(CollateralError::Older {
                    part: ours.name,
                    found: date::show(ours.issued),
                    held: date::show(theirs.issued),
                });
            }
        }
        for (ours, theirs) in self.parts().iter().zip(held.parts()) {
            if ours.number < theirs.number {
                let shown = |number: Option<u64>| number.map_or_else(none, |it| it.to_string());
                return Err(CollateralError::Older {
                    part: ours.name,
                    found: format!("number {}", shown(ours.number)),
                    held: format!("number {}", shown(theirs.number)),
                });
            }
        }
        if self.evaluation_number() < held.evaluation_number() {
            return Err(CollateralError::Older {
                part: "TCB evaluation",
                found: self.evaluation_number().to_string(),
                held: held.evaluation_number().to_string(),
            });
        }
        Ok(())
    }

    /// Name, issue date and expiry of each part in Unix seconds, for people.
    pub fn dates(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        self.parts().iter().map(|part| (part.name, part.issued, part.next_update))
    }

    /// Name and number of each revocation list that has one, for people.
    pub fn list_numbers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.parts().iter().filter_map(|part| Some((part.name, part.number?)))
    }
}

fn none() -> String {
    "none".to_owned()
}

fn key(
    name: &'static str,
    certificate: &Certificate,
    algorithm: &'static dyn VerificationAlgorithm,
) -> Result<ParsedPublicKey, CollateralError> {
    let spki = certificate.tbs_certificate().subject_public_key_info();
    let spki = spki.to_der().map_err(|error| part(name, error.to_string()))?;
    ParsedPublicKey::new(algorithm, &spki)
        .map_err(|_| part(name, "its issuer's key is not a P-256 key"))
}

fn signed_list(
    name: &'static str,
    der: &[u8],
    issuer: &Certificate,
) -> Result<(), CollateralError> {
    let list =
        CertificateList::<Rfc5280>::from_der(der).map_err(|error| part(name, error.to_string()))?;
    let tbs = list.tbs_cert_list.to_der().map_err(|error| part(name, error.to_string()))?;
    key(name, issuer, &ECDSA_P256_SHA256_ASN1)?
        .verify_sig(&tbs, list.signature.raw_bytes())
        .map_err(|_| part(name, "its signature does not match its issuer's key"))
}
