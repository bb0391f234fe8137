//! What goes wrong with the API server, said once per kind and cause, and when it is over.
//!
//! Never says the same twice in a row: an API server that is away for an hour is two lines.

use kube::runtime::watcher;
use tracing::{info, warn};

/// A kind of trouble, as far as the operator does something else about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Forbidden,
    Unauthorized,
    Silent,
    Other,
}

impl Kind {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 403 => Kind::Forbidden,
            kube::Error::Api(status) if status.code == 401 => Kind::Unauthorized,
            _ => Kind::Other,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Kind::Forbidden => "bind the Role of deploy/rbac.yaml to the pod's service account",
            Kind::Unauthorized => {
                "the service account's token is not accepted (any more); that is normal at the end \
                 of a pod's life"
            }
            Kind::Silent => "does a NetworkPolicy keep this pod from the API server?",
            Kind::Other => "is the API server up, and can this pod reach it?",
        }
    }
}

/// The trouble with one resource.
pub struct Trouble {
    what: &'static str,
    told: Option<Kind>,
}

impl Trouble {
    pub fn with(what: &'static str) -> Self {
        Self { what, told: None }
    }

    pub fn watching(&mut self, error: &watcher::Error) {
        let kind = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Kind::of(error),
            watcher::Error::WatchError(status) if status.code == 403 => Kind::Forbidden,
            watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => Kind::Other,
        };
        self.tell(kind, error);
    }

    pub fn reading(&mut self, error: &kube::Error) {
        self.tell(Kind::of(error), error);
    }

    pub fn silent(&mut self) {
        self.tell(Kind::Silent, &"the API server does not answer");
    }

    /// It works (again).
    pub fn over(&mut self) {
        if self.told.take().is_some() {
            info!(resource = self.what, "the API server tells again");
        }
    }

    fn tell(&mut self, kind: Kind, error: &dyn std::fmt::Display) {
        if self.told != Some(kind) {
            self.told = Some(kind);
            let advice = kind.advice();
            warn!(
                resource = self.what,
                error = shortened(&error.to_string()),
                "not known from the API server; {advice}; the drain goes on by timers, and it is \
                 tried again"
            );
        }
    }
}

/// An API server that answers nonsense does not fill the log with it.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether reading alone may be allowed where watching is not.
pub fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)
            if Kind::of(error) == Kind::Forbidden
    )
}
