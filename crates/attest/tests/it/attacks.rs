//! Evidence that must be refused, by what is attacked; each test named after the attack or the defect.

mod certificate;
mod collateral;
mod platform;
mod program;
mod quote;

/// Where the type of the certification data stands in a quote.
const CERTIFICATION: usize = 436 + 64 + 64 + 384 + 64 + 2 + 32;

/// The three certificates of a quote, PEM.
fn pem_parts(quote: &[u8]) -> [String; 3] {
    let pem = std::str::from_utf8(&quote[CERTIFICATION + 6..quote.len() - 1]).unwrap();
    let parts: Vec<String> =
        pem.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
    parts.try_into().unwrap()
}

/// The quote with other certification data, both lengths set right.
fn with_chain(quote: &[u8], chain: &str) -> Vec<u8> {
    let mut out = quote[..CERTIFICATION + 2].to_vec();
    out.extend(u32::try_from(chain.len()).unwrap().to_le_bytes());
    out.extend(chain.as_bytes());
    let length = u32::try_from(out.len() - 436).unwrap();
    out[432..436].copy_from_slice(&length.to_le_bytes());
    out
}
