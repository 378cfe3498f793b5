//! The keyspaces: one for each access path.

macro_rules! spaces {
    ($($(#[$doc:meta])* $name:ident = $tag:literal, $word:literal, $owned:ident);* $(;)?) => {
        /// A keyspace. Tags and names are written to disk: they are never reused or renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Space { $($(#[$doc])* $name),* }

        impl Space {
            /// Every keyspace, in the order of [`Space::index`].
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The tag in backups and checksums.
            #[must_use]
            pub const fn tag(self) -> u8 {
                match self { $(Self::$name => $tag),* }
            }

            /// The name on disk and in errors.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// Whether every key begins with the app that owns the record.
            #[must_use]
            pub const fn is_owned_by_app(self) -> bool {
                match self { $(Self::$name => spaces!(@ $owned)),* }
            }

            /// The keyspace with this tag.
            #[must_use]
            pub fn from_tag(tag: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|s| s.tag() == tag)
            }

            /// Position in [`Space::ALL`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
    (@ app) => { true };
    (@ all) => { false };
}

// 23 and 29 were in layout 1, 35 in layout 2.
spaces! {
    /// name → number: epoch, format, counts.
    Meta = 1, "meta", all;
    /// batch number modulo [`super::verify::CHAIN_LEN`] → batch number: shows holes.
    Chain = 2, "chain", all;
    /// app → app.
    App = 3, "app", app;
    /// secret hash → API key.
    Key = 4, "key", all;
    /// app (empty for admin keys), key id → secret hash.
    KeyOf = 5, "key_of", app;
    /// app, channel, name → credential.
    Credential = 6, "credential", app;
    /// app, device → device.
    Device = 7, "device", app;
    /// secret hash → app, device.
    DeviceSecret = 8, "device_secret", all;
    /// app, channel, token hash → device.
    Token = 9, "token", app;
    /// app, user, device.
    UserDevice = 10, "user_device", app;
    /// app, user → user.
    User = 11, "user", app;
    /// app, topic, device → place where the subscription began.
    TopicDevice = 12, "topic_device", app;
    /// app, device, topic → place where the subscription began.
    DeviceTopic = 13, "device_topic", app;
    /// app whose deletion is under way.
    Deleting = 14, "deleting", all;
    /// app, message → recall time or why it was pushed out, number of its first event, message.
    Message = 15, "message", app;
    /// app, owner, slot → place, order, message, expiry.
    Ring = 16, "ring", app;
    /// app, owner → a recent place; app, audience → newest place.
    Head = 17, "head", app;
    /// app, audience, place → order, message, expiry.
    Broadcast = 18, "broadcast", app;
    /// app, message, audience → place.
    BroadcastOf = 19, "broadcast_of", app;
    /// app, device → where its inbox begins and what it acked.
    Place = 20, "place", app;
    /// id of a job that waits for its time → due, job.
    Job = 21, "job", all;
    /// due, id of a job that waits for its time.
    Due = 22, "due", all;
    /// app, number of the first → events of one day.
    Event = 24, "event", app;
    /// app, message, number of a chunk's first event → places in the chunk, counters.
    EventByMessage = 25, "event_by_message", app;
    /// app, device, number of a chunk's first event → places in the chunk.
    EventByDevice = 26, "event_by_device", app;
    /// app, user, number of a chunk's first event → places in the chunk.
    EventByUser = 27, "event_by_user", app;
    /// app, day, key → count.
    Counter = 28, "counter", app;
    /// app, message, device → version, delivery.
    Delivery = 30, "delivery", app;
    /// app, device, message → collapse key of an open delivery.
    OpenDelivery = 31, "open_delivery", app;
    /// app, key → body hash, expiry, answer.
    Idempotency = 32, "idempotency", app;
    /// key, window → taken, end of the window.
    Quota = 33, "quota", all;
    /// kind, time, batch, part → keys of what is to be dropped then.
    Expiry = 34, "expiry", all;
    /// token hash → push endpoint, gone ones too.
    Endpoint = 36, "endpoint", all;
    /// app, device, channel → token hash of the endpoint that is not gone.
    DeviceEndpoint = 37, "device_endpoint", app;
    /// app, device, … → pushes that wait: see `inbox/push.rs`.
    Push = 38, "push", app;
    /// batch, part → jobs that it made ready: each offered or held, due, job.
    Sheet = 39, "sheet", all;
    /// batch, part → which jobs of the sheet are done.
    SheetDone = 40, "sheet_done", all;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_names_are_distinct_and_found_again() {
        for (i, a) in Space::ALL.iter().enumerate() {
            assert_eq!(a.index(), i);
            assert_eq!(Space::from_tag(a.tag()), Some(*a));
            for b in &Space::ALL[i + 1..] {
                assert_ne!(a.tag(), b.tag());
                assert_ne!(a.name(), b.name());
            }
        }
        assert_eq!(Space::from_tag(0), None);
    }
}
