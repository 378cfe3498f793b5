//! Who may connect.

use std::fmt;

/// Who may connect to a broker.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// Everybody. For listeners that strangers cannot reach.
    Anyone,
    /// Whoever knows both.
    Password {
        /// The one user name.
        user: String,
        /// Its password; `Debug` does not show it.
        password: Vec<u8>,
    },
}

impl Access {
    pub(super) fn allows(&self, user: Option<&str>, password: Option<&[u8]>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Password {
                user: wanted_user,
                password: wanted,
            } => {
                let user = same(wanted_user.as_bytes(), user.unwrap_or_default().as_bytes());
                let password = same(wanted, password.unwrap_or_default());
                user & password
            }
        }
    }
}

/// Compares in a time that depends on nothing but what was sent.
fn same(wanted: &[u8], given: &[u8]) -> bool {
    let mut different = wanted.len() ^ given.len();
    for (n, byte) in given.iter().enumerate() {
        let wanted = wanted.get(n).copied().unwrap_or(0);
        different |= usize::from(std::hint::black_box(wanted ^ byte));
    }
    different == 0
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("Anyone"),
            Self::Password { user, .. } => f
                .debug_struct("Password")
                .field("user", user)
                .finish_non_exhaustive(),
        }
    }
}
