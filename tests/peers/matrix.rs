//! docs/clients.md: what each client saw of each ending, written from a run by `make clients`, and
//! held to by the tests here. Times stand on the page and are never compared.
//!
//! Never lets a client hang, or be of no use afterwards, unless `FLAWS` says why.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    driven::{HANGS, Kind},
    endings::{Observed, STAYS_WITHOUT, Scene},
    harness::{
        Client::{self, Python1, Python2, Rmcp, TypeScript1, TypeScript2},
        Server,
    },
};

/// A client that has not seen anything by then hangs: their own time-outs are a minute or none.
const LONG: Duration = Duration::from_secs(30);
/// Where the page says that it hangs: seen often enough to be no answer on its way.
const KNOWN_TO_HANG: Duration = Duration::from_secs(3);

struct Ending {
    title: &'static str,
    /// What happened, and what the times on the page count from.
    about: &'static str,
    server: Server,
    clients: &'static [Client],
    play: fn(&mut Scene) -> Observed,
}

const ALL: &[Client] = &[TypeScript1, TypeScript2, Python1, Python2, Rmcp];
/// The first generations of the SDKs do not speak MCP 2026-07-28.
const MODERN: &[Client] = &[TypeScript2, Python2, Rmcp];
const STREAMING: Server = Server::Python("http");

const COMPLETED: Ending = Ending {
    title: "Completed in the drain",
    about: "SIGTERM to ebbtide, a second before the call would end. The time is from SIGTERM.",
    server: STREAMING,
    clients: ALL,
    play: Scene::completed_in_the_drain,
};
const CUT_BEFORE_HEADERS: Ending = Ending {
    title: "Cut before the headers",
    about: "The deadline comes; the server answers in JSON and has not begun to.",
    server: Server::Python("json"),
    clients: ALL,
    play: |scene| scene.cut(Kind::Legacy),
};
const CUT_IN_THE_STREAM: Ending = Ending {
    title: "Cut in the stream",
    about: "The deadline comes; progress was streamed already.",
    server: STREAMING,
    clients: ALL,
    play: |scene| scene.cut(Kind::Legacy),
};
const CUT_WITHOUT_SESSION: Ending = Ending {
    title: "Cut in the stream, without a session",
    about: "The same with MCP 2026-07-28.",
    server: STREAMING,
    clients: MODERN,
    play: |scene| scene.cut(Kind::Modern),
};
const SESSION_IDLE: Ending = Ending {
    title: "Session idle at the drain",
    about: "SIGTERM to ebbtide while the client has a session and no call.",
    server: STREAMING,
    clients: ALL,
    play: Scene::session_idle,
};
const STAND_ALONE_GET: Ending = Ending {
    title: "Stand-alone GET at the drain",
    about: "ebbtide ends the stream with `retry: 3000` to `5000`; the client comes back when it likes.",
    server: STREAMING,
    clients: ALL,
    play: Scene::stand_alone_get,
};
const SUBSCRIPTION: Ending = Ending {
    title: "subscriptions/listen at the drain",
    about: "MCP 2026-07-28: ebbtide gives the subscription its result.",
    server: STREAMING,
    clients: MODERN,
    play: Scene::subscription,
};
const CRASH: Ending = Ending {
    title: "The server crashes in a call",
    about: "SIGKILL to the server after some progress; the next call is made when it is back, without its sessions, which ebbtide opens anew.",
    server: STREAMING,
    clients: ALL,
    play: |scene| scene.crash(Kind::Legacy),
};
const CRASH_WITHOUT_SESSION: Ending = Ending {
    title: "The server crashes in a call, without a session",
    about: "The same with MCP 2026-07-28.",
    server: STREAMING,
    clients: MODERN,
    play: |scene| scene.crash(Kind::Modern),
};
const EXHAUSTED: Ending = Ending {
    title: "Pool exhausted",
    about: "HTTP 503 with JSON-RPC error -32012 after `acquire_timeout` (here 100 ms). The time is from the call.",
    server: STREAMING,
    clients: ALL,
    play: |scene| scene.exhausted(None),
};
const EXHAUSTED_200: Ending = Ending {
    title: "Pool exhausted, were it HTTP 200",
    about: "The same answer, its status changed on the way: what ebbtide does not do.",
    server: STREAMING,
    clients: ALL,
    play: |scene| scene.exhausted(Some("HTTP/1.1 200 OK")),
};
const REFUSED_INITIALIZE: Ending = Ending {
    title: "Refused initialize",
    about: "A client comes while the pod drains: HTTP 503. The next call is to connect anew, elsewhere. The time is from the start of the client.",
    server: STREAMING,
    clients: ALL,
    play: Scene::refused_initialize,
};
const SSE: Ending = Ending {
    title: "HTTP+SSE in a call",
    about: "SIGTERM to ebbtide, a second before the call would end. The Rust SDK has no such transport.",
    server: Server::Python("sse"),
    clients: &[TypeScript1, TypeScript2, Python1, Python2],
    play: Scene::completed_over_sse,
};

