//! Collateral that travels with evidence. It is signed and dated, so it does not matter who hands it
//! over.

use std::sync::Arc;

use super::{Collateral, CollateralError, PlatformId};
use crate::evidence::Evidence;
use crate::refusal::Refusal;

impl Collateral {
    /// Reads what was offered along with evidence; empty for nothing. A refusal says only in our own
    /// words what is wrong: nobody knows yet who made it.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn from_offer(offered: &[u8]) -> Result<Self, Refusal> {
        if offered.is_empty() {
            return Err(Refusal::no_collateral("none here, and none was offered"));
        }
        let text = std::str::from_utf8(offered)
            .map_err(|_| Refusal::no_collateral("none here, and an offer that is not text"))?;
        Self::from_json(text).map_err(|error| {
            Refusal::no_collateral(match error {
                CollateralError::Size { found } => {
                    format!("none here, and an offer of {found} bytes, which is too long")
                }
                CollateralError::Json { line, column, .. } => format!(
                    "none here, and an offer that is not the JSON of a collateral bundle (line \
                     {line}, column {column})"
                ),
                CollateralError::Part { part, .. } => {
                    format!("none here, and an offer whose {part} cannot be used")
                }
                _ => "none here, and an offer that cannot be used".to_owned(),
            })
        })
    }

    /// What to verify evidence with: our own collateral, if it is about the platform that the
    /// evidence names, and otherwise what was offered along with it.
    ///
    /// # Errors
    /// A [`Refusal`], if only the offer is left and it cannot be read.
    pub fn own_or_offered(
        own: Option<Arc<Self>>,
        offered: &[u8],
        evidence: &Evidence,
    ) -> Result<Arc<Self>, Refusal> {
        match own {
            // If nothing was offered, verification says what our own is about instead.
            Some(own) if offered.is_empty() || own.fits(evidence) => Ok(own),
            _ => Self::from_offer(offered).map(Arc::new),
        }
    }

    /// Whether this bundle is about the platform that the evidence names.
    pub fn fits(&self, evidence: &Evidence) -> bool {
        let platform = PlatformId::of_quote(evidence.quote()).ok();
        platform.is_some() && platform == PlatformId::of_collateral(self).ok()
    }
}
