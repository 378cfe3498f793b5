//! A vendor that says what a test tells it to say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, DailyLimit, Earlier, OpenCredential, Outbound, Parcel,
    QuotaWord, RateCounts, Receipt, ReceiptKind, Recipient, Truncation, Vendor,
};
use hongyan_core::{
    ChannelId, Class, ClassDetail, DeviceId, Message, MessageId, Reason, Secret, Timestamp, Verdict,
};
use tokio::sync::Semaphore;

/// Longer titles are cut.
const TITLE_CHARS_MAX: usize = 100;

/// One recipient of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The message.
    pub message: MessageId,
    /// The device.
    pub device: DeviceId,
    /// Number of the call, from 0.
    pub call: usize,
}

/// A vendor with scripted answers; without a script it accepts everything.
#[derive(Debug, Clone)]
pub struct FakeVendor {
    id: ChannelId,
    capability: Capability,
    state: Arc<Mutex<State>>,
    /// Calls wait here; a test that takes the permits holds them up.
    gate: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Verdict>,
    always: Option<Verdict>,
    sent: Vec<Sent>,
    calls: usize,
    news: Vec<Receipt>,
    downgrades: Option<String>,
    panics: usize,
    begun: usize,
    withdrawn: Vec<(MessageId, DeviceId)>,
    limits: Vec<DailyLimit>,
    asked_limits: usize,
    earlier: Vec<Earlier>,
    refuses: Option<(Reason, String)>,
    public: Vec<(Class, Option<ClassDetail>)>,
    requests_max: Option<usize>,
    opened: usize,
    repeats: Option<bool>,
}

impl FakeVendor {
    /// A vendor of this name that takes `batch_len_max` tokens a call.
    ///
    /// # Panics
    /// When the name is not a channel id.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a test names its channels")]
    pub fn new(id: &str, batch_len_max: usize) -> Self {
        Self {
            id: ChannelId::parse(id).expect("a channel id"),
            capability: Capability {
                payload_bytes_max: 4096,
                batch_len_max,
                rate_per_s: 100_000,
                rate_counts: RateCounts::Requests,
                concurrency: 8,
                ttl_max: Duration::from_secs(86_400),
                recalls: true,
                receipts: true,
                poll_every: None,
                environments: false,
                repeatable: true,
                quota_word: QuotaWord::AskedAgain,
            },
            state: Arc::default(),
            gate: Arc::new(Semaphore::new(1 << 20)),
        }
    }

    /// The same, with sends that must not be made again when nobody knows what became of them.
    #[must_use]
    pub fn once_only(mut self) -> Self {
        self.capability.repeatable = false;
        self
    }

    /// The same, at a rate of its own.
    #[must_use]
    pub fn at_most(mut self, rate_per_s: u32, counts: RateCounts) -> Self {
        self.capability.rate_per_s = rate_per_s;
        self.capability.rate_counts = counts;
        self
    }

    /// The same, with a word on quotas of this kind.
    #[must_use]
    pub fn means_it(mut self, word: QuotaWord) -> Self {
        self.capability.quota_word = word;
        self
    }

    /// From now on this class goes out as public.
    pub fn sends_as_public(&self, class: Class) {
        self.lock().public.push((class, None));
    }

    /// From now on `transaction` goes out as public where it is of this kind.
    pub fn sends_detail_as_public(&self, detail: ClassDetail) {
        let kind = (Class::Transaction, Some(detail));
        self.lock().public.push(kind);
    }

    /// From now on each device takes a request of its own.
    pub fn one_by_one(&self) {
        self.lock().requests_max = Some(usize::MAX);
    }

    /// From now on a batch takes two requests, and one device one.
    pub fn in_two_steps(&self) {
        self.lock().requests_max = Some(2);
    }

