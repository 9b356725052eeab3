//! The report of an SGX enclave (Intel SDM volume 3D, 38.15), 384 bytes.

use super::{array, u16_at, u32_at, u64_at};
use crate::measurements::SgxMeasurements;

pub(crate) const BYTES: usize = 384;
pub(crate) const REPORT_DATA: usize = 320;

/// ATTRIBUTES.FLAGS of an SGX enclave (Intel SDM volume 3D, 38.7.1).
pub(crate) mod flags {
    pub(crate) const INIT: u64 = 0x01;
    pub(crate) const DEBUG: u64 = 0x02;
    pub(crate) const MODE64: u64 = 0x04;
    pub(crate) const PROVISION_KEY: u64 = 0x10;
    pub(crate) const EINITTOKEN_KEY: u64 = 0x20;
}

#[derive(Clone)]
pub(crate) struct Report {
    pub(crate) enclave: SgxMeasurements,
    pub(crate) report_data: [u8; 64],
}

impl Report {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            enclave: SgxMeasurements {
                misc_select: u32_at(bytes, 16),
                isv_ext_prod_id: array(bytes, 32),
                flags: u64_at(bytes, 48),
                xfrm: u64_at(bytes, 56),
                mr_enclave: array(bytes, 64),
                mr_signer: array(bytes, 128),
                config_id: array(bytes, 192),
                isv_prod_id: u16_at(bytes, 256),
                isv_svn: u16_at(bytes, 258),
                config_svn: u16_at(bytes, 260),
                isv_family_id: array(bytes, 304),
            },
            report_data: array(bytes, REPORT_DATA),
        }
    }
}
