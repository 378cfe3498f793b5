//! The task of one phone: makes the server and the long connection follow the record.

use std::sync::Arc;
use std::time::Duration;

use super::Phones;
use super::link::{Connection, Device, News, Server};
use super::model::{Phone, ReportKind, Told};
use crate::channel::Channel;
use crate::error::SandboxError;
use crate::sandbox::stopped;

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// How long a wish for a connection waits for the connection to be up before it counts as done.
const UP_MAX: Duration = Duration::from_secs(5);

/// Attempts for one report before it is given up.
const REPORT_FAILURES_MAX: u32 = 5;

/// What the task holds.
#[derive(Default)]
struct Live {
    server: Option<Arc<dyn Server>>,
    device: Option<(String, Arc<dyn Device>)>,
    connection: Option<Box<dyn Connection>>,
    up: bool,
    foreground: bool,
    /// Whether the connection is there because a text woke the app.
    woken: bool,
    retry: Option<Duration>,
    /// How often the connection ended for good since it was last up.
    falls: u32,
    /// Wait before the next attempt after such an end.
    penalty: Option<Duration>,
    /// How often the oldest report failed.
    report_failures: u32,
    /// The wish that is not waited for any longer.
    given_up: u64,
}

/// Runs until the phone is gone or the sandbox stops.
pub(super) async fn run(phones: Phones, id: String) {
    let wake = match phones.lock().get(&id) {
        Some(slot) => Arc::clone(&slot.wake),
        None => return,
    };
    let mut server = phones.0.server.subscribe();
    let mut stop = phones.0.stop.clone();
    let mut live = Live::default();
    loop {
        if let Some(penalty) = live.penalty.take() {
            tokio::select! {
                () = tokio::time::sleep(penalty) => {}
                () = stopped(&mut stop) => {}
            }
        }
        let newest = server.borrow_and_update().clone();
        if !same(live.server.as_ref(), newest.as_ref()) {
            live.drop_connection(Drop::Close).await;
            live = Live {
                server: newest,
                ..Live::default()
            };
            let _ = phones.change(&id, |phone, _| {
                phone.told = None;
                phone.connected = false;
            });
        }
        let Ok(phone) = phones.read(&id, Phone::clone) else {
            return;
        };
        let outcome = live.follow(&phones, &phone).await;
        note(&phones, &phone, &outcome);
        live.retry = match outcome {
            Ok(()) => None,
            Err(_) => Some(
                live.retry
                    .map_or(RETRY_MIN, |wait| (wait * 2).min(RETRY_MAX)),
            ),
        };
        let now = phones.0.clock.now_ms();
        let (wanted, until) = phone.may_connect(now);
        // A wish for a connection is done once the connection is up.
        let rising = wanted && live.connection.is_some() && !live.up && live.given_up < phone.wish;
        if !rising {
            phones.settled(&id, phone.wish);
        }
        let until = until.map(|at| Duration::from_millis(u64::try_from(at - now).unwrap_or(0)));
        let pause = [live.retry, until, rising.then_some(UP_MAX)]
            .into_iter()
            .flatten()
            .min();
        tokio::select! {
            () = wake.notified() => {}
            _ = server.changed() => {}
            () = nap(pause) => {
                if rising {
                    // The connection is slow to come up; nobody has to wait for it any longer.
                    live.given_up = phone.wish;
                }
            }
            news = live.next() => live.take(&phones, &id, news),
            () = stopped(&mut stop) => {
                live.drop_connection(Drop::Close).await;
                return;
            }
        }
    }
}

enum Drop {
    Close,
    Kill,
}

impl Live {
    /// One pass: everything that differs between the record and the world, in order.
    async fn follow(&mut self, phones: &Phones, phone: &Phone) -> Result<(), SandboxError> {
        let (wanted, _) = phone.may_connect(phones.0.clock.now_ms());
        let alive = phone.installed && phone.network;
        let renewed = self
            .device
            .as_ref()
            .is_some_and(|(id, _)| *id != phone.device_id);
        if self.connection.is_some() && (!wanted || renewed) {
            let runs = phone.state != super::AppState::Killed || self.woken;
            let how = if alive && runs && !renewed {
                Drop::Close
            } else {
                Drop::Kill
            };
            self.drop_connection(how).await;
            let _ = phones.change(&phone.id, |phone, _| phone.connected = false);
        }
        if renewed {
            self.device = None;
        }
        let (true, Some(server)) = (alive, self.server.clone()) else {
            return Ok(());
        };

        let device = match &self.device {
            Some((_, device)) => Arc::clone(device),
            None => {
                let device = server.register(&phone.profile()).await?;
                let token = device.token();
                self.device = Some((phone.device_id.clone(), Arc::clone(&device)));
                let told = Told {
                    device_id: phone.device_id.clone(),
                    tokens: std::collections::BTreeMap::new(),
                    user: None,
                    permission: phone.permission,
                };
                phones.change(&phone.id, |phone, _| {
                    phone.told = Some(told);
                    phone.device_token = token.map(super::model::Kept);
                })?;
                phones.keep_now(&phone.id);
                device
            }
        };
        self.tell(phones, phone, &*device).await?;
        if phone.waking.unproven.is_some() {
            self.ask_for_key(phones, phone, &*device).await?;
        }

        let foreground = phone.state == super::AppState::Foreground;
        match &self.connection {
            None if wanted => {
                self.connection = Some(device.connect(foreground).await?);
                self.foreground = foreground;
                self.woken = phone.state == super::AppState::Killed;
                self.up = false;
            }
            Some(connection) if foreground != self.foreground => {
                connection.set_foreground(foreground).await;
                self.foreground = foreground;
                self.woken = false;
            }
            _ => {}
        }
        self.report(phones, &phone.id, &*device).await
    }

