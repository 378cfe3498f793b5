//! Schemas of words and ids, made of what the core knows.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use hongyan_core::app::{KeyKind, QuotaOverflow, Scope};
use hongyan_core::device::{Environment, Permission, Platform};
use hongyan_core::message::{ClickGuard, DeliveryMode, DeviceChoice, Priority};
use hongyan_core::session::AppState;
use hongyan_core::{Class, ClassDetail, Reason, Stage};

fn words<T: Serialize>(all: &[T]) -> Schema {
    let words: Vec<_> = all
        .iter()
        .filter_map(|one| serde_json::to_value(one).ok())
        .collect();
    json_schema!({"type": "string", "enum": words})
}

fn or_null(mut schema: Schema) -> Schema {
    schema.insert("type".to_owned(), serde_json::json!(["string", "null"]));
    if let Some(serde_json::Value::Array(words)) = schema.get_mut("enum") {
        words.push(serde_json::Value::Null);
    }
    schema
}

macro_rules! word_schemas {
    ($($name:ident: $all:expr;)*) => {$(
        pub(crate) fn $name(_: &mut SchemaGenerator) -> Schema { words(&$all) }
    )*};
}

macro_rules! words_or_null {
    ($($name:ident: $all:expr;)*) => {$(
        pub(crate) fn $name(_: &mut SchemaGenerator) -> Schema { or_null(words(&$all)) }
    )*};
}

const PLATFORMS: [Platform; 6] = [
    Platform::Ios,
    Platform::Android,
    Platform::Harmony,
    Platform::Web,
    Platform::Desktop,
    Platform::Iot,
];
const PERMISSIONS: [Permission; 4] = [
    Permission::Granted,
    Permission::Denied,
    Permission::NotDetermined,
    Permission::Provisional,
];
const CLASS_DETAILS: [ClassDetail; 8] = [
    ClassDetail::Order,
    ClassDetail::Account,
    ClassDetail::Finance,
    ClassDetail::Schedule,
    ClassDetail::Device,
    ClassDetail::Work,
    ClassDetail::Travel,
    ClassDetail::Health,
];
const DELIVERY_MODES: [DeliveryMode; 4] = [
    DeliveryMode::OnlineFirst,
    DeliveryMode::OnlineOnly,
    DeliveryMode::OfflineOnly,
    DeliveryMode::Both,
];

word_schemas! {
    class: Class::ALL;
    platform: PLATFORMS;
    permission: PERMISSIONS;
    delivery: DELIVERY_MODES;
    device_choice: [DeviceChoice::All, DeviceChoice::Latest, DeviceChoice::FirstAck];
    click_guard: [ClickGuard::Owner, ClickGuard::Anyone];
    stage: Stage::ALL;
    reason: Reason::ALL;
    quota_overflow: [QuotaOverflow::Hold, QuotaOverflow::Spill];
    key_kind: [KeyKind::Admin, KeyKind::Server, KeyKind::Client];
}

words_or_null! {
    maybe_class: Class::ALL;
    maybe_class_detail: CLASS_DETAILS;
    maybe_platform: PLATFORMS;
    maybe_permission: PERMISSIONS;
    maybe_environment: [Environment::Production, Environment::Sandbox];
    maybe_priority: [Priority::High, Priority::Normal];
    maybe_app_state: [AppState::Foreground, AppState::Background];
    maybe_reason: Reason::ALL;
}

pub(crate) fn scopes(_: &mut SchemaGenerator) -> Schema {
    let items = words(&[Scope::Send, Scope::Read, Scope::Manage]);
    json_schema!({"type": "array", "items": items, "uniqueItems": true})
}

pub(crate) fn classes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": words(&Class::ALL)})
}

/// Classes, or nothing at all.
pub(crate) fn quiet_classes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "items": words(&Class::ALL),
        "default": ["im", "subscription", "marketing"]
    })
}
