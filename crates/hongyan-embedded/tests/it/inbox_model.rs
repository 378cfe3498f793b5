//! Random lives of an inbox against a model of it: what is read is what was appended, may be seen and
//! was not acked, in order of acceptance.

use std::sync::atomic::{AtomicU64, Ordering};

use hongyan_core::limits::INBOX_LEN_MAX;
use hongyan_core::message::Audience;
use hongyan_core::port::{Ack, Owner, Reader, WriteSet};
use hongyan_core::{AppId, MessageId};
use hongyan_embedded::Engine;
use hongyan_testkit::sample::*;
use hongyan_testkit::suite::Ports;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::subject::{Local, ports};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    User,
    OtherUser,
    Device,
    All,
    Topic,
}

#[derive(Debug, Clone)]
enum Step {
    /// So many entries.
    Append(List, usize),
    /// Everything up to the end of a page of so many.
    AckPage(usize),
    /// Some of what is there, by index.
    AckIds(Vec<usize>),
    Recall(usize),
    Subscribe,
    Unsubscribe,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let list = prop_oneof![
        Just(List::User),
        Just(List::OtherUser),
        Just(List::Device),
        Just(List::All),
        Just(List::Topic),
    ];
    let step = prop_oneof![
        6 => (list, prop_oneof![4 => 1usize..6, 1 => 60usize..130]).prop_map(|(l, n)| Step::Append(l, n)),
        3 => (0usize..20).prop_map(Step::AckPage),
        3 => prop::collection::vec(0usize..30, 1..6).prop_map(Step::AckIds),
        1 => (0usize..30).prop_map(Step::Recall),
        1 => Just(Step::Subscribe),
        1 => Just(Step::Unsubscribe),
    ];
    prop::collection::vec(step, 1..25)
}

#[derive(Debug)]
struct Line {
    id: MessageId,
    list: List,
    gone: bool,
}

/// What a correct inbox does.
#[derive(Debug, Default)]
struct Model {
    lines: Vec<Line>,
    /// Number of lines when the subscription began.
    subscribed: Option<usize>,
}

impl Model {
    fn visible(&self) -> Vec<MessageId> {
        let mut seen = Vec::new();
        for (i, line) in self.lines.iter().enumerate() {
            let newer = self.lines[i + 1..]
                .iter()
                .filter(|l| l.list == line.list)
                .count();
            let is_there = match line.list {
                List::User | List::Device => (newer as u64) < INBOX_LEN_MAX,
                List::OtherUser => false,
                List::All => true,
                List::Topic => self.subscribed.is_some_and(|since| i >= since),
            };
            if is_there && !line.gone {
                seen.push(line.id);
            }
        }
        seen
    }

    fn take_out(&mut self, ids: &[MessageId]) {
        for line in &mut self.lines {
            line.gone |= ids.contains(&line.id);
        }
    }
}

struct Life<'a> {
    ports: &'a Ports,
    app: AppId,
    reader: Reader,
    model: Model,
}

impl Life<'_> {
    async fn visible(&self, page_len: usize) -> Vec<MessageId> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self
                .ports
                .inbox
                .read(&self.reader, after, page_len, NOW)
                .await
                .unwrap();
            assert!(!page.reset);
            all.extend(page.entries.iter().map(|e| e.message.id));
            after = Some(page.next);
            if !page.more {
                assert_eq!(page.next, page.head);
                return all;
            }
        }
    }

    async fn step(&mut self, step: &Step) {
        let visible = self.model.visible();
        let pick = |i: &usize| visible.get(i % visible.len().max(1)).copied();
        match step {
            Step::Append(list, count) => self.append(*list, *count).await,
            Step::AckPage(limit) => {
                let page = self
                    .ports
                    .inbox
                    .read(&self.reader, None, *limit, NOW)
                    .await
                    .unwrap();
                let upto = Ack::Upto(page.next);
                let acked = self.ports.inbox.ack(&self.reader, upto, NOW).await.unwrap();
                assert_eq!(acked, visible[..visible.len().min(*limit)]);
                self.model.take_out(&acked);
            }
            Step::AckIds(which) => {
                let mut ids: Vec<_> = which.iter().filter_map(pick).collect();
                let asked = Ack::Ids(ids.clone());
                let acked = self
                    .ports
                    .inbox
                    .ack(&self.reader, asked, NOW)
                    .await
                    .unwrap();
                let mut known = Vec::new();
                ids.retain(|id| {
                    !known.contains(id) && {
                        known.push(*id);
                        true
                    }
                });
                assert_eq!(acked, ids);
                self.model.take_out(&ids);
            }
            Step::Recall(which) => {
                let recalled: Vec<_> = pick(which).into_iter().collect();
                let set = WriteSet {
                    recalled: recalled
                        .iter()
                        .map(|id| (self.app.clone(), *id, NOW))
                        .collect(),
                    ..WriteSet::default()
                };
                self.ports.commit.commit(vec![set]).await.remove(0).unwrap();
                self.model.take_out(&recalled);
            }
            Step::Subscribe => {
                let one = [device_id("d1")];
                self.ports
                    .registry
                    .subscribe(&self.app, &topic("t"), &one)
                    .await
                    .unwrap();
                let now = self.model.lines.len();
                self.model.subscribed.get_or_insert(now);
            }
            Step::Unsubscribe => {
                let one = [device_id("d1")];
                self.ports
                    .registry
                    .unsubscribe(&self.app, &topic("t"), &one)
                    .await
                    .unwrap();
                self.model.subscribed = None;
            }
        }
    }

    async fn append(&mut self, list: List, count: usize) {
        let owner = match list {
            List::User => user_list("u1"),
            List::OtherUser => user_list("u2"),
            List::Device => Owner::Device(device_id("d1")),
            List::All => Owner::Audience(Audience::All),
            List::Topic => Owner::Audience(Audience::Topic(topic("t"))),
        };
        let mut sets = Vec::new();
        for _ in 0..count {
            let mut message = message_to(self.model.lines.len() as u64, target_of(&owner));
            message.app = self.app.clone();
            self.model.lines.push(Line {
                id: message.id,
                list,
                gone: false,
            });
            sets.push(append_message(message, &owner));
        }
        for result in self.ports.commit.commit(sets).await {
            result.unwrap();
        }
    }
}

fn lives(engine: Engine, cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let local = Local::fresh(engine);
    let ports = ports(local.embedded());
    let runs = AtomicU64::new(0);
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    let life = |steps: Vec<Step>| {
        let app = app_id(&format!("app-{}", runs.fetch_add(1, Ordering::SeqCst)));
        runtime.block_on(async {
            let mut phone = device_of("d1", "u1");
            phone.app = app.clone();
            ports.registry.put_device(phone, None).await.unwrap();
            let mut life = Life {
                ports: &ports,
                reader: Reader {
                    app: app.clone(),
                    ..reader("d1", Some("u1"))
                },
                app,
                model: Model::default(),
            };
            for (i, step) in steps.iter().enumerate() {
                life.step(step).await;
                let want = life.model.visible();
                assert_eq!(life.visible(7 + i).await, want, "after {step:?}");
            }
        });
        Ok(())
    };
    TestRunner::new(config).run(&steps(), life).unwrap();
}

#[test]
fn fjall_inboxes_live_as_the_model_does() {
    lives(Engine::Fjall, 40);
}

#[test]
fn sqlite_inboxes_live_as_the_model_does() {
    lives(Engine::Sqlite, 40);
}
