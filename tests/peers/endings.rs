//! The ways in which ebbtide or the server end something under a client, one function for each:
//! what the client saw, how long after the ending, and what its next call gives.
//!
//! Never judges: `matrix` does. The next call goes to another ebbtide on the same port before the
//! same server, as it would to the pod that took over: so a session that ends with its server is
//! seen only where the server is what ended.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    driven::{Driven, Given, Kind, Saw},
    harness::{Client, Ebbtide, HANG, Running, Server, step_aside},
    rewriting,
};

/// Longer than any test: a call that only ends because something ends it.
const ENDLESS: u64 = 300;

/// What the page says of a client that never opens its stream anew.
pub const STAYS_WITHOUT: &str = "nothing: it stays without";

pub struct Observed {
    pub saw: String,
    pub after: Option<Duration>,
    pub next: String,
}

impl Observed {
    fn new(began: Instant, saw: Saw, next: String) -> Self {
        let after = saw.at.map(|at| at.saturating_duration_since(began));
        Self { saw: saw.what, after, next }
    }
}

/// One client after the other before one server; how long one is waited for is the page's business.
pub struct Scene {
    pub client: Client,
    pub within: Duration,
    server: Server,
    /// Started anew where it was killed.
    running: Option<Running>,
    upstream: u16,
}

impl Scene {
    pub fn new(client: Client, server: Server, within: Duration) -> Self {
        let (running, upstream) = server.start();
        Self { client, within, server, running: Some(running), upstream }
    }

    fn ebbtide(&self, flags: &[&str]) -> Ebbtide {
        Ebbtide::launch(0, self.upstream, flags, None)
    }

    fn client(&self, kind: Kind, port: u16) -> Driven {
        Driven::connected(self.client, kind, port)
    }

    fn next(&self, driven: &mut Driven, given: impl FnOnce(&mut Driven) -> Given) -> String {
        let given = given(driven);
        let what = driven.saw(given, self.within).what;
        match &*what {
            "the result" | "connected" => "works".into(),
            _ => what,
        }
    }

    /// Its successor on the same port, once it has ended.
    fn replaced(&self, mut ebbtide: Ebbtide) -> Ebbtide {
        ebbtide.process.ended();
        Ebbtide::launch(ebbtide.data, self.upstream, &[], None)
    }

    pub fn completed_in_the_drain(&mut self) -> Observed {
        let ebbtide = self.ebbtide(&[]);
        let mut client = self.client(Kind::Legacy, ebbtide.data);
        self.call_over_a_drain(&mut client, ebbtide)
    }

    pub fn completed_over_sse(&mut self) -> Observed {
        let ebbtide = self.ebbtide(&[]);
        let mut client = self.client(Kind::Sse, ebbtide.data);
        self.call_over_a_drain(&mut client, ebbtide)
    }

    fn call_over_a_drain(&self, client: &mut Driven, ebbtide: Ebbtide) -> Observed {
        let call = client.slow(1);
        client.until(call, "progress");
        let began = Instant::now();
        ebbtide.process.signal("-TERM");
        let saw = client.saw(call, self.within);
        let _successor = self.replaced(ebbtide);
        Observed::new(began, saw, self.next(client, Driven::echo))
    }

    pub fn cut(&mut self, kind: Kind) -> Observed {
        let ebbtide = self.ebbtide(&["--drain-timeout", "500ms"]);
        let mut client = self.client(kind, ebbtide.data);
        let call = client.slow(ENDLESS);
        until(&ebbtide, |in_flight| in_flight["finite"] == 1);
        if matches!(self.server, Server::Python("http")) {
            client.until(call, "progress");
        }
        ebbtide.process.signal("-TERM");
        ebbtide.until_phase("Cutting");
        let began = Instant::now();
        let saw = client.saw(call, self.within);
        let _successor = self.replaced(ebbtide);
        Observed::new(began, saw, self.next(&mut client, Driven::echo))
    }

    pub fn session_idle(&mut self) -> Observed {
        let ebbtide = self.ebbtide(&[]);
        let mut client = self.client(Kind::Legacy, ebbtide.data);
        let began = Instant::now();
        ebbtide.process.signal("-TERM");
        let _successor = self.replaced(ebbtide);
        let saw = Saw { what: "nothing".into(), at: None };
        Observed::new(began, saw, self.next(&mut client, Driven::echo))
    }

