//! What is damaged in the store ends where everybody sees it, and holds up nothing else.

use hongyan_core::port::{CommitError, Job, JobKind, Owner, WriteSet};
use hongyan_core::{AppId, DeviceId, Event, MessageId, Reason, Stage, StoreError, UserId};

use crate::service::Ports;

/// Whose way ends here.
#[derive(Debug)]
pub(crate) struct Lost<'a> {
    pub(crate) app: &'a AppId,
    pub(crate) message: MessageId,
    pub(crate) device: Option<&'a DeviceId>,
    pub(crate) user: Option<&'a UserId>,
}

impl<'a> Lost<'a> {
    pub(crate) fn of(job: &'a Job) -> Self {
        let (device, user) = match &job.kind {
            JobKind::Deliver { device }
            | JobKind::Route {
                owner: Owner::Device(device),
            } => (Some(device), None),
            JobKind::Route {
                owner: Owner::User(user),
            } => (None, Some(user)),
            JobKind::Route {
                owner: Owner::Audience(_),
            }
            | JobKind::Broadcast { .. } => (None, None),
        };
        Self {
            app: &job.app,
            message: job.message,
            device,
            user,
        }
    }

    /// Ends it with an event and without its job. A record that is damaged itself stays where it is, for whoever repairs
    /// the store.
    ///
    /// # Errors
    /// [`StoreError`] when the end could not be written; damage alone is none.
    pub(crate) async fn bury(
        &self,
        ports: &Ports,
        job: hongyan_core::port::JobId,
        why: &StoreError,
    ) -> Result<(), StoreError> {
        tracing::error!(app = %self.app, message = %self.message, device = ?self.device, error = %why, source = ?std::error::Error::source(why), "a record is damaged; what depends on it ends");
        metrics::counter!("hongyan_dispatch_unreadable_total").increment(1);
        let told = WriteSet {
            events: vec![self.event(ports, why)],
            ..WriteSet::default()
        };
        let ended = WriteSet {
            jobs_done: vec![job],
            ..told.clone()
        };
        // The job's own record may be the damaged one: then there is only the news.
        for set in [ended, told] {
            match ports.commit.commit(vec![set]).await.pop() {
                Some(Err(CommitError::Store(StoreError::Corrupt { .. }))) => {}
                Some(Err(CommitError::Store(error))) => return Err(error),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn event(&self, ports: &Ports, why: &StoreError) -> Event {
        Event {
            seq: 0,
            at: ports.clock.now(),
            app: self.app.clone(),
            stage: Stage::Dropped,
            reason: Some(Reason::RecordUnreadable),
            message: Some(self.message),
            class: None,
            user: self.user.cloned(),
            device: self.device.cloned(),
            platform: None,
            channel: None,
            attempt: 0,
            until: None,
            took_ms: None,
            detail: Some(why.to_string()),
            r#final: true,
        }
    }
}

/// Whether nothing can come of it any more: the delivery or the message itself cannot be read, or its time is over.
/// Damage elsewhere (a device, the app) may be repaired in time.
pub(crate) async fn is_lost(
    ports: &Ports,
    app: &AppId,
    message: MessageId,
    device: Option<&DeviceId>,
) -> bool {
    let corrupt = |e: &StoreError| matches!(e, StoreError::Corrupt { .. });
    let body = match ports.inbox.message(app, message).await {
        Ok(body) => body,
        Err(error) => return corrupt(&error),
    };
    if body.is_none_or(|body| body.expires_at <= ports.clock.now()) {
        return true;
    }
    match device {
        Some(device) => {
            let key = [(message, device.clone())];
            let read = ports.ledger.deliveries(app, &key).await;
            read.is_err_and(|error| corrupt(&error))
        }
        None => false,
    }
}
