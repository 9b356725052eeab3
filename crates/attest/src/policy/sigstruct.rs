//! SIGSTRUCT, which an enclave's author signs it with (Intel SDM, volume 3D, 38.13).

use sha2::{Digest, Sha256};

use super::rule::{EnclaveRule, Svn};

/// Its length in bytes.
const BYTES: usize = 1808;

/// The two constants, one at its start and one after its date.
const HEADER: [u8; 16] = [6, 0, 0, 0, 0xe1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
const HEADER2: [u8; 16] = [1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1, 0, 0, 0];

const HEADER2_AT: usize = 24;
const MODULUS_AT: usize = 128;
const MODULUS_BYTES: usize = 384;
const ATTRIBUTES_AT: usize = 928;
const ENCLAVE_HASH_AT: usize = 960;
const ISV_PROD_ID_AT: usize = 1024;
const ISV_SVN_AT: usize = 1026;
const DEBUG: u8 = 2;

/// Describes the signed enclave. Does not verify the signature: the processor does that, and anyone
/// who trusts the measurement in the file trusts the file.
pub(crate) fn read(name: &str, bytes: &[u8]) -> Result<EnclaveRule, String> {
    if bytes.len() != BYTES {
        let found = bytes.len();
        return Err(format!(
            "{found} bytes, expected {BYTES}, the size of a SIGSTRUCT (the .sig file)"
        ));
    }
    if bytes[..16] != HEADER || bytes[HEADER2_AT..HEADER2_AT + 16] != HEADER2 {
        return Err("this is not a SIGSTRUCT: its two headers differ".to_owned());
    }
    if bytes[ATTRIBUTES_AT] & DEBUG != 0 {
        return Err(
            "the enclave is signed with DEBUG set, which no policy accepts: set sgx.debug = \
                    false and sign it again"
                .to_owned(),
        );
    }
    let modulus = &bytes[MODULUS_AT..MODULUS_AT + MODULUS_BYTES];
    let hash = &bytes[ENCLAVE_HASH_AT..ENCLAVE_HASH_AT + 32];
    let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    Ok(EnclaveRule {
        name: name.to_owned(),
        mr_enclave: Some(hash.try_into().expect("32 bytes were taken")),
        mr_signer: Some(Sha256::digest(modulus).into()),
        isv_prod_id: Some(number(ISV_PROD_ID_AT)),
        isv_svn: Svn::AtLeast(number(ISV_SVN_AT)),
        ..EnclaveRule::default()
    })
}
