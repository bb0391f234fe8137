//! The pool against a model: random acquires, releases, cancels, time-outs and deaths of the
//! upstream, in paused time and in memory.

use std::{collections::VecDeque, future::Future, sync::atomic::AtomicBool};

use http_body_util::Empty;
use proptest::prelude::*;
use tokio::{io::DuplexStream, sync::oneshot, task::yield_now, time::advance};

use crate::telemetry::Metrics;

use super::*;
use crate::tasks::Group;

type Body = Empty<Bytes>;

/// The upstream's ends of all connections, and whether it may be reached.
#[derive(Default)]
struct Upstream {
    peers: Mutex<Vec<DuplexStream>>,
    away: AtomicBool,
}

fn pool(limits: Limits) -> (Pool<Body>, Arc<Upstream>) {
    let upstream = Arc::new(Upstream::default());
    let server = Arc::clone(&upstream);
    let connector: Connector = Box::new(move || {
        let server = Arc::clone(&server);
        Box::pin(async move {
            if server.away.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(1024);
            server.peers.lock().unwrap().push(theirs);
            Ok(Box::new(ours) as BoxedIo)
        })
    });
    (Pool::new(connector, limits, &Metrics::new().pool), upstream)
}

fn limits(max_connections: usize) -> Limits {
    Limits {
        max_connections,
        max_streams: 2,
        acquire_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(4),
        tries_again: true,
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Acquire(Budget),
    /// Gives a held slot back, with its connection or by dropping both.
    Release(usize, bool),
    /// A waiter leaves the line.
    Cancel(usize),
    BecomeStream(usize),
    Advance(u64),
    Die,
    Away(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![Just(Budget::Calls), Just(Budget::Calls), Just(Budget::Streams)]
            .prop_map(Step::Acquire),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(at, keep)| Step::Release(at, keep)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::BecomeStream),
        2 => (1u64..6000).prop_map(Step::Advance),
        1 => Just(Step::Die),
        1 => any::<bool>().prop_map(Step::Away),
    ]
}

type Held = (Slot<Body>, Connection<Body>);

/// Who asked and has no answer yet: its answer, and the task that waits.
struct Waiter {
    number: usize,
    budget: Budget,
    answer: oneshot::Receiver<Result<Slot<Body>, AcquireError>>,
    _task: Group,
}

struct Model {
    pool: Pool<Body>,
    upstream: Arc<Upstream>,
    limits: Limits,
    waiters: VecDeque<Waiter>,
    held: Vec<Held>,
    asked: usize,
    last_granted: [Option<usize>; 2],
}

impl Model {
    async fn play(&mut self, step: Step) {
        match step {
            Step::Acquire(budget) => self.ask(budget),
            Step::Release(at, keep) if !self.held.is_empty() => {
                let (slot, connection) = self.held.swap_remove(at % self.held.len());
                if keep {
                    slot.release(connection);
                } else {
                    drop((slot, connection));
                }
            }
            Step::Cancel(at) if !self.waiters.is_empty() => {
                drop(self.waiters.remove(at % self.waiters.len()));
            }
            Step::BecomeStream(at) if !self.held.is_empty() => {
                let at = at % self.held.len();
                let _ = self.held[at].0.becomes_stream();
            }
            Step::Advance(milliseconds) => {
                advance(Duration::from_millis(milliseconds)).await;
                self.pool.0.reap();
            }
            Step::Die => self.upstream.peers.lock().unwrap().clear(),
            Step::Away(away) => self.upstream.away.store(away, Ordering::Relaxed),
            _ => {}
        }
        self.settle().await;
        self.check();
    }

    fn ask(&mut self, budget: Budget) {
        let (sender, answer) = oneshot::channel();
        let pool = self.pool.clone();
        let mut task = Group::default();
        task.spawn("waiter", async move {
            let _ = sender.send(pool.acquire(budget).await);
        });
        self.waiters.push_back(Waiter { number: self.asked, budget, answer, _task: task });
        self.asked += 1;
    }

    /// Lets everybody run who can, until nothing changes any more.
    async fn settle(&mut self) {
        loop {
            let before = (self.waiters.len(), self.held.len());
            self.take_granted().await;
            if before == (self.waiters.len(), self.held.len()) {
                return;
            }
        }
    }

