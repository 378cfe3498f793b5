//! Fills a store as an import and traffic would.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hongyan_core::app::{App, AppPolicy};
use hongyan_core::device::{Token, TokenState};
use hongyan_core::message::{Notification, Options, Target};
use hongyan_core::port::{InboxAppend, Owner, WriteSet};
use hongyan_core::{ChannelId, Class, Message, MessageId, Timestamp, UserId};
use hongyan_embedded::Embedded;

use super::memory::{app, device};

/// Devices of one import call, and messages of one commit.
const SLICE_LEN: u32 = 1_000;
/// Calls under way at once.
const CALLS: usize = 4;

fn slices(count: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
    (0..count)
        .step_by(SLICE_LEN as usize)
        .map(move |from| from..count.min(from + SLICE_LEN))
}

/// Imports devices with one vendor token each; devices per second.
///
/// # Errors
/// When the store refuses.
pub async fn devices(engine: &Embedded, count: u32) -> anyhow::Result<f64> {
    let registry = engine.registry();
    registry
        .put_app(
            App {
                id: app(),
                name: String::new(),
                policy: AppPolicy::default(),
                created_at: Timestamp(1),
                version: 1,
            },
            None,
        )
        .await?;
    let channel = ChannelId::parse("apns")?;
    let begin = Instant::now();
    stream::iter(slices(count))
        .map(|slice| {
            let devices = slice
                .filter_map(|number| {
                    let mut device = device(number)?;
                    device.tokens.push(Token {
                        channel: channel.clone(),
                        token: format!("{number:064x}"),
                        credential: None,
                        environment: None,
                        state: TokenState::Active,
                        paused: false,
                        updated_at: Timestamp(1),
                    });
                    Some(device)
                })
                .collect();
            registry.import_devices(devices)
        })
        .buffer_unordered(CALLS)
        .try_collect::<()>()
        .await?;
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

/// Puts messages into the inboxes of the devices' users; entries per second.
///
/// # Errors
/// When the store refuses.
pub async fn entries(engine: &Embedded, count: u32, users: u32) -> anyhow::Result<f64> {
    let commit = engine.commit();
    let expires_at = Timestamp(i64::try_from(crate::quiet::nanos() / 1_000_000)? + 7 * 86_400_000);
    let begin = Instant::now();
    stream::iter(slices(count))
        .map(|slice| {
            let commit = Arc::clone(&commit);
            async move {
                let mut set = WriteSet::default();
                for number in slice {
                    let to =
                        UserId::parse(&format!("u{}", number.wrapping_mul(7919) % users.max(1)))?;
                    let message = message(number, to.clone(), expires_at);
                    set.inbox.push(InboxAppend {
                        app: app(),
                        owner: Owner::User(to),
                        message: message.id,
                        expires_at,
                        push: None,
                    });
                    set.messages.push(Arc::new(message));
                }
                let done = commit.commit(vec![set]).await.pop();
                done.context("the store answered nothing")??;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(CALLS)
        .try_collect::<()>()
        .await?;
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

fn message(number: u32, to: UserId, expires_at: Timestamp) -> Message {
    let mut tail = [0; 10];
    tail[6..].copy_from_slice(&number.to_be_bytes());
    let id = uuid::Builder::from_unix_timestamp_millis(u64::from(number), &tail).into_uuid();
    Message {
        id: MessageId(id),
        app: app(),
        to: Target::Users(vec![to]),
        class: Class::Im,
        class_detail: None,
        notification: Some(Notification {
            body: "x".repeat(200),
            ..Notification::default()
        }),
        data: None,
        push: None,
        recalls: None,
        options: Options::default(),
        accepted_at: Timestamp(1),
        expires_at,
    }
}
