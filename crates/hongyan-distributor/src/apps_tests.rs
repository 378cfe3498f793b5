use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;

use super::*;

/// Apps by their names: `well` answers, `hangs` never does, `gone` is not there, `late` serves from its third call on.
#[derive(Debug, Default)]
struct Bus {
    calls: AtomicU32,
    said: Mutex<Vec<String>>,
}

#[async_trait]
impl Connector for Bus {
    async fn message(&self, service: &str, _: &Secret, id: &str, _: &Bytes) -> Result<(), Failure> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.said.lock().unwrap().push(format!("{service} {id}"));
        match service {
            "hangs" => std::future::pending().await,
            "gone" => Err(Failure::Gone),
            "fails" => Err(Failure::Refused),
            "late" if call < 2 => Err(Failure::NotServing),
            _ => Ok(()),
        }
    }

    async fn tell(&self, service: &str, note: &Note) -> Result<(), Failure> {
        let what = match note {
            Note::NewEndpoint { .. } => "endpoint",
            Note::Unregistered { .. } => "unregistered",
        };
        self.said.lock().unwrap().push(format!("{service} {what}"));
        Ok(())
    }
}

fn apps() -> (Arc<Bus>, Arc<Apps>, mpsc::Receiver<Settled>) {
    let bus = Arc::new(Bus::default());
    let (settled, settled_out) = mpsc::channel(512);
    (Arc::clone(&bus), Apps::new(bus, settled), settled_out)
}

fn parcel(id: &str) -> Parcel {
    Parcel {
        id: id.to_owned(),
        token: "token".into(),
        body: Bytes::from_static(b"body"),
        until: Instant::now() + PATIENCE,
    }
}

#[tokio::test(start_paused = true)]
async fn up_14_a_message_is_settled_by_its_answer_or_after_ten_seconds() {
    for (service, fate, least, most) in [
        ("well", Fate::Taken, 0, 0),
        ("fails", Fate::Taken, 0, 0),
        ("late", Fate::Taken, 2, 2),
        ("hangs", Fate::Silent, 10, 10),
        ("gone", Fate::Gone, 9, 10),
    ] {
        let (_, apps, mut settled) = apps();
        let begun = Instant::now();
        apps.deliver(service, parcel("m")).unwrap();
        let got = settled.recv().await.unwrap();
        assert_eq!((got.id.as_str(), got.fate), ("m", fate), "{service}");
        let took = begun.elapsed().as_secs();
        assert!((least..=most).contains(&took), "{service}: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn up_14_an_app_that_hangs_holds_up_nobody_else_and_itself_not_for_long() {
    let (_, apps, mut settled) = apps();
    let begun = Instant::now();
    for n in 0..20 {
        apps.deliver("hangs", parcel(&format!("h{n}"))).unwrap();
    }
    apps.deliver("well", parcel("w")).unwrap();
    assert_eq!(settled.recv().await.unwrap().id, "w");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    for n in 0..20 {
        assert_eq!(settled.recv().await.unwrap().id, format!("h{n}"));
    }
    assert_eq!(begun.elapsed(), PATIENCE + PATIENCE_LEAST * 19);
}

#[tokio::test(start_paused = true)]
async fn up_14_calls_keep_their_order_and_their_number_is_bounded() {
    let (bus, apps, mut settled) = apps();
    let token = Secret::new("token");
    apps.tell(
        "well",
        Note::NewEndpoint {
            token: token.clone(),
            endpoint: "e".into(),
        },
    );
    apps.deliver("well", parcel("m")).unwrap();
    apps.tell("well", Note::Unregistered { token });
    settled.recv().await.unwrap();
    // The worker ends when nothing is left, and its queue with it.
    while !apps.queues().is_empty() {
        tokio::task::yield_now().await;
    }
    let said = bus.said.lock().unwrap().clone();
    assert_eq!(said, ["well endpoint", "well m", "well unregistered"]);
    for n in 0..QUEUE_MAX {
        apps.deliver("hangs", parcel(&n.to_string())).unwrap();
    }
    assert_eq!(apps.deliver("hangs", parcel("more")), Err(Full));
}

#[tokio::test(start_paused = true)]
async fn up_14_a_message_that_is_taken_back_does_not_reach_an_app_that_has_not_got_it() {
    let (bus, apps, mut settled) = apps();
    apps.deliver("hangs", parcel("first")).unwrap();
    apps.deliver("hangs", parcel("second")).unwrap();
    assert!(apps.recall("second"));
    assert!(!apps.recall("second"));
    assert_eq!(settled.recv().await.unwrap().id, "first");
    assert_eq!(*bus.said.lock().unwrap(), ["hangs first"]);
}
