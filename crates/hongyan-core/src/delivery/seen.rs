//! What a device reported of a delivery.

use serde::{Deserialize, Serialize};

use crate::Stage;

/// The set of stages that a device reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(pub u8);

impl Seen {
    fn bit(stage: Stage) -> u8 {
        match stage {
            Stage::Delivered => 1,
            Stage::Displayed => 2,
            Stage::Clicked => 4,
            Stage::Opened => 8,
            Stage::Dismissed => 16,
            Stage::Undelivered => 32,
            _ => 0,
        }
    }

    /// Whether the stage was reported.
    #[must_use]
    pub fn has(self, stage: Stage) -> bool {
        self.0 & Self::bit(stage) != 0
    }

    /// Whether devices report this stage.
    pub(super) fn is_client(stage: Stage) -> bool {
        stage != Stage::Undelivered && Self::bit(stage) != 0
    }

    /// Adds a stage; answers whether it is new and one that is kept here.
    pub(super) fn add(&mut self, stage: Stage) -> bool {
        let bit = Self::bit(stage);
        let new = bit != 0 && self.0 & bit == 0;
        self.0 |= bit;
        new
    }
}
