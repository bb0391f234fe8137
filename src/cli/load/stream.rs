//! The stand-alone GET stream of a legacy session: opened, read, and opened again when it ends.
//!
//! Never expects anything on it, and never tells the calls beside it what became of it; a 404 is
//! noted as the session's end.

use std::sync::Arc;

use tokio::time::sleep;

use super::{
    EVENT_BOUND,
    connection::{Connections, Exchange},
    ledger::{Held, Ledger},
    outcome::Return,
    target::Target,
    work::{self, Session},
};
use crate::mcp::{events::Events, sse::Position};

/// Lives as long as its session, or until reopening is refused as often as clients try.
pub async fn run(target: Arc<Target>, session: Session, held: Held, ledger: Arc<Ledger>) {
    let mut connections = Connections::new(Arc::clone(&target));
    let mut back = Return::default();
    let mut opened = false;
    loop {
        let last = back.last_event_id.as_deref();
        let Ok(request) = work::get(&target, &session, last) else { return };
        match connections.send(request).await {
            Ok(exchange) if exchange.head.status == 200 && exchange.is_events() => {
                {
                    let streams = &mut ledger.note().streams;
                    streams.opened += 1;
                    streams.came_back += u64::from(opened);
                }
                opened = true;
                back.opened();
                if read(exchange, &mut back).await {
                    ledger.note().streams.ended += 1;
                } else {
                    ledger.note().streams.broken += 1;
                }
            }
            // This server has no such stream, as most have none.
            _ if !opened => return,
            refused => {
                if refused.is_ok_and(|exchange| exchange.head.status == 404) {
                    held.lose();
                }
                if !back.refused() {
                    ledger.note().streams.given_up += 1;
                    return;
                }
            }
        }
        sleep(back.wait).await;
    }
}

/// Reads to the end of the stream; whether it was a proper one.
async fn read(mut exchange: Exchange, back: &mut Return) -> bool {
    let mut events = Events::new(EVENT_BOUND);
    let mut position = Position::default();
    while let Some(chunk) = exchange.chunk().await {
        let Ok(chunk) = chunk else { return false };
        position.pass(&chunk);
        let mut bytes = &chunk[..];
        while let Some(event) = events.next(&mut bytes) {
            back.heard(&event);
        }
    }
    position.is_boundary()
}