const ENDINGS: &[Ending] = &[
    COMPLETED,
    CUT_BEFORE_HEADERS,
    CUT_IN_THE_STREAM,
    CUT_WITHOUT_SESSION,
    SESSION_IDLE,
    STAND_ALONE_GET,
    SUBSCRIPTION,
    CRASH,
    CRASH_WITHOUT_SESSION,
    EXHAUSTED,
    EXHAUSTED_200,
    REFUSED_INITIALIZE,
    SSE,
];

/// Cells that hang, or leave a client of no use, and whose fault that is.
const FLAWS: &[(&str, &[Client], &str)] = &[
    (
        EXHAUSTED.title,
        &[Python1],
        "A 503 ends this SDK's whole transport, and every call and the session with it.",
    ),
    (
        SSE.title,
        &[TypeScript1, TypeScript2, Python1, Python2],
        "The session is the stream, which ends with its pod once the call is answered on it; these SDKs do not come back with a new one.",
    ),
];

fn name(client: Client) -> &'static str {
    match client {
        TypeScript1 => "TypeScript 1 (@modelcontextprotocol/sdk 1.32)",
        TypeScript2 => "TypeScript 2 (@modelcontextprotocol/client 2.4)",
        Python1 => "Python 1 (mcp 1.30)",
        Python2 => "Python 2 (mcp 2.3)",
        Rmcp => "Rust (rmcp 3.11)",
    }
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md")
}

/// What the page says that the client saw, and of its next call.
fn written(text: &str, ending: &Ending, client: Client) -> Option<(String, String)> {
    let section = text.split("\n## ").find(|section| section.starts_with(ending.title))?;
    let row = section.lines().find(|line| line.starts_with(&format!("| {} |", name(client))))?;
    let cells: Vec<_> = row.split(" | ").collect();
    Some((cells[1].to_owned(), cells[3].trim_end_matches(" |").to_owned()))
}

fn holds(ending: &Ending) {
    let text = fs::read_to_string(page()).unwrap_or_default();
    let mut wrong = String::new();
    let mut scene = Scene::new(ending.clients[0], ending.server, LONG);
    for client in ending.clients.iter().copied() {
        let written = written(&text, ending, client);
        let known = |text: &String| text == HANGS || text == STAYS_WITHOUT;
        let hangs = written.as_ref().is_some_and(|(saw, next)| known(saw) || known(next));
        let within = if hangs { KNOWN_TO_HANG } else { LONG };
        (scene.client, scene.within) = (client, within);
        let seen = (ending.play)(&mut scene);
        let seen = (seen.saw, seen.next);
        if written.as_ref() != Some(&seen) {
            let _ = writeln!(wrong, "{}: {seen:?}, and the page {written:?}", name(client));
        }
        let flaw = |flaw: &&(&str, &[Client], &str)| flaw.0 == ending.title;
        let flawed = FLAWS.iter().filter(flaw).any(|flaw| flaw.1.contains(&client));
        let fine = seen.0 != HANGS && seen.0 != STAYS_WITHOUT && seen.1 == "works";
        if fine == flawed {
            let _ = writeln!(wrong, "{}: {seen:?}, and FLAWS has it: {flawed}", name(client));
        }
    }
    assert!(wrong.is_empty(), "{}\n{wrong}`make clients` writes the page anew", ending.title);
}

