//! The platform's collateral, as good or as bad as a test needs.

use convelo_attest::{Collateral, Tee};
use dcap_qvl::QuoteCollateralV3;
use serde_json::{Value, json};
use time::macros::format_description;

use crate::key::sign_raw;
use crate::platform::{CPU_SVN, Error, FMSPC, PCE_ID, PCE_SVN, Platform, TEE_TCB_SVN, time};

/// What the collateral says. Every policy that accepts the platform accepts the default.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one defect")]
pub struct CollateralKnobs {
    /// The issuer's clock, Unix seconds; `None` is when the platform was made.
    pub now: Option<u64>,
    /// How many whole days before `now` the TCB info, QE identity and PCK revocation list were
    /// issued; an hour is always added. Negative is the future.
    pub issued_days_ago: i64,
    /// Days from issue to expiry.
    pub valid_days: i64,
    /// Days from the issue of the PCK revocation list to its expiry.
    pub crl_valid_days: i64,
    /// How many whole days before `now` the root's revocation list was issued.
    pub root_crl_days_ago: i64,
    /// The numbers of the revocation lists: the root's, and the PCK CA's.
    pub crl_numbers: [u8; 2],
    /// The status of the TCB level that the platform reaches.
    pub tcb_status: String,
    /// The status of the level that the quoting enclave reaches.
    pub qe_status: String,
    /// The advisories of the TCB level that the platform reaches.
    pub advisories: Vec<String>,
    /// Puts the PCK certificate on its CA's revocation list.
    pub revoke_pck: bool,
    /// Puts the PCK CA on the root's revocation list.
    pub revoke_ca: bool,
    /// Puts the signer of TCB info and QE identity on the root's revocation list.
    pub revoke_tcb_signer: bool,
    /// Has TCB info and QE identity signed by the CA of PCK certificates, with its chain.
    pub signed_by_pck_ca: bool,
    /// The PCE id that the TCB info is for.
    pub pce_id: [u8; 2],
    /// The FMSPC that the TCB info is for.
    pub fmspc: [u8; 6],
    /// A level listed above the platform's own, which requires this much of its first CPU SVN
    /// component (the platform has 11).
    pub better_level: Option<u8>,
    /// The TCB evaluation number.
    pub evaluation_number: u32,
    /// The technology it is for.
    pub tee: Tee,
    /// The date of the TCB level that the platform reaches.
    pub tcb_date: String,
    /// The date of the level that the quoting enclave reaches.
    pub qe_tcb_date: String,
    /// TDX: the status of the level that the TDX module reaches.
    pub module_status: String,
    /// TDX: the signer of the TDX module; Intel's is zero.
    pub module_signer: [u8; 48],
}

impl Default for CollateralKnobs {
    fn default() -> Self {
        Self {
            now: None,
            issued_days_ago: 0,
            valid_days: 30,
            crl_valid_days: 30,
            root_crl_days_ago: 20,
            crl_numbers: [1, 1],
            tcb_status: UP_TO_DATE.to_owned(),
            qe_status: UP_TO_DATE.to_owned(),
            advisories: Vec::new(),
            revoke_pck: false,
            revoke_ca: false,
            revoke_tcb_signer: false,
            signed_by_pck_ca: false,
            pce_id: PCE_ID,
            fmspc: FMSPC,
            better_level: None,
            evaluation_number: 17,
            tee: Tee::Sgx,
            tcb_date: TCB_DATE.to_owned(),
            qe_tcb_date: TCB_DATE.to_owned(),
            module_status: UP_TO_DATE.to_owned(),
            module_signer: [0; 48],
        }
    }
}

impl Platform {
    /// Issues collateral for this platform, signed by its own TCB signer and authorities.
    ///
    /// # Panics
    ///
    /// If the knobs lead to dates outside the years 1970 to 9999, or to a status unknown to Intel.
    pub fn collateral(&self, knobs: &CollateralKnobs) -> Collateral {
        let bundle = self.bundle(knobs).expect("the knobs name dates that certificates can hold");
        Collateral::new(bundle).expect("the knobs name statuses that Intel knows")
    }

