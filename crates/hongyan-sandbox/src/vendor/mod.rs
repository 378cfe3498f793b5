//! The simulators. Each is one pure-looking function from a request to a reply, written from the
//! vendor's documents; what they share is only the routing and the faults.

pub(crate) mod acs;
pub(crate) mod aliyun;
pub(crate) mod aliyun_sms;
pub(crate) mod apns;
pub(crate) mod counted;
pub(crate) mod fcm;
pub(crate) mod getui;
pub(crate) mod harmony;
pub(crate) mod honor;
pub(crate) mod huawei;
pub(crate) mod jpush;
pub(crate) mod meizu;
pub(crate) mod oauth;
pub(crate) mod oppo;
pub(crate) mod smpp;
pub(crate) mod sms;
pub(crate) mod tencent_sms;
pub(crate) mod tpns;
pub(crate) mod twilio;
pub(crate) mod umeng;
pub(crate) mod vivo;
pub(crate) mod webpush;
pub(crate) mod xiaomi;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::Dice;
use crate::exchange::{Act, Call, Connection, Reply};
use crate::faults::{Endpoint, Fault, FaultKind};
use crate::limits;
use crate::push::{Fate, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::world::World;

/// One simulated vendor. It keeps its account and its state itself; what all of them share is in [`World`].
pub(crate) trait Simulator: Send + Sync + fmt::Debug {
    /// Which vendor it is.
    fn channel(&self) -> Channel;

    /// Whether a request is for this vendor, by its path or headers, and for which part of its service. All vendors share
    /// one address; the first that claims a request has it.
    fn claims(&self, call: &Call) -> Option<Endpoint>;

    /// Answers a request as the vendor would.
    fn handle(&self, world: &World, connection: &Connection, call: &Call) -> Reply;

    /// The vendor's own answer on a bad day: `unavailable`, `rate_limited`, `quota_exhausted`, `token_invalid` or
    /// `auth_expired`. The other faults happen below HTTP.
    fn fault(&self, world: &World, call: &Call, kind: FaultKind) -> Reply;

    /// A new device token in the vendor's shape. `unique` is 32 hex digits that no other token has.
    fn new_token(&self, unique: &str, dice: &Dice) -> String;

    /// The configuration of hongyan's credential, as a person would copy it from the vendor's console.
    fn credential(&self, accounts: &Accounts) -> Value;

    /// Channel and name of that credential in hongyan: several providers share the channel `sms`.
    fn place(&self) -> (&'static str, &'static str) {
        (self.channel().as_str(), "default")
    }

    /// What the vendor posts to the sender about a push. `console` is the address that was entered in its console.
    fn receipt(
        &self,
        _receipt: &Receipt,
        _fate: Fate,
        _now_ms: i64,
        _console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        None
    }

    /// Sets what depends on the app's standing with the vendor, in the vendor's own words; see the vendor's file.
    fn set_rules(&self, _rules: &Value) -> Result<(), String> {
        Err("this vendor has no rules that can be set".to_owned())
    }
}

/// Every simulated vendor, shared by all who ask one of them.
#[derive(Debug, Clone)]
pub(crate) struct Simulators(Arc<[Box<dyn Simulator>]>, Arc<smpp::Smsc>);

impl Simulators {
    /// All of them. A vendor whose account is not in `accounts` yet makes it there.
    /// `address` is where all of them listen, but the message centre, which has `smpp`.
    pub(crate) fn open(
        accounts: &mut Accounts,
        address: SocketAddr,
        smpp: SocketAddr,
        dice: &Dice,
    ) -> Self {
        let smsc = Arc::new(smpp::Smsc::open(accounts, smpp, dice));
        let all: Vec<Box<dyn Simulator>> = vec![
            Box::new(apns::Apns),
            Box::new(fcm::Fcm),
            Box::new(huawei::Huawei),
            Box::new(harmony::Harmony),
            Box::new(xiaomi::Xiaomi::default()),
            Box::new(oppo::Oppo::open(accounts, dice)),
            Box::new(vivo::Vivo::open(accounts, dice)),
            Box::new(honor::Honor::open(accounts, dice)),
            Box::new(meizu::Meizu::open(accounts, dice)),
            Box::new(webpush::Webpush::open(accounts, address)),
            Box::new(jpush::Jpush::open(accounts, dice)),
            Box::new(getui::Getui::open(accounts, dice)),
            Box::new(umeng::Umeng::open(accounts, dice)),
            Box::new(tpns::Tpns::open(accounts, dice)),
            Box::new(aliyun::Aliyun::open(accounts, dice)),
            Box::new(aliyun_sms::AliyunSms::open(accounts, dice)),
            Box::new(tencent_sms::TencentSms::open(accounts, dice)),
            Box::new(twilio::Twilio::open(accounts, dice)),
            Box::new(smpp::Smpp(Arc::clone(&smsc))),
        ];
        Self(all.into(), smsc)
    }

    /// The message centre, which has a listener of its own.
    pub(crate) fn smsc(&self) -> &Arc<smpp::Smsc> {
        &self.1
    }

    /// The vendor of a channel.
    pub(crate) fn of(&self, channel: Channel) -> Option<&dyn Simulator> {
        self.iter().find(|vendor| vendor.channel() == channel)
    }

    /// The vendors.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &dyn Simulator> {
        self.0.iter().map(Box::as_ref)
    }

    fn owner(&self, call: &Call) -> Option<(&dyn Simulator, Endpoint)> {
        self.iter()
            .find_map(|vendor| Some((vendor, vendor.claims(call)?)))
    }
}

