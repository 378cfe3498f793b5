//! Enrolments: texts that make whoever connects with one a device of a user, for a day.
//!
//! Nothing of them is stored. A text says whose it is and when it was made, and proves both; whether it still counts is seen
//! from the user's record.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_core::{AppId, Secret, Timestamp, UserId};

use crate::credentials::Sealer;

/// What the texts begin with.
const PREFIX: &str = "hy_en_";

/// What a text says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) app: AppId,
    pub(crate) user: UserId,
    pub(crate) made_at: Timestamp,
}

impl Claim {
    fn plain(&self) -> String {
        format!("{}\n{}\n{}", self.app, self.user, self.made_at.0)
    }

    /// What the proof is bound to.
    fn bound_to(&self) -> String {
        format!("autopush enrolment of a day\n{}", self.plain())
    }

    pub(crate) fn text(&self, sealer: &dyn Sealer) -> Secret {
        let said = URL_SAFE_NO_PAD.encode(self.plain());
        let proof = sealer.proof(&self.bound_to());
        Secret::new(format!("{PREFIX}{said}.{proof}").into_bytes())
    }

    /// What a text says, if it proves it.
    pub(crate) fn of(text: &Secret, sealer: &dyn Sealer) -> Option<Self> {
        let (said, proof) = text.expose_str()?.strip_prefix(PREFIX)?.split_once('.')?;
        let said = String::from_utf8(URL_SAFE_NO_PAD.decode(said).ok()?).ok()?;
        let mut parts = said.split('\n');
        let claim = Self {
            app: AppId::parse(parts.next()?).ok()?,
            user: UserId::parse(parts.next()?).ok()?,
            made_at: Timestamp(parts.next()?.parse().ok()?),
        };
        let whole = parts.next().is_none();
        (whole && sealer.proves(&claim.bound_to(), proof)).then_some(claim)
    }
}

#[cfg(test)]
mod tests {
    use hongyan_core::error::BoxError;

    use super::*;

    #[derive(Debug)]
    struct Plain;

    impl Sealer for Plain {
        fn proof(&self, bound_to: &str) -> String {
            URL_SAFE_NO_PAD.encode(bound_to)
        }
        fn proves(&self, bound_to: &str, proof: &str) -> bool {
            self.proof(bound_to) == proof
        }
        fn seal(&self, _: &str, secret: &[u8]) -> Result<Vec<u8>, BoxError> {
            Ok(secret.to_vec())
        }
        fn open(&self, _: &str, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
            Ok(sealed.to_vec())
        }
    }

    #[test]
    fn a_text_says_whose_it_is_and_when_it_was_made_and_nothing_else_does() {
        let claim = |user: &str, at: i64| Claim {
            app: AppId::parse("demo").unwrap(),
            user: UserId::parse(user).unwrap(),
            made_at: Timestamp(at),
        };
        let text = claim("u-1", 5).text(&Plain);
        assert_eq!(Claim::of(&text, &Plain), Some(claim("u-1", 5)));
        let text = text.expose_str().unwrap();
        let (_, proof) = text.split_once('.').unwrap();
        let younger = claim("u-1", 6).text(&Plain);
        let (said, _) = younger.expose_str().unwrap().split_once('.').unwrap();
        let with = |said: &str| format!("{PREFIX}{}.{proof}", URL_SAFE_NO_PAD.encode(said));
        for forged in [
            format!("{said}.{proof}"),
            with("demo\nu-2\n5"),
            with("demo\nu-1"),
            with("demo\nu-1\n5\n"),
            with("demo\nu-1\n05"),
            format!("{text}x"),
            text.replacen('.', "", 1),
            text[1..].to_owned(),
            String::new(),
        ] {
            // The same moment in other words proves nothing new.
            let read = Claim::of(&Secret::new(forged.clone()), &Plain);
            assert!(read.is_none() || read == Some(claim("u-1", 5)), "{forged}");
        }
    }
}
