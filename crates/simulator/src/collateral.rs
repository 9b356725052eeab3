//! The platform's collateral, as good or as bad as a test wants it.

use convelo_attest::Collateral;
use dcap_qvl::QuoteCollateralV3;
use serde_json::{Value, json};
use time::macros::format_description;

use crate::key::sign_raw;
use crate::platform::{CPU_SVN, Error, FMSPC, PCE_ID, PCE_SVN, Platform, time};

/// What the collateral says. The default is accepted by every policy that accepts the platform.
#[derive(Clone, Debug)]
pub struct CollateralKnobs {
    /// The clock of the issuer, Unix seconds; `None` is the time at which the platform was made.
    pub now: Option<u64>,
    /// Whole days before `now` at which TCB info, QE identity and the PCK revocation list were
    /// issued; an hour is always added. Negative is the future.
    pub issued_days_ago: i64,
    /// Days from their issue to their end.
    pub valid_days: i64,
    /// Days from the issue of the PCK revocation list to its end.
    pub crl_valid_days: i64,
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
    /// The PCE id that the TCB info is for.
    pub pce_id: [u8; 2],
    /// The FMSPC that the TCB info is for.
    pub fmspc: [u8; 6],
    /// A level above the platform's own, which asks for this much of its first CPU SVN component
    /// (the platform has 11).
    pub better_level: Option<u8>,
    /// The TCB evaluation number.
    pub evaluation_number: u32,
}

impl Default for CollateralKnobs {
    fn default() -> Self {
        Self {
            now: None,
            issued_days_ago: 0,
            valid_days: 30,
            crl_valid_days: 30,
            tcb_status: UP_TO_DATE.to_owned(),
            qe_status: UP_TO_DATE.to_owned(),
            advisories: Vec::new(),
            revoke_pck: false,
            revoke_ca: false,
            revoke_tcb_signer: false,
            pce_id: PCE_ID,
            fmspc: FMSPC,
            better_level: None,
            evaluation_number: 17,
        }
    }
}

impl Platform {
    /// Issues collateral for this platform, signed by its own TCB signer and authorities.
    ///
    /// # Panics
    ///
    /// If the knobs lead to dates outside the years 1970 to 9999 or to a status that Intel does
    /// not know.
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
        let key = &self.tcb_signer.key;
        Ok(QuoteCollateralV3 {
            pck_crl_issuer_chain: self.ca_chain(),
            root_ca_crl: self.root_crl(
                [now - 20 * DAY, now + 365 * DAY],
                knobs.revoke_ca,
                knobs.revoke_tcb_signer,
            )?,
            pck_crl: self
                .pck_crl([issued, issued + knobs.crl_valid_days * DAY], knobs.revoke_pck)?,
            tcb_info_issuer_chain: self.tcb_chain(),
            tcb_info_signature: sign_raw(key, tcb_info.as_bytes())?.to_vec(),
            tcb_info,
            qe_identity_issuer_chain: self.tcb_chain(),
            qe_identity_signature: sign_raw(key, qe_identity.as_bytes())?.to_vec(),
            qe_identity,
            pck_certificate_chain: None,
        })
    }
}

/// The quoting enclave of simulated platforms.
pub(crate) const QE_MR_SIGNER: [u8; 32] = [0x8C; 32];
pub(crate) const QE_SVN: u16 = 8;

const UP_TO_DATE: &str = "UpToDate";
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn tcb_info(knobs: &CollateralKnobs, [issued, next]: &[String; 2]) -> Value {
    let level = |components: &[u8], pce_svn: u16, status: &str, advisories: &[String]| {
        let components: Vec<Value> = components.iter().map(|svn| json!({ "svn": svn })).collect();
        json!({
            "tcb": { "sgxtcbcomponents": components, "pcesvn": pce_svn },
            "tcbDate": "2024-03-13T00:00:00Z",
            "tcbStatus": status,
            "advisoryIDs": advisories,
        })
    };
    let mut levels = vec![level(&CPU_SVN, PCE_SVN, &knobs.tcb_status, &knobs.advisories)];
    if let Some(svn) = knobs.better_level {
        let mut better = CPU_SVN;
        better[0] = svn;
        levels.insert(0, level(&better, PCE_SVN, UP_TO_DATE, &[]));
    }
    levels.push(level(&[0; 16], 5, "OutOfDate", &["INTEL-SA-00088".to_owned()]));
    json!({
        "id": "SGX",
        "version": 3,
        "issueDate": issued,
        "nextUpdate": next,
        "fmspc": hex::encode_upper(knobs.fmspc),
        "pceId": hex::encode_upper(knobs.pce_id),
        "tcbType": 0,
        "tcbEvaluationDataNumber": knobs.evaluation_number,
        "tcbLevels": levels,
    })
}

fn qe_identity(knobs: &CollateralKnobs, [issued, next]: &[String; 2]) -> Value {
    json!({
        "id": "QE",
        "version": 2,
        "issueDate": issued,
        "nextUpdate": next,
        "tcbEvaluationDataNumber": knobs.evaluation_number,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode_upper(QE_MR_SIGNER),
        "isvprodid": 1,
        "tcbLevels": [{
            "tcb": { "isvsvn": QE_SVN },
            "tcbDate": "2024-03-13T00:00:00Z",
            "tcbStatus": knobs.qe_status,
        }],
    })
}

fn date(seconds: i64) -> Result<String, Error> {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time(seconds)?.format(form).map_err(|_| Error::Time(seconds))
}
