//! ece: encrypts one message for one subscription after the other; no token is signed and no request is built.

use std::time::{Duration, Instant};

use crate::process;

/// Subscriptions that are encrypted for.
const SUBSCRIPTIONS: usize = 64;
const BODY: &str = r#"{"hy_id":"01890a5d-ac96-774b-bcce-b302099a8057","notification":{"title":"Order 42","body":"is on its way","tag":"01890a5d-ac96-774b-bcce-b302099a8057"}}"#;

/// Messages per CPU second.
pub(crate) fn run(take: Duration) -> anyhow::Result<f64> {
    let subscriptions = (0..SUBSCRIPTIONS)
        .map(|_| {
            let (key, auth) = ece::generate_keypair_and_auth_secret()?;
            Ok((key.pub_as_raw()?, auth))
        })
        .collect::<Result<Vec<_>, ece::Error>>()?;
    let pid = std::process::id();
    let (begin, before) = (Instant::now(), process::cpu(pid)?);
    let mut count = 0_u32;
    while begin.elapsed() < take {
        for (key, auth) in &subscriptions {
            std::hint::black_box(ece::encrypt(key, auth, BODY.as_bytes())?);
            count += 1;
        }
    }
    let cpu = process::cpu(pid)?.saturating_sub(before);
    Ok(f64::from(count) / cpu.as_secs_f64().max(1e-9))
}
