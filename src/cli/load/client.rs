//! One MCP client that calls again and again, and meets trouble as the SDKs do.
//!
//! Never repairs what a real client would lose: what each SDK was seen to do is the measure. So a
//! legacy client has one session, and where that is lost, so is every later call: those of
//! TypeScript and Python open no other.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    Plan,
    caller::Caller,
    ledger::{Held, INITIALIZE, Ledger},
    outcome::{Era, Saw},
    stream,
    work::{self, Session, Work},
};
use crate::tasks::Group;

/// After which a client that could not begin tries again, or one whose session is lost calls on:
/// all of that is lost, and need not be lost in a hurry.
const MOMENT: Duration = Duration::from_millis(500);

pub struct Client {
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    stop: watch::Receiver<bool>,
    era: Era,
    number: usize,
    calls: u64,
    caller: Caller,
    session: Option<Opened>,
}

/// A legacy session, and the stand-alone stream that ends with it.
struct Opened {
    session: Session,
    held: Held,
    _stream: Group,
}

impl Client {
    pub fn new(
        plan: &Arc<Plan>,
        ledger: &Arc<Ledger>,
        stop: watch::Receiver<bool>,
        era: Era,
        number: usize,
    ) -> Self {
        Self {
            plan: Arc::clone(plan),
            ledger: Arc::clone(ledger),
            stop,
            era,
            number,
            calls: 0,
            caller: Caller::new(&plan.target),
            session: None,
        }
    }

    /// Calls until the load is stopped, and ends its session.
    pub async fn run(mut self) {
        let plan = Arc::clone(&self.plan);
        let works: Vec<&Work> = plan.works.iter().filter(|work| work.fits(self.era)).collect();
        // Not all at the same moment, and not all the same call.
        self.pause(plan.pause.mul_f64(fraction(self.number, plan.modern + plan.legacy))).await;
        let mut turns = works.iter().cycle().skip(self.number % works.len().max(1));
        while !*self.stop.borrow() {
            let Some(work) = turns.next() else { return };
            let deadline = Instant::now() + plan.timeout;
            let needs_session = self.era == Era::Legacy && self.session.is_none();
            if needs_session && !self.initialize(deadline).await {
                self.pause(MOMENT).await;
                continue;
            }
            self.call(work).await;
            self.caller.connections.settle().await;
            let is_lost = self.session.as_ref().is_some_and(|opened| opened.held.is_lost());
            self.pause(if is_lost { plan.pause.max(MOMENT) } else { plan.pause }).await;
        }
        self.end_session().await;
    }

    async fn call(&mut self, work: &Work) {
        let id = self.next_id();
        let under_way = self.ledger.begin(self.era, work.kind(), id.clone());
        let deadline = Instant::now() + self.plan.timeout;
        let result = self.attempt(work, &id, deadline).await;
        if let (Err(saw), Some(Opened { held, .. })) = (&result, &self.session)
            && saw.ends_session()
        {
            held.lose();
        }
        under_way.end(self.caller.pod.take(), result);
    }

    async fn attempt(&mut self, work: &Work, id: &str, deadline: Instant) -> Result<(), Saw> {
        let session = self.session.as_ref().map(|opened| &opened.session);
        let request = work::call(&self.plan.target, work, id, session)?;
        let answer = timeout_at(deadline, self.caller.result(request, id, session)).await;
        match answer.unwrap_or(Err(Saw::TimeOut)) {
            Ok(_) => Ok(()),
            Err(saw) => {
                if saw.hangs() {
                    // The real client waits for an answer that cannot come any more.
                    tokio::select! {
                        () = sleep_until(deadline) => {}
                        () = stopped(&mut self.stop) => {}
                    }
                }
                Err(saw)
            }
        }
    }

    /// Opens a session; while it is refused with 503, again and again.
    async fn initialize(&mut self, deadline: Instant) -> bool {
        let id = self.next_id();
        let under_way = self.ledger.begin(Era::Legacy, INITIALIZE.into(), id.clone());
        let opened = loop {
            match timeout_at(deadline, self.open_session(&id)).await.unwrap_or(Err(Saw::TimeOut)) {
                Err(Saw::Status(503, error)) => {
                    self.ledger.note().sessions.refused += 1;
                    if Instant::now() + MOMENT >= deadline {
                        break Err(Saw::Status(503, error));
                    }
                    sleep(MOMENT).await;
                }
                other => break other,
            }
        };
        let result = match opened {
            Ok(session) => {
                let held = self.ledger.open_session();
                let mut stream = Group::default();
                let (target, ledger) = (Arc::clone(&self.plan.target), Arc::clone(&self.ledger));
                let running = stream::run(target, session.clone(), held.clone(), ledger);
                stream.spawn("stand-alone stream", running);
                self.session = Some(Opened { session, held, _stream: stream });
                Ok(())
            }
            Err(saw) => Err(saw),
        };
        let opened = result.is_ok();
        under_way.end(self.caller.pod.take(), result);
        opened
    }

    async fn open_session(&mut self, id: &str) -> Result<Session, Saw> {
        let target = Arc::clone(&self.plan.target);
        let answer = self.caller.result(work::initialize(&target, id)?, id, None).await?;
        let session = Session::opened(answer.session.as_deref(), &answer.result);
        let exchange = self.caller.connections.send(work::initialized(&target, &session)?).await?;
        let status = exchange.head.status;
        self.caller.connections.release(exchange);
        // A client whose notification is refused does not connect, and says so.
        if status.is_success() { Ok(session) } else { Err(Saw::Status(status.as_u16(), None)) }
    }

    /// Ends what stands open, as a polite client does; a server that does not care loses nothing.
    async fn end_session(&mut self) {
        let Some(Opened { session, .. }) = self.session.take() else { return };
        if session.id.is_some()
            && let Ok(request) = work::delete(&self.plan.target, &session)
        {
            let _ = timeout(MOMENT, self.caller.connections.send(request)).await;
        }
    }

    async fn pause(&mut self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = stopped(&mut self.stop) => {}
        }
    }

    /// Unique in the load, so that it can be found in a server's log.
    fn next_id(&mut self) -> String {
        self.calls += 1;
        format!("{}-{}", self.number, self.calls)
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A load that is gone has stopped, too.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

fn fraction(number: usize, of: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a moment, not a measure")]
    let fraction = number as f64 / of.max(1) as f64;
    fraction
}