    /// How often a credential of it was opened.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.lock().opened
    }

    /// Whether credentials opened from now on say that a send may be made again.
    pub fn may_repeat(&self, repeats: bool) {
        self.lock().repeats = Some(repeats);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next recipients get these verdicts, then everything is accepted again.
    pub fn script(&self, verdicts: impl IntoIterator<Item = Verdict>) {
        self.lock().script.extend(verdicts);
    }

    /// Every recipient gets this verdict until told otherwise.
    pub fn always(&self, verdict: Option<Verdict>) {
        self.lock().always = verdict;
    }

    /// The next calls panic, as a channel with a fault would.
    pub fn panic_next(&self, calls: usize) {
        self.lock().panics = calls;
    }

    /// Everything that was sent, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.lock().sent.clone()
    }

    /// What it answers to the next poll.
    pub fn news(&self, receipts: impl IntoIterator<Item = Receipt>) {
        self.lock().news.extend(receipts);
    }

    /// Why its channel takes no message at all, from now on.
    pub fn refuses(&self, why: Option<(Reason, &str)>) {
        self.lock().refuses = why.map(|(reason, words)| (reason, words.to_owned()));
    }

    /// Why it lets messages go out as a lower class, from now on: credentials stored later say that classes are limited.
    pub fn downgrades(&self, why: &str) {
        self.lock().downgrades = Some(why.to_owned());
    }

    /// The daily limits that it names.
    pub fn names_limits(&self, limits: impl IntoIterator<Item = DailyLimit>) {
        self.lock().limits = limits.into_iter().collect();
    }

    /// How often it was asked for its limits.
    #[must_use]
    pub fn asked_limits(&self) -> usize {
        self.lock().asked_limits
    }

    /// Calls that have begun, whether or not they wait at the gate.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.lock().begun
    }

    /// Everything that was taken back, in order.
    #[must_use]
    pub fn withdrawn(&self) -> Vec<(MessageId, DeviceId)> {
        self.lock().withdrawn.clone()
    }

    /// What it was told of pushes before its process began.
    #[must_use]
    pub fn earlier(&self) -> Vec<Earlier> {
        self.lock().earlier.clone()
    }

    /// Where calls wait.
    #[must_use]
    pub fn gate(&self) -> Arc<Semaphore> {
        Arc::clone(&self.gate)
    }
}

