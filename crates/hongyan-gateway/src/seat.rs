//! Whose inbox a session delivers, as long as it lives: in one small allocation that the session and the hub share.

use std::fmt;
use std::sync::Arc;

use hongyan_core::port::Reader;
use hongyan_core::{AppId, DeviceId, UserId};

/// In the first letter: there is a user. No app is as long.
const BOUND: u8 = 64;

/// A [`Reader`] that is kept: its three names in one text, without a reference count of their own. Making the reader
/// anew costs three short copies, and only a read or a report needs it.
///
/// Two letters stand before the names: the lengths of the app (plus 64 when there is a user) and of the device.
#[derive(Clone)]
pub struct Seat(Arc<str>);

impl Seat {
    /// The seat of a reader.
    #[must_use]
    pub fn new(reader: &Reader) -> Self {
        let (app, device) = (reader.app.as_str(), reader.device.as_str());
        let user = reader.user.as_ref().map(UserId::as_str);
        let bound = if user.is_some() { BOUND } else { 0 };
        let lengths = [app.len() as u8 | bound, device.len() as u8].map(char::from);
        let [first, second] = lengths;
        let user = user.unwrap_or_default();
        Self(Arc::from(format!("{first}{second}{app}{device}{user}")))
    }

    /// App, device and user.
    fn names(&self) -> (&str, &str, Option<&str>) {
        let text = &*self.0;
        let (lengths, names) = text.split_at_checked(2).unwrap_or_default();
        let (first, second) = match lengths.as_bytes() {
            [first, second] => (*first, usize::from(*second)),
            _ => (0, 0),
        };
        let app = usize::from(first & !BOUND);
        let (app, names) = names.split_at_checked(app).unwrap_or_default();
        let (device, user) = names.split_at_checked(second).unwrap_or_default();
        (app, device, (first & BOUND != 0).then_some(user))
    }

    /// The app, as text.
    #[must_use]
    pub fn app(&self) -> &str {
        self.names().0
    }

    /// The device, as text.
    #[must_use]
    pub fn device(&self) -> &str {
        self.names().1
    }

    /// The user that it is bound to, as text.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.names().2
    }

    /// The reader, made anew.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let (app, device, user) = self.names();
        Reader {
            app: AppId::known(app),
            device: DeviceId::known(device),
            user: user.map(UserId::known),
        }
    }

    /// A copy, made where this is called: what a handshake allocated in between would otherwise stay with it, as an
    /// allocator gives nothing back from between pieces that live.
    pub(crate) fn moved(&self) -> Self {
        Self(Arc::from(&*self.0))
    }

    /// A number that all clones of this seat share, and no other seat while one of them lives.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<u8>() as usize
    }

    /// Whether both are one seat: a binding that ended and began anew makes another.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.names(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_gives_its_reader_back() {
        for user in [None, Some("u"), Some("张三 @example")] {
            let reader = Reader {
                app: AppId::parse("demo").unwrap(),
                device: DeviceId::parse("d:1").unwrap(),
                user: user.map(|user| UserId::parse(user).unwrap()),
            };
            let seat = Seat::new(&reader);
            assert_eq!(seat.reader(), reader);
            assert_eq!((seat.app(), seat.device()), ("demo", "d:1"));
            assert_eq!(seat.user(), user);
            assert!(seat.is(&seat.clone()) && !seat.is(&Seat::new(&reader)));
        }
    }

    #[test]
    fn the_longest_names_fit() {
        const { assert!(AppId::BYTES_MAX < BOUND as usize) };
        const { assert!(DeviceId::BYTES_MAX < 128, "one byte of UTF-8") };
        let reader = Reader {
            app: AppId::parse(&"a".repeat(AppId::BYTES_MAX)).unwrap(),
            device: DeviceId::parse(&"d".repeat(DeviceId::BYTES_MAX)).unwrap(),
            user: UserId::parse(&"u".repeat(UserId::BYTES_MAX)).ok(),
        };
        assert_eq!(Seat::new(&reader).reader(), reader);
    }

    #[test]
    fn a_seat_is_two_words() {
        // Held by the session and by the hub's member of every connection.
        assert!(std::mem::size_of::<Option<Seat>>() <= 16);
    }
}