    fn bundle(&self, knobs: &CollateralKnobs) -> Result<QuoteCollateralV3, Error> {
        let now = i64::try_from(knobs.now.unwrap_or(self.now)).unwrap_or(i64::MAX);
        let issued = now - HOUR - knobs.issued_days_ago * DAY;
        let next = issued + knobs.valid_days * DAY;
        let dates = [date(issued)?, date(next)?];
        let tcb_info = tcb_info(knobs, &dates).to_string();
        let qe_identity = qe_identity(knobs, &dates).to_string();
        let (key, chain) = if knobs.signed_by_pck_ca {
            (self.ca_key(), self.ca_chain())
        } else {
            (&self.tcb_signer.key, self.tcb_chain())
        };
        Ok(QuoteCollateralV3 {
            pck_crl_issuer_chain: self.ca_chain(),
            root_ca_crl: self.root_crl(
                [now - knobs.root_crl_days_ago * DAY, now + 365 * DAY],
                knobs.crl_numbers[0],
                knobs.revoke_ca,
                knobs.revoke_tcb_signer,
            )?,
            pck_crl: self.pck_crl(
                [issued, issued + knobs.crl_valid_days * DAY],
                knobs.crl_numbers[1],
                knobs.revoke_pck,
            )?,
            tcb_info_issuer_chain: chain.clone(),
            tcb_info_signature: sign_raw(key, tcb_info.as_bytes())?.to_vec(),
            tcb_info,
            qe_identity_issuer_chain: chain,
            qe_identity_signature: sign_raw(key, qe_identity.as_bytes())?.to_vec(),
            qe_identity,
            pck_certificate_chain: None,
        })
    }
}

/// The quoting enclave of simulated platforms.
pub(crate) const QE_MR_SIGNER: [u8; 32] = [0x8C; 32];
pub(crate) const QE_SVN: u16 = 8;

pub(crate) const QE_PROD_ID: u16 = 1;
pub(crate) const TD_QE_PROD_ID: u16 = 2;

const TCB_DATE: &str = "2024-03-13T00:00:00Z";
const UP_TO_DATE: &str = "UpToDate";
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn tcb_info(knobs: &CollateralKnobs, [issued, next]: &[String; 2]) -> Value {
    let tdx = knobs.tee == Tee::Tdx;
    let components =
        |svns: &[u8]| -> Vec<Value> { svns.iter().map(|svn| json!({ "svn": svn })).collect() };
    let level = |cpu_svn: &[u8], pce_svn: u16, date: &str, status: &str, advisories: &[String]| {
        let mut tcb = json!({ "sgxtcbcomponents": components(cpu_svn), "pcesvn": pce_svn });
        if tdx {
            // The module's components count only if its major version is 0.
            tcb["tdxtcbcomponents"] = components(&[0, 0, TEE_TCB_SVN[2]]).into();
            let list = tcb["tdxtcbcomponents"].as_array_mut().expect("it was made just now");
            list.resize(TEE_TCB_SVN.len(), json!({ "svn": 0 }));
        }
        json!({
            "tcb": tcb,
            "tcbDate": date,
            "tcbStatus": status,
            "advisoryIDs": advisories,
        })
    };
    let (status, advisories) = (&knobs.tcb_status, &knobs.advisories);
    let mut levels = vec![level(&CPU_SVN, PCE_SVN, &knobs.tcb_date, status, advisories)];
    if let Some(svn) = knobs.better_level {
        let mut better = CPU_SVN;
        better[0] = svn;
        levels.insert(0, level(&better, PCE_SVN, TCB_DATE, UP_TO_DATE, &[]));
    }
    levels.push(level(&[0; 16], 5, TCB_DATE, "OutOfDate", &["INTEL-SA-00088".to_owned()]));
    let mut info = json!({
        "id": if tdx { "TDX" } else { "SGX" },
        "version": 3,
        "issueDate": issued,
        "nextUpdate": next,
        "fmspc": hex::encode_upper(knobs.fmspc),
        "pceId": hex::encode_upper(knobs.pce_id),
        "tcbType": 0,
        "tcbEvaluationDataNumber": knobs.evaluation_number,
        "tcbLevels": levels,
    });
    if tdx {
        let module = json!({
            "mrsigner": hex::encode_upper(knobs.module_signer),
            "attributes": "0000000000000000",
            "attributesMask": "FFFFFFFFFFFFFFFF",
        });
        let mut identity = module.clone();
        identity["id"] = "TDX_01".into();
        identity["tcbLevels"] = json!([{
            "tcb": { "isvsvn": TEE_TCB_SVN[0] },
            "tcbDate": TCB_DATE,
            "tcbStatus": knobs.module_status,
        }]);
        info["tdxModule"] = module;
        info["tdxModuleIdentities"] = json!([identity]);
    }
    info
}

fn qe_identity(knobs: &CollateralKnobs, [issued, next]: &[String; 2]) -> Value {
    let (id, product) = match knobs.tee {
        Tee::Tdx => ("TD_QE", TD_QE_PROD_ID),
        _ => ("QE", QE_PROD_ID),
    };
    json!({
        "id": id,
        "version": 2,
        "issueDate": issued,
        "nextUpdate": next,
        "tcbEvaluationDataNumber": knobs.evaluation_number,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode_upper(QE_MR_SIGNER),
        "isvprodid": product,
        "tcbLevels": [{
            "tcb": { "isvsvn": QE_SVN },
            "tcbDate": knobs.qe_tcb_date,
            "tcbStatus": knobs.qe_status,
        }],
    })
}

fn date(seconds: i64) -> Result<String, Error> {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time(seconds)?.format(form).map_err(|_| Error::Time(seconds))
}
