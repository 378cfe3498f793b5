//! Getui's access tokens.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{AUTHS_PER_MINUTE, Getui, MINUTE_MS, Refusal, object, ok};
use crate::exchange::{Call, Reply};
use crate::vendor::oauth::Worth;
use crate::world::World;

const TOKEN_S: i64 = 86_400;
const CLOCK_MS_MAX: i64 = 10 * 60_000;

impl Getui {
    /// `POST /auth`.
    pub(super) fn auth(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let now = world.clock.now_ms();
        {
            let minute = now.div_euclid(MINUTE_MS);
            let mut state = self.state();
            if state.auths.0 != minute {
                state.auths = (minute, 0);
            }
            if state.auths.1 >= AUTHS_PER_MINUTE {
                return Err(Refusal::new(401, 10003, "auth over limit"));
            }
            state.auths.1 += 1;
        }
        let body = object(call)?;
        let text = |name: &str| match body.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            _ => Err(Refusal::parameter(format!("{name} can not be empty"))),
        };
        let (key, timestamp, sign) = (text("appkey")?, text("timestamp")?, text("sign")?);
        if key != self.account.app_key {
            return Err(Refusal::parameter("appkey is invalid"));
        }
        let at: i64 = timestamp
            .parse()
            .map_err(|_| Refusal::parameter("timestamp is invalid"))?;
        if (now - at).abs() > CLOCK_MS_MAX {
            return Err(Refusal::parameter("timestamp is invalid"));
        }
        let text = format!("{key}{timestamp}{}", self.account.master_secret);
        let wanted: String = digest(&SHA256, text.as_bytes())
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if sign != wanted {
            return Err(Refusal::parameter("sign is invalid"));
        }
        let token = self.access.issue("", world.clock.now_s(), TOKEN_S);
        let expires = (now + TOKEN_S * 1000).to_string();
        Ok(ok(&json!({"expire_time": expires, "token": token})))
    }

    /// The `token` header of every other call.
    pub(super) fn authorize(&self, world: &World, call: &Call) -> Result<(), Refusal> {
        let token = call.header("token").unwrap_or_default();
        match self.access.worth(token, world.clock.now_s()) {
            Worth::Good => Ok(()),
            Worth::Unknown | Worth::Expired => Err(Refusal::new(401, 10001, "token is invalid")),
        }
    }
}
