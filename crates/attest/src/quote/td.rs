//! The report of a TDX trust domain, in its three lengths (Intel TDX DCAP Quoting Library API,
//! appendix A: TD report 1.0, 1.5, and 1.5 extended).

use super::{array, u64_at};
use crate::measurements::TdxMeasurements;

pub(crate) const BYTES_1_0: usize = 584;
const BYTES_1_5: usize = 648;
const BYTES_1_5_EXTENDED: usize = 885;
pub(crate) const REPORT_DATA: usize = 520;

/// TD attributes (Intel TDX Module ABI Specification, TD ATTRIBUTES).
pub(crate) mod attributes {
    pub(crate) const DEBUG: u64 = 1;
    pub(crate) const ICSSD: u64 = 1 << 16;
    pub(crate) const LASS: u64 = 1 << 27;
    pub(crate) const SEPT_VE_DISABLE: u64 = 1 << 28;
    pub(crate) const MIGRATABLE: u64 = 1 << 29;
    pub(crate) const PKS: u64 = 1 << 30;
    pub(crate) const KL: u64 = 1 << 31;
    pub(crate) const PERFMON: u64 = 1 << 63;
}

/// How long a body of this type of a version 5 quote is; type 1 would be an SGX report.
pub(super) fn length(kind: u16) -> Option<usize> {
    match kind {
        2 => Some(BYTES_1_0),
        3 => Some(BYTES_1_5),
        4 => Some(BYTES_1_5_EXTENDED),
        _ => None,
    }
}

#[derive(Clone)]
#[expect(clippy::struct_field_names, reason = "report data is the field's name everywhere")]
pub(crate) struct Report {
    /// Security versions of the TDX module with which the domain was started.
    pub(crate) tee_tcb_svn: [u8; 16],
    pub(crate) domain: TdxMeasurements,
    pub(crate) report_data: [u8; 64],
}

impl Report {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            tee_tcb_svn: array(bytes, 0),
            domain: TdxMeasurements {
                attributes: u64_at(bytes, 120),
                xfam: u64_at(bytes, 128),
                mr_td: array(bytes, 136),
                mr_config_id: array(bytes, 184),
                mr_owner: array(bytes, 232),
                mr_owner_config: array(bytes, 280),
                rtmr: [328, 376, 424, 472].map(|at| array(bytes, at)),
            },
            report_data: array(bytes, REPORT_DATA),
        }
    }
}
