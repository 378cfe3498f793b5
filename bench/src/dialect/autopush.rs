//! What a browser says to its push service, as far as a measurement needs it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::http::value_after;
use super::{MARK_LEN, contains, marks};

/// The channel that every browser here has.
pub const CHANNEL: &str = "5f0d2b3c-9a41-4d6e-8f27-1b8c6a7e9d10";
/// Characters of base64 in which a mark at the begin of the text is.
const MARKED: usize = (MARK_LEN + 1) / 3 * 4;

/// The first message.
pub(super) fn hello(uaid: &str) -> String {
    format!(r#"{{"messageType":"hello","use_webpush":true,"uaid":"{uaid}"}}"#)
}

/// Whether this answers the first message.
pub(super) fn is_hello(text: &[u8]) -> bool {
    contains(text, br#""messageType":"hello""#)
}

/// When a notification was sent, and its acknowledgement.
pub(super) fn notification(text: &[u8]) -> Option<(u64, String)> {
    let data = value_after(text, br#""data":""#)?.get(..MARKED)?;
    let sent = marks(&URL_SAFE_NO_PAD.decode(data).ok()?).next()?;
    let version = value_after(text, br#""version":""#)?;
    let ack = format!(
        r#"{{"messageType":"ack","updates":[{{"channelID":"{CHANNEL}","version":"{version}","code":100}}]}}"#
    );
    Some((sent, ack))
}

#[cfg(test)]
mod tests {
    use super::super::mark;
    use super::*;

    #[test]
    fn a_notification_tells_when_it_was_sent() {
        let data = URL_SAFE_NO_PAD.encode(format!("{:x<200}", mark(0xabc)));
        let text = format!(r#"{{"messageType":"notification","version":"v7","data":"{data}"}}"#);
        let (sent, ack) = notification(text.as_bytes()).unwrap();
        assert_eq!(sent, 0xabc);
        assert!(ack.contains(r#""version":"v7""#), "{ack}");
        assert!(notification(b"{}").is_none());
    }
}
