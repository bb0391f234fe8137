//! Every task has a name, is joined, and its early end is told. The only file that spawns.
//!
//! Never lets a task outlive the group it was started in.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::task::{Id, JoinSet};

/// A set of named tasks, aborted when the set is dropped.
#[derive(Debug, Default)]
pub struct Group {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// How a task ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub name: &'static str,
    /// The text of the panic, where it was one.
    pub panic: Option<String>,
}

impl Group {
    /// Starts a task that lives as long as the group.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the next task to end; `None` when none is left.
    pub async fn ended(&mut self) -> Option<Ended> {
        let (id, panic) = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => (id, None),
            Err(error) => {
                let id = error.id();
                let panic = error.try_into_panic().ok().map(|cause| {
                    let text = cause.downcast_ref::<&str>().map(|s| (*s).to_owned());
                    text.or_else(|| cause.downcast_ref::<String>().cloned())
                        .unwrap_or_else(|| "a panic without a text".into())
                });
                (id, panic)
            }
        };
        let name = self.names.remove(&id).unwrap_or("unnamed");
        Some(Ended { name, panic })
    }

    /// Aborts every task, and returns when the last has let go of what it held.
    pub async fn shut_down(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Runs the streams of one HTTP/2 connection; they end with it at the latest.
#[derive(Debug, Clone, Default)]
pub struct Executor(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = streams.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                tracing::error!("an HTTP/2 stream's task panicked: this is a bug of ebbtide");
            }
        }
        streams.spawn(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_who_ended_and_how() {
        let mut group = Group::default();
        group.spawn("quick", async {});
        assert_eq!(group.ended().await, Some(Ended { name: "quick", panic: None }));
        group.spawn("broken", async { panic!("on purpose") });
        let ended = group.ended().await.unwrap();
        assert_eq!((ended.name, ended.panic.as_deref()), ("broken", Some("on purpose")));
        assert_eq!(group.ended().await, None);
    }

    #[tokio::test]
    async fn a_group_that_was_shut_down_holds_nothing() {
        let held = Arc::new(());
        let mut group = Group::default();
        let own = Arc::clone(&held);
        group.spawn("endless", async move {
            std::future::pending::<()>().await;
            drop(own);
        });
        group.shut_down().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
