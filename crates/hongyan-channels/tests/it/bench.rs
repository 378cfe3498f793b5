//! A channel with a stand-in that plays its vendor's paper.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hongyan_core::Class;
use hongyan_core::port::{Batch, Channel};
use hongyan_testkit::channel_suite::{Bench, Row, Script, Sent};

use crate::message;
use crate::paper::{self, Paper};
use crate::stand_in::{Act, Seen, StandIn};

pub(crate) struct PaperBench {
    paper: Paper,
    stand_in: StandIn,
    channel: Arc<dyn Channel>,
    play: Arc<Play>,
}

/// What the stand-in is to do.
struct Play {
    paper: Paper,
    script: Mutex<Script>,
    expired_once: AtomicUsize,
    tokens_handed_out: AtomicUsize,
}

impl Play {
    fn act(&self, seen: &Seen) -> Act {
        if self.paper.token_path == Some(seen.path.as_str()) {
            let n = self.tokens_handed_out.fetch_add(1, Ordering::SeqCst) + 1;
            return Act::Answer(200, Vec::new(), (self.paper.token_answer)(n));
        }
        let script = *self.script.lock().unwrap();
        if script != Script::Silent
            && let Some(answer) = paper::preparation(self.paper.name, seen)
        {
            return answer;
        }
        let (_, _, tokens) = (self.paper.take_apart)(seen);
        match script {
            Script::Accept => (self.paper.answer)(&[]),
            Script::DeadBetween => {
                let odd = |t: &String| {
                    // A token may be JSON that ends with its number.
                    matches!(
                        t.trim_end_matches(['"', '}']).as_bytes().last(),
                        Some(b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f')
                    )
                };
                let dead: Vec<String> = tokens.into_iter().filter(odd).collect();
                (self.paper.answer)(&dead)
            }
            Script::Row(row) => {
                let (_, status, body, _) = self.paper.rows[row];
                Act::Answer(status, Vec::new(), body.to_owned())
            }
            Script::ExpiredOnce if self.expired_once.swap(0, Ordering::SeqCst) > 0 => {
                (self.paper.expired)()
            }
            Script::ExpiredOnce => (self.paper.answer)(&[]),
            Script::Silent => Act::Silence,
        }
    }
}

impl PaperBench {
    pub(crate) async fn start(paper: Paper) -> Self {
        let play = Arc::new(Play {
            paper,
            script: Mutex::new(Script::Accept),
            expired_once: AtomicUsize::new(0),
            tokens_handed_out: AtomicUsize::new(0),
        });
        let stand_in = StandIn::start({
            let play = play.clone();
            move |seen| play.act(seen)
        })
        .await;
        let egress = message::egress(&stand_in.ca_pem);
        let name = paper.name.split('/').next().unwrap_or_default();
        let channel = message::open(&egress, name, &(paper.config)(), &stand_in.endpoint);
        Self {
            paper,
            stand_in,
            channel,
            play,
        }
    }
}

impl Bench for PaperBench {
    fn channel(&self) -> Arc<dyn Channel> {
        self.channel.clone()
    }

    fn batch(&self, recipients: usize) -> Batch {
        let outbound = message::outbound(message::message(Class::Transaction));
        message::batch(outbound, (0..recipients).map(self.paper.token))
    }

    fn script(&self, script: Script) {
        self.play.expired_once.store(1, Ordering::SeqCst);
        *self.play.script.lock().unwrap() = script;
    }

    fn rows(&self) -> Vec<Row> {
        self.paper
            .rows
            .iter()
            .map(|(name, _, _, want)| Row { name, want })
            .collect()
    }

    fn sent(&self) -> Vec<Sent> {
        let mut seen = self.stand_in.seen();
        seen.retain(|s| self.paper.token_path != Some(s.path.as_str()));
        paper::sends(self.paper.name, seen)
            .iter()
            .map(|seen| {
                let (path, body, tokens) = (self.paper.take_apart)(seen);
                let text = |v: &http::HeaderValue| v.to_str().unwrap_or_default().to_owned();
                Sent {
                    method: seen.method.clone(),
                    path,
                    headers: seen
                        .headers
                        .iter()
                        .map(|(n, v)| (n.to_string(), text(v)))
                        .collect(),
                    body,
                    tokens,
                }
            })
            .collect()
    }

    fn open_requests(&self) -> usize {
        self.stand_in.open_requests()
    }

    fn tokens_handed_out(&self) -> Option<usize> {
        self.paper.token_path?;
        Some(self.play.tokens_handed_out.load(Ordering::SeqCst))
    }

    fn tokens_expire(&self) -> bool {
        self.paper.tokens_expire
    }

    fn names_tokens(&self) -> bool {
        self.paper.names_tokens
    }
}
