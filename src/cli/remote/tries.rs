//! Once more: after what may pass, a few times in a row, a little later each time.

use std::time::Duration;

use super::Error;

/// Failures in a row after which it is given up: half a minute, enough for a service to start anew.
const MOST: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Failures in a row.
#[derive(Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// Something went well.
    pub(super) fn succeeded(&mut self) {
        self.0 = 0;
    }

    /// Waits until it is time to try again.
    ///
    /// # Errors
    /// `error`, where trying again is no use.
    pub(super) async fn again(&mut self, error: Error) -> Result<(), Error> {
        self.again_if(error.is_transient(), error).await
    }

    /// The same, where `may_pass` says whether trying again is of use.
    ///
    /// # Errors
    /// `error`, where it is none.
    pub(super) async fn again_if(&mut self, may_pass: bool, error: Error) -> Result<(), Error> {
        if !may_pass || self.0 >= MOST {
            return Err(error);
        }
        let pause = FIRST_PAUSE * 2u32.pow(self.0);
        tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
        self.0 += 1;
        Ok(())
    }

    /// Does `work` until it succeeds, or trying again is no use.
    pub(super) async fn until_done<T>(
        work: impl AsyncFn() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut tries = Self::default();
        loop {
            match work().await {
                Ok(done) => return Ok(done),
                Err(e) => tries.again(e).await?,
            }
        }
    }
}