impl Vendor for FakeVendor {
    fn id(&self) -> ChannelId {
        self.id.clone()
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    /// A token `alpha-d1:east` leads to the vendor `east`.
    fn peer(&self, token: &str) -> Option<String> {
        token.split_once(':').map(|(_, peer)| peer.to_owned())
    }

    fn check_config(
        &self,
        config: &serde_json::Value,
    ) -> Result<serde_json::Map<String, serde_json::Value>, Vec<ConfigError>> {
        match config.get("secret") {
            Some(_) if self.lock().downgrades.is_some() => {
                let granted = ("granted".to_owned(), serde_json::json!([]));
                Ok(serde_json::Map::from_iter([granted]))
            }
            Some(_) => Ok(serde_json::Map::new()),
            None => Err(vec![ConfigError {
                path: "secret".into(),
                problem: "is missing".into(),
            }]),
        }
    }

    fn open(&self, _credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        self.lock().opened += 1;
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Channel for FakeVendor {
    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        if let Some(refused) = self.lock().refuses.clone() {
            return Err(refused);
        }
        let title = outbound.title.as_deref();
        let from = title.map_or(0, |t| t.chars().count());
        let cut = (from > TITLE_CHARS_MAX).then_some(Truncation {
            field: "title",
            from,
            to: TITLE_CHARS_MAX,
        });
        let title = title.map(|t| t.chars().take(TITLE_CHARS_MAX).collect::<String>());
        let body = serde_json::json!({
            "title": title,
            "body": outbound.body,
            "data": outbound.message.data,
        });
        let (bytes, most) = (body.to_string().len(), self.capability.payload_bytes_max);
        if bytes > most {
            let words = format!("{bytes} bytes of at most {most}");
            return Err((Reason::PayloadTooLarge, words));
        }
        Ok(Parcel {
            method: "POST",
            path: "/send".into(),
            headers: vec![],
            body,
            truncated: cut.into_iter().collect(),
            downgraded: self.lock().downgrades.clone(),
        })
    }

    #[allow(clippy::panic, reason = "a test asked for it")]
    async fn send(&self, batch: &Batch, _deadline: Duration) -> Vec<Verdict> {
        if let Err((reason, detail)) = self.preview(&batch.outbound) {
            return vec![Verdict::Refused { reason, detail }; batch.recipients.len()];
        }
        self.lock().begun += 1;
        let _permit = self.gate.acquire().await;
        let mut state = self.lock();
        let call = state.calls;
        state.calls += 1;
        if state.panics > 0 {
            state.panics -= 1;
            drop(state);
            panic!("as the test said");
        }
        batch
            .recipients
            .iter()
            .map(|r| {
                state.sent.push(Sent {
                    message: batch.outbound.message.id,
                    device: r.device.clone(),
                    call,
                });
                let scripted = state.script.pop_front().or_else(|| state.always.clone());
                scripted.unwrap_or(Verdict::Accepted {
                    vendor_id: Some("v1".into()),
                })
            })
            .collect()
    }

    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        let detail = detail.unwrap_or_default();
        let is_it = |(public, only): &(Class, Option<ClassDetail>)| {
            *public == class && only.is_none_or(|only| only == detail)
        };
        match self.lock().public.iter().any(is_it) {
            true => CountedAs::Marketing,
            false => CountedAs::of(class),
        }
    }

    /// A token `alpha-d1.own-east` leads to the vendor `east` of the credential's own.
    fn peer(&self, token: &str) -> Option<String> {
        token.split_once(".own-").map(|(_, peer)| peer.to_owned())
    }

    fn requests(&self, devices: usize) -> usize {
        devices.min(self.lock().requests_max.unwrap_or(1))
    }

    fn repeats(&self) -> Option<bool> {
        self.lock().repeats
    }

    fn remember(&self, earlier: &[Earlier]) {
        self.lock().earlier.extend_from_slice(earlier);
    }

    async fn check(&self, _deadline: Duration) -> CheckReport {
        CheckReport {
            ok: true,
            detail: "ready".into(),
        }
    }

    async fn recall(
        &self,
        message: &Message,
        recipients: &[Recipient],
        _deadline: Duration,
    ) -> Option<Vec<Verdict>> {
        let devices = recipients.iter().map(|r| (message.id, r.device.clone()));
        self.lock().withdrawn.extend(devices);
        Some(vec![
            Verdict::Accepted { vendor_id: None };
            recipients.len()
        ])
    }

    /// `{"token", "message"?, "vendor_id"?, "at"?, "detail"?, "kind": "delivered" | "token_invalid" | "permission_off" | "over_quota" (of the device) | "day_over" | "displayed" | "clicked"}`; the
    /// header `x-signed` is its signature, and `yes` the right one.
    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        let signed = match request.header("x-signed") {
            None => false,
            Some("yes") => true,
            Some(_) => return Some(Err(CallbackError::Signature("x-signed".to_owned()))),
        };
        let Ok(said) = serde_json::from_slice::<serde_json::Value>(request.body) else {
            let why = "not JSON".to_owned();
            return Some(Err(match signed {
                true => CallbackError::SignedMalformed(why),
                false => CallbackError::Malformed(why),
            }));
        };
        let text = |name: &str| said.get(name).and_then(serde_json::Value::as_str);
        let receipt = Receipt {
            kind: match text("kind") {
                Some("token_invalid") => ReceiptKind::TokenInvalid,
                Some("permission_off") => ReceiptKind::PermissionOff,
                Some("displayed") => ReceiptKind::Displayed,
                Some("clicked") => ReceiptKind::Clicked,
                Some("day_over") => ReceiptKind::OverQuota,
                Some("over_quota") => ReceiptKind::Failed(Reason::QuotaExhausted),
                _ => ReceiptKind::Delivered,
            },
            message: text("message").and_then(|id| MessageId::parse(id).ok()),
            vendor_id: text("vendor_id").map(str::to_owned),
            token: text("token").map(Secret::new),
            at: (said.get("at").and_then(serde_json::Value::as_i64)).map(Timestamp),
            detail: text("detail").unwrap_or_default().to_owned(),
        };
        Some(Ok(Callback {
            receipts: vec![receipt],
            signed,
            content_type: "application/json",
            body: r#"{"code":"0"}"#.to_owned(),
        }))
    }

    /// Tokens with `stale` in them are dead.
    async fn probe(&self, tokens: &[Secret], _deadline: Duration) -> Option<Vec<Verdict>> {
        let verdict = |token: &Secret| match token.expose_str() {
            Some(text) if text.contains("stale") => Verdict::TokenDead {
                reason: Reason::TokenInvalid,
                detail: "unknown".to_owned(),
                since: None,
            },
            _ => Verdict::Accepted { vendor_id: None },
        };
        Some(tokens.iter().map(verdict).collect())
    }

    async fn ask_limits(&self, _deadline: Duration) -> Result<(), ChannelError> {
        self.lock().asked_limits += 1;
        Ok(())
    }

    fn limits(&self) -> Vec<DailyLimit> {
        self.lock().limits.clone()
    }

    async fn poll(&self, _deadline: Duration) -> Result<Vec<Receipt>, ChannelError> {
        Ok(std::mem::take(&mut self.lock().news))
    }
}