/// Answers one request as the vendor whose path it uses would.
pub(crate) async fn serve(world: &World, connection: &Connection, call: &Call) -> Act {
    let arrived_ms = world.clock.now_ms();
    let Some((vendor, endpoint)) = world.simulators.owner(call) else {
        let body = json!({"error": "no simulated vendor has this path", "path": call.path});
        return Act::Answer(Reply::json(404, &body, "refused no such path"));
    };
    let channel = vendor.channel();
    let fault = world
        .faults
        .strike(channel, endpoint, &world.dice, |token| {
            names_token(call, token)
        });
    if let Some(fault) = &fault
        && fault.kind == FaultKind::Slow
    {
        let delay = fault
            .delay_ms
            .unwrap_or(limits::SLOW_MS_DEFAULT)
            .min(limits::SLOW_MS_MAX);
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let (act, verdict, status) = act(world, connection, call, vendor, fault.as_ref());
    world
        .requests
        .add(channel, arrived_ms, call, &verdict, status);
    act
}

fn act(
    world: &World,
    connection: &Connection,
    call: &Call,
    vendor: &dyn Simulator,
    fault: Option<&Fault>,
) -> (Act, String, u16) {
    let answer = |reply: Reply| {
        let verdict = reply.verdict.clone();
        let status = reply.status;
        (Act::Answer(reply), verdict, status)
    };
    let Some(fault) = fault else {
        if vendor.channel() == Channel::Apns && !connection.http2 {
            return (
                Act::Reset,
                "refused HTTP/1.1; APNs speaks HTTP/2 only".to_owned(),
                0,
            );
        }
        return answer(vendor.handle(world, connection, call));
    };
    match fault.kind {
        FaultKind::Goaway if connection.http2 => (Act::GoAway, "fault goaway".to_owned(), 0),
        // What HTTP/1.1 has for it (RFC 9112, 9.6): the last answer says that it is the last.
        FaultKind::Goaway => {
            let mut reply = vendor
                .handle(world, connection, call)
                .with("connection", "close");
            reply.verdict = format!("fault goaway, after {}", reply.verdict);
            answer(reply)
        }
        FaultKind::Slow => {
            let mut reply = vendor.handle(world, connection, call);
            reply.verdict = format!("fault slow, then {}", reply.verdict);
            answer(reply)
        }
        FaultKind::Reset => {
            let reply = vendor.handle(world, connection, call);
            (
                Act::Reset,
                format!("fault reset, after {}", reply.verdict),
                0,
            )
        }
        FaultKind::Malformed => {
            let mut reply = vendor.handle(world, connection, call);
            reply.body = Bytes::from_static(b"<html><body>upstream {\"res");
            reply.verdict = format!("fault malformed, after {}", reply.verdict);
            answer(reply)
        }
        FaultKind::Unavailable
        | FaultKind::RateLimited
        | FaultKind::QuotaExhausted
        | FaultKind::TokenInvalid
        | FaultKind::AuthExpired => {
            let mut reply = vendor.fault(world, call, fault.kind);
            reply.verdict = format!("fault {}", reply.verdict);
            answer(reply)
        }
    }
}

fn names_token(call: &Call, token: &str) -> bool {
    if let Some(endpoint) = endpoint_of(token) {
        let query = if call.query.is_empty() { "" } else { "?" };
        let asked = [&call.path, query, &call.query].concat();
        let tail = endpoint.strip_suffix(&asked);
        // What is left is the origin: a scheme and an authority, nothing of a path.
        return tail.is_some_and(|origin| origin.matches('/').count() == 2);
    }
    call.path.ends_with(token)
        || String::from_utf8_lossy(&call.body).contains(token)
        || call.form().iter().any(|(_, value)| value.contains(token))
}

/// Where a browser's subscription is to be sent to. Some services tell subscriptions apart by the query alone.
fn endpoint_of(token: &str) -> Option<String> {
    let subscription: Value = serde_json::from_str(token).ok()?;
    Some(subscription.get("endpoint")?.as_str()?.to_owned())
}

/// The parts of a path.
fn segments(call: &Call) -> Vec<&str> {
    call.path.trim_start_matches('/').split('/').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_one_subscription_that_it_is_for() {
        let paths = [
            "/wpush/v2/0a",
            "/wp/1a",
            "/apple/2a",
            "/w/?token=3a",
            "/w/?token=7a",
        ];
        for (n, to) in paths.iter().enumerate() {
            let (path, query) = to.split_once('?').unwrap_or((to, ""));
            let call = Call {
                path: path.to_owned(),
                query: query.to_owned(),
                ..Call::default()
            };
            for (of, path) in paths.iter().enumerate() {
                let endpoint = format!("https://127.0.0.1:7501{path}");
                let token = json!({"endpoint": endpoint}).to_string();
                assert_eq!(names_token(&call, &token), n == of, "{to} {path}");
            }
        }
    }

    #[test]
    fn paths_belong_to_one_vendor() {
        let address = SocketAddr::from(([127, 0, 0, 1], 7501));
        let mut accounts = Accounts::default();
        let vendors = Simulators::open(&mut accounts, address, address, &Dice::new(1));
        let check = |path: &str, want: Option<Channel>| {
            let call = Call {
                path: path.to_owned(),
                ..Call::default()
            };
            let claims = vendors.iter().filter(|v| v.claims(&call).is_some());
            let got: Vec<Channel> = claims.map(|v| v.channel()).collect();
            assert_eq!(got, Vec::from_iter(want), "{path}");
        };
        check("/3/device/abcd", Some(Channel::Apns));
        check("/4/broadcasts/apps/com.example", Some(Channel::Apns));
        check("/1/apps/com.example/channels", Some(Channel::Apns));
        check("/token", Some(Channel::Fcm));
        check("/v1/projects/p/messages:send", Some(Channel::Fcm));
        check("/oauth2/v3/token", Some(Channel::Huawei));
        check("/v1/10001/messages:send", Some(Channel::Huawei));
        check("/v2/10001/messages:send", Some(Channel::Huawei));
        check("/v1/10001/topic:list", Some(Channel::Huawei));
        check("/v3/10001/messages:send", Some(Channel::Harmony));
        check("/v1/10001/messages:revoke", Some(Channel::Harmony));
        check("/v3/message/regid", Some(Channel::Xiaomi));
        check("/v2/multi_messages/regids", Some(Channel::Xiaomi));
        check("/v1/feedback/fetch_invalid_regids", Some(Channel::Xiaomi));
        check("/server/v1/auth", Some(Channel::Oppo));
        check(
            "/server/v1/message/notification/unicast",
            Some(Channel::Oppo),
        );
        check(
            "/server/v1/feedback/fetch_invalid_regidList",
            Some(Channel::Oppo),
        );
        check("/message/auth", Some(Channel::Vivo));
        check("/message/pushToList", Some(Channel::Vivo));
        check("/invalidUser/check", Some(Channel::Vivo));
        check(
            "/garcia/api/server/push/varnished/pushByPushId",
            Some(Channel::Meizu),
        );
        check("/auth/token", Some(Channel::Honor));
        check(
            "/auth/realms/developer/protocol/openid-connect/token",
            Some(Channel::Honor),
        );
        check("/api/v1/104/sendMessage", Some(Channel::Honor));
        check("/v3/push/app", Some(Channel::Tpns));
        check(
            "/2010-04-01/Accounts/AC1/Messages.json",
            Some(Channel::Twilio),
        );
        check("/", None);
        check("/v1/nothing", None);
    }
}
