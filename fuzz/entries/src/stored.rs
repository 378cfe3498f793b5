//! What is read back from disks and backups.

use std::fs;
use std::path::Path;

use hongyan_core::app::{App, Credential, Key};
use hongyan_core::delivery::Delivery;
use hongyan_core::port::Job;
use hongyan_core::{Device, Event, Message, User};
use hongyan_embedded::store::record::{Parts, decode, encode, seal, unseal};
use hongyan_embedded::store::{Space, backup};
use hongyan_embedded::{Embedded, Options};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Entry, texts};

/// Sealed values, parts of keys, and every record.
pub(crate) const RECORDS: Entry = Entry {
    name: "records",
    run: |bytes| {
        let _ = unseal(Space::Device, b"key", bytes.to_vec());
        let sealed = seal(Space::Device, b"key", bytes);
        let opened = unseal(Space::Device, b"key", sealed);
        assert_eq!(opened.ok().as_deref(), Some(bytes), "what was sealed opens");
        let mut parts = Parts(bytes);
        while parts.text().is_some() || parts.number().is_some() || parts.raw::<4>().is_some() {}
        record::<Message>(bytes);
        record::<Device>(bytes);
        record::<User>(bytes);
        record::<App>(bytes);
        record::<Key>(bytes);
        record::<Credential>(bytes);
        record::<Delivery>(bytes);
        record::<Event>(bytes);
        record::<Job>(bytes);
    },
    seeds: || {
        texts(&[
            r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057","app":"demo","to":{"users":["u"]},"notification":{"title":"t","body":"b"},"options":{"ttl_s":60},"accepted_at":1,"expires_at":2}"#,
            r#"{"app":"demo","id":"d","platform":"ios","tokens":[{"channel":"apns","token":"t","updated_at":1,"state":{"state":"active"}}],"secret_hash":[0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1],"created_at":1,"last_seen":1}"#,
            r#"{"app":"demo","id":"u","preferences":{"muted_classes":["im"],"quiet_hours":{"start":"22:00","end":"08:00"}},"created_at":1}"#,
            r#"{"id":"demo","created_at":1,"policy":{"timezone":"UTC"}}"#,
            r#"{"app":"demo","message":"01890a5d-ac96-774b-bcce-b302099a8057","kind":{"deliver":{"device":"d"}},"due":1}"#,
        ])
    },
};

fn record<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(Space::Device, b"key", bytes) {
        assert!(
            encode("record", &value).is_ok(),
            "what was read can be written"
        );
    }
}

/// Backups.
pub(crate) const BACKUPS: Entry = Entry {
    name: "backups",
    run: |bytes| {
        let Ok(dir) = tempfile::tempdir() else { return };
        let file = dir.path().join("backup");
        if fs::write(&file, bytes).is_ok() {
            let _ = backup::check(&file);
        }
    },
    seeds: || {
        let Ok(dir) = tempfile::tempdir() else {
            return Vec::new();
        };
        small_backup(dir.path()).into_iter().collect()
    },
};

/// The bytes of a backup of a new store.
fn small_backup(dir: &Path) -> Option<Vec<u8>> {
    let engine = Embedded::open(&Options::new(dir.join("data"))).ok()?;
    let file = dir.join("backup");
    backup::backup(engine.store(), &file).ok()?;
    engine.store().close();
    fs::read(file).ok()
}