    /// Takes what was granted, in the order of asking; while the upstream is away a slot is given
    /// back at once.
    async fn take_granted(&mut self) {
        for _ in 0..200 {
            yield_now().await;
        }
        let mut left = VecDeque::new();
        while let Some(mut waiter) = self.waiters.pop_front() {
            match waiter.answer.try_recv() {
                Ok(Ok(mut slot)) => {
                    let last =
                        &mut self.last_granted[usize::from(waiter.budget == Budget::Streams)];
                    assert!(last.is_none_or(|last| last < waiter.number), "overtaken");
                    // Nobody of the same budget who asked before still waits.
                    let before = left.iter().any(|w: &Waiter| w.budget == waiter.budget);
                    assert!(!before, "{} was served before an older waiter", waiter.number);
                    *last = Some(waiter.number);
                    if !self.upstream.away.load(Ordering::Relaxed) {
                        let connection = slot.connection().await.expect("the upstream is there");
                        self.held.push((slot, connection));
                    }
                }
                Ok(Err(AcquireError::Exhausted { waited, .. })) => {
                    assert!(waited >= self.limits.acquire_timeout, "given up too early");
                }
                Ok(Err(error)) => panic!("{error}"),
                Err(oneshot::error::TryRecvError::Empty) => left.push_back(waiter),
                Err(closed @ oneshot::error::TryRecvError::Closed) => panic!("forgotten: {closed}"),
            }
        }
        self.waiters = left;
    }

    fn check(&self) {
        let counts = self.pool.counts();
        let streams = self.held.iter().filter(|(slot, _)| slot.budget == Budget::Streams).count();
        let calls = self.held.len() - streams;
        assert!(calls <= self.limits.max_connections && streams <= self.limits.max_streams);
        assert_eq!((counts.in_use, counts.streams), (self.held.len(), streams));
        assert_eq!(counts.waiting, self.waiters.len());
        assert!(counts.idle <= self.limits.max_connections);
        assert_eq!(counts.created, counts.closed + (counts.idle + self.held.len()) as u64);
        assert_eq!(counts.acquired - counts.released, self.held.len() as u64);
        // Whoever waits, waits for a reason.
        for (budget, used, bound) in [
            (Budget::Calls, calls, self.limits.max_connections),
            (Budget::Streams, streams, self.limits.max_streams),
        ] {
            let waits = self.waiters.iter().any(|waiter| waiter.budget == budget);
            assert!(!waits || used == bound, "{budget:?}: room, and somebody waits");
        }
    }
}

fn paused<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_pool_keeps_its_word(max in 1usize..4, steps in prop::collection::vec(step(), 1..60)) {
        paused(async {
            let limits = limits(max);
            let (pool, upstream) = pool(limits);
            let mut model = Model {
                pool,
                upstream,
                limits,
                waiters: VecDeque::new(),
                held: Vec::new(),
                asked: 0,
                last_granted: [None; 2],
            };
            for step in steps {
                model.play(step).await;
            }
            model.held.clear();
            model.settle().await;
            model.held.clear();
            let counts = model.pool.drain(Instant::now() + Duration::from_secs(9)).await;
            assert_eq!((counts.idle, counts.created), (0, counts.closed + model.held.len() as u64));
        });
    }
}

#[test]
fn the_connection_used_last_is_reused_first() {
    paused(async {
        let (pool, upstream) = pool(limits(3));
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut slot = pool.acquire(Budget::Calls).await.unwrap();
            let connection = slot.connection().await.unwrap();
            held.push((slot, connection));
        }
        for (slot, connection) in held {
            slot.release(connection);
        }
        // The first of the two dies: reuse must not notice.
        upstream.peers.lock().unwrap().remove(0);
        let mut slot = pool.acquire(Budget::Calls).await.unwrap();
        assert!(slot.connection().await.unwrap().is_reused());
        assert_eq!(pool.counts().reused, 1);
    });
}

#[test]
fn a_connection_with_a_stray_byte_is_not_reused() {
    use tokio::io::AsyncWriteExt;
    paused(async {
        let (pool, upstream) = pool(limits(1));
        let mut slot = pool.acquire(Budget::Calls).await.unwrap();
        let connection = slot.connection().await.unwrap();
        slot.release(connection);
        let mut peer = upstream.peers.lock().unwrap().remove(0);
        peer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut slot = pool.acquire(Budget::Calls).await.unwrap();
        assert!(!slot.connection().await.unwrap().is_reused());
    });
}

#[test]
fn an_upstream_that_is_away_is_waited_for_and_then_reported() {
    paused(async {
        let (pool, upstream) = pool(limits(1));
        upstream.away.store(true, Ordering::Relaxed);
        let mut slot = pool.acquire(Budget::Calls).await.unwrap();
        let began = Instant::now();
        let error = slot.connection().await.err().expect("nobody is there");
        assert!(matches!(error, AcquireError::Unreachable { .. }));
        assert!(began.elapsed() > Duration::from_secs(4));
        assert!(began.elapsed() <= Duration::from_secs(5));
    });
}
