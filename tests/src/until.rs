//! Waiting for a condition: looked at again and again, and what was seen last is in the message when it never came.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// No condition in these tests takes this long on a machine that is merely busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something, and returns it.
///
/// # Panics
/// When nothing came for a minute; the message says what was seen last instead.
pub async fn until<T, S: Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, S>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > end => {
                panic!("waited {} s until {what}; last seen: {seen:?}", PATIENCE.as_secs())
            }
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}