    pub fn stand_alone_get(&mut self) -> Observed {
        let ebbtide = self.ebbtide(&[]);
        let mut client = self.client(Kind::Legacy, ebbtide.data);
        until(&ebbtide, |in_flight| in_flight["streams"] == 1);
        // Calls that came later are answered: so is the head of the stream. Before that it is
        // refused, and no client asks again for a stream that it never had.
        for _ in 0..2 {
            let echo = client.echo();
            client.until(echo, "result");
        }
        ebbtide.process.signal("-TERM");
        ebbtide.until_phase("Draining");
        let began = Instant::now();
        let successor = self.replaced(ebbtide);
        let anew = became(&successor, self.within, |in_flight| in_flight["streams"] == 1);
        let saw = match anew {
            Ok(at) => Saw { what: "opens it anew".into(), at: Some(at) },
            Err(_) => Saw { what: STAYS_WITHOUT.into(), at: None },
        };
        Observed::new(began, saw, self.next(&mut client, Driven::echo))
    }

    pub fn subscription(&mut self) -> Observed {
        let ebbtide = self.ebbtide(&[]);
        let mut client = self.client(Kind::Modern, ebbtide.data);
        let listen = client.listen();
        client.until(listen, "acknowledged");
        ebbtide.process.signal("-TERM");
        ebbtide.until_phase("Draining");
        let began = Instant::now();
        let saw = client.saw(listen, self.within);
        let _successor = self.replaced(ebbtide);
        Observed::new(began, saw, self.next(&mut client, Driven::echo))
    }

    pub fn crash(&mut self, kind: Kind) -> Observed {
        let ebbtide = self.ebbtide(&[]);
        let mut client = self.client(kind, ebbtide.data);
        let call = client.slow(ENDLESS);
        client.until(call, "progress");
        let began = Instant::now();
        self.running = None;
        let saw = client.saw(call, self.within);
        self.running = Some(self.server.start_on(self.upstream));
        Observed::new(began, saw, self.next(&mut client, Driven::echo))
    }

    /// What a drain is to spare the client.
    pub fn killed(&mut self) -> Observed {
        let ebbtide = self.ebbtide(&[]);
        let mut client = self.client(Kind::Legacy, ebbtide.data);
        let call = client.slow(ENDLESS);
        client.until(call, "progress");
        let began = Instant::now();
        ebbtide.process.signal("-KILL");
        let saw = client.saw(call, self.within);
        let _successor = self.replaced(ebbtide);
        Observed::new(began, saw, self.next(&mut client, Driven::echo))
    }

    /// `status`: what the client sees in place of ebbtide's 503.
    pub fn exhausted(&mut self, status: Option<&'static str>) -> Observed {
        let ebbtide = self.ebbtide(&["--max-connections", "1", "--acquire-timeout", "100ms"]);
        let port = match status {
            Some(status) => {
                rewriting::start(ebbtide.data, "HTTP/1.1 503 Service Unavailable", status)
            }
            None => ebbtide.data,
        };
        let mut client = self.client(Kind::Legacy, port);
        let occupied = occupy(&ebbtide);
        let call = client.echo();
        let began = Instant::now();
        let saw = client.saw(call, self.within);
        drop(occupied);
        until(&ebbtide, |in_flight| in_flight["finite"] == 0);
        Observed::new(began, saw, self.next(&mut client, Driven::echo))
    }

    pub fn refused_initialize(&mut self) -> Observed {
        let ebbtide = self.ebbtide(&["--drain-timeout", "60s"]);
        let occupied = occupy(&ebbtide);
        ebbtide.process.signal("-TERM");
        ebbtide.until_phase("Draining");
        let mut client = Driven::start(self.client, Kind::Legacy, ebbtide.data);
        let connect = client.connect();
        let began = Instant::now();
        let saw = client.saw(connect, self.within);
        drop(occupied);
        let _successor = self.replaced(ebbtide);
        Observed::new(began, saw, self.next(&mut client, Driven::connect))
    }
}

/// Waits for that state of what is in flight.
fn until(ebbtide: &Ebbtide, state: impl Fn(&Value) -> bool) {
    if let Err(status) = became(ebbtide, HANG, state) {
        panic!("it never came to that: {status}");
    }
}

/// When that became the state of what is in flight, or the last status.
fn became(
    ebbtide: &Ebbtide,
    within: Duration,
    state: impl Fn(&Value) -> bool,
) -> Result<Instant, Value> {
    let began = Instant::now();
    loop {
        let status = ebbtide.status();
        if state(&status["in_flight"]) {
            return Ok(Instant::now());
        }
        if began.elapsed() > within {
            return Err(status);
        }
        step_aside();
    }
}

/// A call of somebody else, as long as the connection is kept: to drop it is to cancel the call.
fn occupy(ebbtide: &Ebbtide) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", ebbtide.data)).unwrap();
    let name = "trigger-long-running-operation";
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": name, "arguments": { "duration": ENDLESS, "steps": 1 },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "somebody", "version": "0" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let body = body.to_string();
    let length = body.len();
    let port = ebbtide.data;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nAccept: \
         application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: \
         tools/call\r\nMcp-Name: {name}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    until(ebbtide, |in_flight| in_flight["finite"] == 1);
    stream
}