macro_rules! endings {
    ($($test:ident: $ending:expr;)*) => { $(#[test] fn $test() { holds(&$ending); })* };
}

endings! {
    completed_in_the_drain: COMPLETED;
    cut_before_the_headers: CUT_BEFORE_HEADERS;
    cut_in_the_stream: CUT_IN_THE_STREAM;
    cut_without_a_session: CUT_WITHOUT_SESSION;
    session_idle: SESSION_IDLE;
    stand_alone_get: STAND_ALONE_GET;
    subscription: SUBSCRIPTION;
    the_server_crashes: CRASH;
    the_server_crashes_without_a_session: CRASH_WITHOUT_SESSION;
    pool_exhausted: EXHAUSTED;
    pool_exhausted_as_200: EXHAUSTED_200;
    refused_initialize: REFUSED_INITIALIZE;
}

#[test]
fn http_sse() {
    holds(&SSE);
}

#[test]
#[ignore = "writes docs/clients.md: make clients"]
fn write_the_page() {
    let mut text = String::from(INTRODUCTION);
    for ending in ENDINGS {
        let _ = write!(text, "\n## {}\n\n{}\n\n{HEADINGS}", ending.title, ending.about);
        let mut scene = Scene::new(ending.clients[0], ending.server, LONG);
        for client in ending.clients.iter().copied() {
            scene.client = client;
            let seen = (ending.play)(&mut scene);
            let after =
                seen.after.map_or("–".into(), |after| format!("{} ms", after.as_millis()));
            let name = name(client);
            let _ = writeln!(text, "| {name} | {} | {after} | {} |", seen.saw, seen.next);
        }
        for (_, clients, why) in FLAWS.iter().filter(|flaw| flaw.0 == ending.title) {
            let names: Vec<_> = clients.iter().copied().map(name).collect();
            let _ = writeln!(text, "\n{}: {why}", names.join(", "));
        }
    }
    fs::write(page(), text).unwrap();
}

const HEADINGS: &str = "| client | saw | after | next call |\n|---|---|---|---|\n";

const INTRODUCTION: &str = "\
# What clients see when something ends

Real clients through ebbtide to a real server (the Python SDK's, mcp 2.3), each ending played to each.
The next call is made on the same client, and goes to another ebbtide before the same server.
Clients speak the eras with `initialize` and sessions, except for `subscriptions/listen`.
`McpError -32010` and the like name the SDK's error and the JSON-RPC code in it.
Times are those of one run on one machine: the tests compare everything else with this page.
This page is written by `make clients`.
";

/// A client that hangs is seen to: SIGKILL gives ebbtide no chance to end its call.
#[test]
fn the_harness_notices_a_hang() {
    let mut scene = Scene::new(TypeScript2, STREAMING, KNOWN_TO_HANG);
    assert_eq!(scene.killed().saw, HANGS);
}

#[test]
fn a_row_of_the_page_is_read() {
    let name = name(Rmcp);
    let text = format!("# A\n\n## {}\n\nB\n\n{HEADINGS}| {name} | x | 1 ms | y |\n", CRASH.title);
    assert_eq!(written(&text, &CRASH, Rmcp), Some(("x".into(), "y".into())));
    assert_eq!(written(&text, &CRASH, Python1), None);
    assert_eq!(written(&text, &SSE, Rmcp), None);
}
