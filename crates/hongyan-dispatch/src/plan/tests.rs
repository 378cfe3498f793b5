//! What the planner decides, one row for each situation.

use hongyan_core::app::AppPolicy;
use hongyan_core::delivery::{Decision, Delivery};
use hongyan_core::device::{Device, Permission, Platform, Token, TokenState};
use hongyan_core::draft::Draft;
use hongyan_core::message::{ChannelOptions, DeliveryMode, Notification, Options, Target};
use hongyan_core::port::SessionInfo;
use hongyan_core::user::{Preferences, QuietHours};
use hongyan_core::{
    AppId, ChannelId, Class, CredentialName, DeviceId, Message, MessageId, Reason, SessionId,
    Timestamp, User, UserId,
};
use proptest::prelude::*;

use super::*;

/// 2026-03-01 12:00 UTC.
const NOON: Timestamp = Timestamp(1_772_366_400_000);

struct World {
    message: Message,
    delivery: Option<Delivery>,
    device: Option<Device>,
    user: Option<User>,
    policy: AppPolicy,
    credentials: CredentialIndex,
    session: Option<SessionInfo>,
    recalled: Option<Timestamp>,
    now: Timestamp,
}

fn channel(name: &str) -> ChannelId {
    ChannelId::parse(name).unwrap()
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn token(name: &str) -> Token {
    Token {
        channel: channel(name),
        token: "t".into(),
        credential: None,
        environment: None,
        state: TokenState::Active,
        paused: false,
        updated_at: NOON,
    }
}

fn world() -> World {
    let app = AppId::parse("a").unwrap();
    let device = Device {
        app: app.clone(),
        id: DeviceId::parse("d1").unwrap(),
        package: None,
        platform: Platform::Android,
        brand: None,
        model: None,
        locale: None,
        timezone: None,
        app_version: None,
        permission: Permission::Granted,
        tags: Default::default(),
        tokens: vec![token("huawei"), token("fcm")],
        user: Some(user("u1")),
        binding: 1,
        secret_hash: [0; 32],
        scram: None,
        created_at: NOON,
        last_seen: NOON,
        version: 1,
    };
    let message = Draft {
        to: Target::Users(vec![user("u1")]),
        class: Class::Marketing,
        class_detail: None,
        notification: Some(Notification {
            title: "t".into(),
            body: "b".into(),
            ..Default::default()
        }),
        data: None,
        options: Options::default(),
    }
    .into_message(app.clone(), MessageId(uuid::Uuid::nil()), NOON);
    let mut credentials = CredentialIndex::default();
    for name in ["huawei", "fcm", "apns"] {
        credentials.add(channel(name), CredentialName::parse("default").unwrap());
    }
    World {
        message,
        delivery: None,
        device: Some(device),
        user: None,
        policy: AppPolicy::default(),
        credentials,
        session: None,
        recalled: None,
        now: NOON,
    }
}

impl World {
    fn device(&mut self) -> &mut Device {
        self.device.as_mut().unwrap()
    }
    fn online(&mut self) {
        self.session = Some(SessionInfo {
            session: SessionId(1),
            state: Default::default(),
            since: NOON,
            protocol: "websocket",
        });
    }
    fn tried(&mut self) -> &mut Delivery {
        let fresh = Delivery::new(&self.message, self.device.as_ref().unwrap(), true);
        self.delivery.get_or_insert(fresh)
    }
    fn preferences(&mut self, preferences: Preferences) {
        self.user = Some(User {
            app: AppId::parse("a").unwrap(),
            id: user("u1"),
            attributes: Default::default(),
            preferences,
            created_at: NOON,
            version: 1,
        });
    }
    fn decide(mut self) -> String {
        let planned = world().device;
        let delivery = self
            .delivery
            .take()
            .unwrap_or_else(|| Delivery::new(&self.message, planned.as_ref().unwrap(), true));
        let order = ["apns", "huawei", "fcm"].map(channel);
        let decision = plan(&Situation {
            message: &self.message,
            delivery: &delivery,
            device: self.device.as_ref(),
            user: self.user.as_ref(),
            policy: &self.policy,
            credentials: &self.credentials,
            built_in_order: &order,

            scores: &Scores::default(),
            session: self.session.as_ref(),
            recalled: self.recalled,
            now: self.now,
        });
        let after = |t: Timestamp| t.since(self.now).as_secs();
        match decision {
            Decision::Online { until } => format!("online {}s", after(until)),
            Decision::Push { channel, .. } => format!("push {channel}"),
            Decision::Hold { until, reason } => format!("hold {reason} {}s", after(until)),
            Decision::End(reason) => format!("end {reason}"),
        }
    }
}

fn check(want: &str, change: impl FnOnce(&mut World)) {
    let mut world = world();
    change(&mut world);
    assert_eq!(world.decide(), want);
}

fn mode(w: &mut World, mode: DeliveryMode) {
    w.message.options.delivery = mode;
}

#[test]
fn without_a_session_the_first_channel_in_order_is_taken() {
    check("push huawei", |_| {});
    check("push fcm", |w| {
        w.policy.channel_order = vec![channel("fcm")]
    });
    check("push fcm", |w| {
        w.message.options.channels.order = vec![channel("fcm")]
    });
    check("end no_channel", |w| {
        w.message.options.channels.order = vec![channel("apns")]
    });
    check("push fcm", |w| w.tried().tried = vec![channel("huawei")]);
    check("push oppo", |w| {
        w.device().tokens = vec![token("oppo")];
        w.credentials
            .add(channel("oppo"), CredentialName::parse("only").unwrap());
    });
}

#[test]
fn why_there_is_no_channel_is_said() {
    check("end no_channel", |w| w.device().tokens.clear());
    check("end no_credential", |w| {
        w.credentials = CredentialIndex::default()
    });
    check("end no_credential", |w| {
        for t in &mut w.device().tokens {
            t.credential = Some(CredentialName::parse("other").unwrap());
        }
    });
    check("end token_invalid", |w| {
        for t in &mut w.device().tokens {
            t.state = TokenState::Dead {
                reason: Reason::TokenInvalid,
                at: NOON,
            };
        }
    });
    check("end permission_off", |w| {
        for t in &mut w.device().tokens {
            t.paused = true;
        }
    });
    check("end payload_too_large", |w| {
        let d = w.tried();
        d.tried = vec![channel("huawei"), channel("fcm")];
        d.last_failure = Some(Reason::PayloadTooLarge);
    });
}

#[test]
fn where_no_other_way_is_left_it_waits_for_one_whose_quota_was_used_up() {
    let spilled = |w: &mut World, after: i64| {
        let d = w.tried();
        d.tried = vec![channel("huawei")];
        d.opens = Some((channel("huawei"), Timestamp(NOON.millis() + after * 1000)));
        d.last_failure = Some(Reason::QuotaExhausted);
    };
    let failed = |w: &mut World| {
        w.tried().tried.push(channel("fcm"));
        w.tried().last_failure = Some(Reason::TokenInvalid);
    };
    check("push fcm", |w| spilled(w, 3600));
    check("hold quota_exhausted 3600s", |w| {
        spilled(w, 3600);
        failed(w);
    });
    // Unless it ends before, or that one can no longer be used.
    check("end token_invalid", |w| {
        spilled(w, 86_400);
        failed(w);
    });
    check("end token_invalid", |w| {
        spilled(w, 3600);
        failed(w);
        w.device().tokens[0].paused = true;
    });
    check("hold quota_exhausted 3600s", |w| {
        spilled(w, 3600);
        failed(w);
        w.message.options.push.force = true;
    });
}

#[test]
fn a_session_comes_first_and_has_its_time() {
    check("online 5s", World::online);
    check("online 1s", |w| {
        w.online();
        w.message.options.ack_timeout_ms = Some(1_000);
    });
    check("push huawei", |w| {
        w.online();
        w.tried().online_tried = true;
    });
    // Nothing to fall back to: the session may take all the time there is.
    check("online 86400s", |w| {
        w.online();
        w.device().tokens.clear();
    });
}

#[test]
fn modes_choose_the_ways() {
    check("hold waiting_for_session 86400s", |w| {
        mode(w, DeliveryMode::OnlineOnly)
    });
    check("online 86400s", |w| {
        w.online();
        mode(w, DeliveryMode::OnlineOnly);
    });
    check("push huawei", |w| {
        w.online();
        mode(w, DeliveryMode::OfflineOnly);
    });
    check("push huawei", |w| {
        w.online();
        mode(w, DeliveryMode::Both);
    });
    check("online 86400s", |w| {
        w.online();
        w.device().tokens.clear();
        mode(w, DeliveryMode::Both);
    });
    // The push is not wanted: the connection has its time, as it would have alone.
    check("online 5s", |w| {
        w.online();
        w.device().permission = Permission::Denied;
        mode(w, DeliveryMode::Both);
    });
    check("end permission_off", |w| {
        w.online();
        w.device().permission = Permission::Denied;
        mode(w, DeliveryMode::Both);
        w.tried().online_tried = true;
    });
    check("hold waiting_for_session 86400s", |w| {
        w.message.options.push.enabled = false
    });
    check("hold scheduled 60s", |w| {
        w.message.options.send_at = Some(NOON.plus(Duration::from_secs(60)));
    });
}

#[test]
fn what_the_person_wants_is_kept() {
    check("end permission_off", |w| {
        w.device().permission = Permission::Denied
    });
    check("push huawei", |w| {
        // Data alone disturbs nobody.
        w.device().permission = Permission::Denied;
        w.message.notification = None;
    });
    check("end preference_muted", |w| {
        w.preferences(Preferences {
            muted_classes: vec![Class::Marketing],
            ..Default::default()
        });
    });
    let noon_rest = |classes: Vec<Class>| Preferences {
        quiet_hours: Some(QuietHours {
            start: "11:00".into(),
            end: "13:00".into(),
            classes,
        }),
        ..Default::default()
    };
    check("hold quiet_hours 3600s", |w| {
        w.preferences(noon_rest(Class::ALL.to_vec()))
    });
    check("push huawei", |w| w.preferences(noon_rest(vec![Class::Im])));
    check("end quiet_hours", |w| {
        w.message.expires_at = NOON.plus(Duration::from_secs(60));
        w.preferences(noon_rest(Class::ALL.to_vec()));
    });
    check("online 5s", |w| {
        w.online();
        w.preferences(noon_rest(Class::ALL.to_vec()));
    });
    // A mention or a call comes through what the person set for this class, never through the system's switch.
    check("push huawei", |w| {
        w.message.options.push.force = true;
        w.preferences(Preferences {
            muted_classes: vec![Class::Marketing],
            ..noon_rest(Class::ALL.to_vec())
        });
    });
    check("end permission_off", |w| {
        w.message.options.push.force = true;
        w.device().permission = Permission::Denied;
    });
}

#[test]
fn nothing_goes_to_whom_it_was_not_meant_for() {
    check("end user_logged_out", |w| w.device().user = None);
    check("end user_logged_out", |w| {
        w.device().user = Some(user("u2"))
    });
    // A out, B in, A in again: another binding, another person for all that is known.
    check("end user_logged_out", |w| w.device().binding = 3);
    check("end device_deleted", |w| w.device = None);
    check("end recalled", |w| w.recalled = Some(NOON));
    check("end expired", |w| w.now = w.message.expires_at);
}

proptest! {
    /// Whatever else holds, a device that another user holds is never given the message.
    #[test]
    fn the_planner_never_leaks_a_user(
        online: bool, tried: bool, mode_no in 0usize..4, holder in 0u8..3, binding in 0u64..3,
        permission: bool, fallback: bool, late in 0i64..200_000_000,
    ) {
        let mut w = world();
        if online { w.online(); }
        w.tried().online_tried = tried;
        w.message.options.delivery = [
            DeliveryMode::OnlineFirst, DeliveryMode::OnlineOnly, DeliveryMode::OfflineOnly, DeliveryMode::Both,
        ][mode_no];
        w.message.options.channels = ChannelOptions { order: vec![], fallback, fallback_after_ms: None };
        w.now = Timestamp(NOON.millis() + late);
        let device = w.device();
        device.user = match holder { 0 => None, 1 => Some(user("u1")), _ => Some(user("u2")) };
        device.binding = binding;
        if !permission { device.permission = Permission::Denied; }
        let foreign = holder != 1 || binding != 1;
        let decided = w.decide();
        if foreign {
            prop_assert_eq!(decided, "end user_logged_out");
        } else if late >= 86_400_000 {
            prop_assert_eq!(decided, "end expired");
        }
    }
}
