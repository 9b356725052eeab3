//! Which program runs in an enclave or trust domain, as reported by the hardware.

use std::fmt;

use serde_json::{Map, Value};

/// The program a quote is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "a few hundred bytes, one a verdict")]
pub enum Measurements {
    /// An SGX enclave.
    Sgx(SgxMeasurements),
    /// A TDX trust domain.
    Tdx(TdxMeasurements),
}

/// An SGX enclave's identity and attributes (Intel SDM volume 3D, 38.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SgxMeasurements {
    /// The measurement of the enclave's code and initial data.
    pub mr_enclave: [u8; 32],
    /// SHA-256 of the key that signed the enclave.
    pub mr_signer: [u8; 32],
    /// The signer's product number.
    pub isv_prod_id: u16,
    /// The signer's security version number for the product.
    pub isv_svn: u16,
    /// ATTRIBUTES.FLAGS.
    pub flags: u64,
    /// ATTRIBUTES.XFRM: which extended processor features the enclave may use.
    pub xfrm: u64,
    /// MISCSELECT: what an asynchronous exit shows.
    pub misc_select: u32,
    /// CONFIGID of key separation and sharing (KSS): what the host chose at start.
    pub config_id: [u8; 64],
    /// CONFIGSVN (KSS).
    pub config_svn: u16,
    /// ISVFAMILYID (KSS).
    pub isv_family_id: [u8; 16],
    /// ISVEXTPRODID (KSS).
    pub isv_ext_prod_id: [u8; 16],
}

/// A TDX trust domain's identity and attributes (Intel TDX Module ABI Specification, `TDINFO`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxMeasurements {
    /// The measurement of what the domain started with: its firmware.
    pub mr_td: [u8; 48],
    /// The run-time measurements: by convention the firmware's configuration, the kernel, its
    /// command line and first file system, the application.
    pub rtmr: [[u8; 48]; 4],
    /// What the host stated about the domain's configuration when it started it.
    pub mr_config_id: [u8; 48],
    /// What the host stated about the domain's owner when it started it.
    pub mr_owner: [u8; 48],
    /// What the host stated about the owner's configuration when it started the domain.
    pub mr_owner_config: [u8; 48],
    /// TD attributes.
    pub attributes: u64,
    /// XFAM: which extended processor features the domain may use.
    pub xfam: u64,
}

impl Measurements {
    /// Name and value of each statement, in reading order. Those that most programs do not use
    /// appear only if they are not zero.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Sgx(sgx) => sgx.fields(),
            Self::Tdx(tdx) => tdx.fields(),
        }
    }

    /// The one measurement people identify the program by: `mr_enclave` or `mr_td`.
    pub fn measurement(&self) -> &[u8] {
        match self {
            Self::Sgx(sgx) => &sgx.mr_enclave,
            Self::Tdx(tdx) => &tdx.mr_td,
        }
    }

    /// Like [`fields`](Self::fields), but with numbers as numbers.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut map: Map<String, Value> = self
            .fields()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        if let Self::Sgx(sgx) = self {
            map.insert("isv_prod_id".to_owned(), sgx.isv_prod_id.into());
            map.insert("isv_svn".to_owned(), sgx.isv_svn.into());
        }
        map
    }
}

impl SgxMeasurements {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("mr_enclave", hex::encode(self.mr_enclave)),
            ("mr_signer", hex::encode(self.mr_signer)),
            ("isv_prod_id", self.isv_prod_id.to_string()),
            ("isv_svn", self.isv_svn.to_string()),
            ("flags", format!("{:016x}", self.flags)),
            ("xfrm", format!("{:016x}", self.xfrm)),
            ("misc_select", format!("{:08x}", self.misc_select)),
        ];
        present(&mut fields, "config_id", &self.config_id);
        if self.config_svn != 0 {
            fields.push(("config_svn", self.config_svn.to_string()));
        }
        present(&mut fields, "isv_family_id", &self.isv_family_id);
        present(&mut fields, "isv_ext_prod_id", &self.isv_ext_prod_id);
        fields
    }
}

impl TdxMeasurements {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("mr_td", hex::encode(self.mr_td))];
        let names = ["rtmr0", "rtmr1", "rtmr2", "rtmr3"];
        fields.extend(names.into_iter().zip(self.rtmr.map(hex::encode)));
        fields.extend([
            ("td_attributes", format!("{:016x}", self.attributes)),
            ("xfam", format!("{:016x}", self.xfam)),
        ]);
        present(&mut fields, "mr_config_id", &self.mr_config_id);
        present(&mut fields, "mr_owner", &self.mr_owner);
        present(&mut fields, "mr_owner_config", &self.mr_owner_config);
        fields
    }
}

impl fmt::Display for Measurements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> =
            self.fields().into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        f.write_str(&fields.join(", "))
    }
}

fn present(fields: &mut Vec<(&'static str, String)>, name: &'static str, value: &[u8]) {
    if value.iter().any(|byte| *byte != 0) {
        fields.push((name, hex::encode(value)));
    }
}