    /// Tells the server what changed since it was told last.
    async fn tell(
        &self,
        phones: &Phones,
        phone: &Phone,
        device: &dyn Device,
    ) -> Result<(), SandboxError> {
        let Some(told) = phones.read(&phone.id, |phone| phone.told.clone())? else {
            return Ok(());
        };
        if told.permission != phone.permission {
            device.set_permission(phone.permission).await?;
            phones.change(&phone.id, |record, _| {
                if let Some(told) = &mut record.told {
                    told.permission = phone.permission;
                }
            })?;
        }
        for (channel, token) in &phone.tokens {
            if told.tokens.get(channel) != Some(token) {
                let environment = (*channel == Channel::Apns).then_some("production");
                device
                    .put_token(channel.as_str(), token, environment)
                    .await?;
                if *channel == Channel::Sms {
                    self.ask_for_key(phones, phone, device).await?;
                }
                phones.change(&phone.id, |record, _| {
                    if let Some(told) = &mut record.told {
                        told.tokens.insert(*channel, token.clone());
                    }
                })?;
            }
        }
        if told.user.as_ref() != Some(&phone.user) {
            match &phone.user {
                Some(user) => device.login(user).await?,
                None => device.logout().await?,
            }
            phones.change(&phone.id, |record, _| {
                if let Some(told) = &mut record.told {
                    told.user = Some(phone.user.clone());
                }
            })?;
        }
        Ok(())
    }

    /// Gets the key with which the app tells true wake-ups from false ones.
    async fn ask_for_key(
        &self,
        phones: &Phones,
        phone: &Phone,
        device: &dyn Device,
    ) -> Result<(), SandboxError> {
        let key = device.wake_key().await?;
        // A code that waited for the key may wake the app: that is a wish like any other.
        let now = phones.0.clock.now_ms();
        phones.edit(&phone.id, |phone| {
            phone.learn_key(key, now);
            Ok(())
        })?;
        phones.keep_now(&phone.id);
        Ok(())
    }

    /// Sends the reports that wait, over the connection when it is up.
    async fn report(
        &mut self,
        phones: &Phones,
        id: &str,
        device: &dyn Device,
    ) -> Result<(), SandboxError> {
        while let Some((message, kind)) = phones.read(id, |phone| phone.reports.front().cloned())? {
            let reported = match &self.connection {
                Some(connection) if self.up => connection.report(&message, kind.into()).await,
                _ => device.report(&message, kind.into()).await,
            };
            // A server that refuses a report again and again will not take it later either.
            if let Err(error) = reported
                && self.report_failures < REPORT_FAILURES_MAX
            {
                self.report_failures += 1;
                return Err(error);
            }
            self.report_failures = 0;
            let sent: (String, ReportKind) = (message, kind);
            phones.change(id, |phone, _| {
                if phone.reports.front() == Some(&sent) {
                    phone.reports.pop_front();
                }
            })?;
        }
        Ok(())
    }

    async fn drop_connection(&mut self, how: Drop) {
        if let Some(connection) = self.connection.take() {
            match how {
                Drop::Close => connection.close().await,
                Drop::Kill => connection.kill().await,
            }
        }
        self.up = false;
    }

    async fn next(&mut self) -> Option<News> {
        match &mut self.connection {
            Some(connection) => connection.next().await,
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, phones: &Phones, id: &str, news: Option<News>) {
        let seen = matches!(news, Some(News::Message { .. }));
        // The phone may have been thrown away meanwhile; then there is nobody to tell.
        let _ = phones.change(id, |phone, now| match news {
            Some(News::Up) => {
                self.up = true;
                self.falls = 0;
                phone.connected = true;
                phone.trouble = None;
            }
            Some(News::Down) => {
                self.up = false;
                phone.connected = false;
            }
            Some(News::Message {
                id,
                title,
                body,
                visible,
                collapse,
            }) => {
                let notification = visible.then_some((title, body));
                phone.take_message(&id, notification, collapse, now);
            }
            Some(News::Recall { id }) => phone.recall(&id),
            None => {
                // The client gave up: taken over, blocked or deleted. Register anew.
                self.connection = None;
                self.device = None;
                self.up = false;
                let wait = RETRY_MIN * 2_u32.pow(self.falls.min(5));
                self.penalty = Some(wait.min(RETRY_MAX));
                self.falls = self.falls.saturating_add(1);
                phone.connected = false;
                phone.told = None;
            }
        });
        if seen {
            phones.keep_now(id);
        }
    }
}

/// Keeps what went wrong visible on the phone.
fn note(phones: &Phones, phone: &Phone, outcome: &Result<(), SandboxError>) {
    let trouble = outcome.as_ref().err().map(ToString::to_string);
    if phone.trouble != trouble {
        let _ = phones.change(&phone.id, |phone, _| phone.trouble = trouble);
    }
}

async fn nap(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

fn same(a: Option<&Arc<dyn Server>>, b: Option<&Arc<dyn Server>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
