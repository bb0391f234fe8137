//! Every setting of `ebbtide run`, once: flags, environment, file, `--help`, `--print-config` and
//! docs/settings.md all come from this table.
//!
//! Never parses anything.

/// One setting. Durations read `500ms`, `30s`, `2m`.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// The placeholder in `--help`, which says the shape.
    pub shape: &'static str,
    pub default: Option<&'static str>,
    pub help: &'static str,
}

const fn setting(
    name: &'static str,
    shape: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting { name, shape, default, help }
}

pub const TABLE: &[Setting] = &[
    setting(
        "upstream",
        "URL",
        None,
        "Where the MCP server listens, as in http://127.0.0.1:3000; with a COMMAND, the port it \
         will listen on (then http://127.0.0.1:3000 unless given).",
    ),
    setting(
        "listen",
        "ADDRESS",
        Some("0.0.0.0:7070"),
        "Where clients connect: HTTP/1.1 and h2c on one port.",
    ),
    setting(
        "admin",
        "ADDRESS",
        Some("0.0.0.0:7071"),
        "Where probes, preStop hooks, status and metrics are answered.",
    ),
    setting(
        "drain_timeout",
        "DURATION",
        None,
        "Longest time from the trigger of a drain to the cut. Where neither this nor the kill \
         time is known, 30s.",
    ),
    setting(
        "withdraw_timeout",
        "DURATION",
        Some("10s"),
        "Longest wait, in Kubernetes, for the pod to leave its endpoints; the whole wait where \
         ebbtide may not watch them.",
    ),
    setting(
        "settle",
        "DURATION",
        None,
        "Wait after the endpoints are left, for nodes and load balancers to follow. 2s in \
         Kubernetes, else 0s.",
    ),
    setting(
        "quiet",
        "DURATION",
        Some("500ms"),
        "No new connection for this long ends the settle; and no new request for this long ends \
         the drain, while clients keep connections open.",
    ),
    setting(
        "stop_reserve",
        "DURATION",
        Some("2s"),
        "What the server gets to stop after SIGTERM before it is killed.",
    ),
    setting(
        "grace",
        "DURATION",
        None,
        "The pod's grace period, for when the API does not tell the kill time.",
    ),
    setting(
        "refuse_with",
        "ANSWER",
        Some("jsonrpc"),
        "What a call gets that comes too late: `jsonrpc`, HTTP 200 with a JSON-RPC error, which \
         every client survives; or, outside of sessions, `503` with Retry-After, for gateways that try elsewhere.",
    ),
    setting(
        "sessions",
        "REACH",
        Some("reopen"),
        "How far a legacy session reaches: `reopen`, any pod behind the Service forwards its \
         requests to the pod that has it, and where that one is gone another pod opens it anew, \
         without what the server kept in memory for it; `pin`, they are forwarded, and the session \
         ends with its pod; `off`, ids pass unchanged.",
    ),
    setting(
        "session_key_file",
        "FILE",
        None,
        "File with the key that seals what the session ids of clients carry, the same in every \
         pod: 32 bytes in base64 (`openssl rand -base64 32`) or the word `unsealed` in each of one \
         or two lines. The first seals, both open. It is read again when it changes.",
    ),
    setting(
        "max_connections",
        "NUMBER",
        Some("100"),
        "Calls that run on the upstream at once, and so the connections that they use; further \
         ones wait in line.",
    ),
    setting(
        "max_streams",
        "NUMBER",
        Some("1000"),
        "Streams without an end (GET streams, subscriptions, WebSockets) open to the upstream at \
         once, apart from max_connections.",
    ),
    setting(
        "acquire_timeout",
        "DURATION",
        Some("5s"),
        "Longest wait in line for the upstream, then 503 and JSON-RPC error -32012; and for one that \
         restarts or is not there, then 200 and -32011.",
    ),
    setting(
        "idle_timeout",
        "DURATION",
        Some("4s"),
        "When an unused connection to the upstream is dropped. Below the 5s of Node and uvicorn.",
    ),
    setting(
        "response_timeout",
        "DURATION",
        Some("10m"),
        "Longest wait for the head of the upstream's answer; then 504 or JSON-RPC error -32011. \
         0s waits for ever.",
    ),
    setting(
        "max_inbound",
        "NUMBER",
        Some("10000"),
        "Client connections open at once; further ones get 503.",
    ),
    setting(
        "max_header_bytes",
        "BYTES",
        Some("32768"),
        "Largest request head; a larger one gets 431.",
    ),
    setting("max_headers", "NUMBER", Some("100"), "Most header fields of a request; more get 431."),
    setting(
        "header_timeout",
        "DURATION",
        Some("15s"),
        "Longest time in which a request head must arrive, and in which nothing of a request's body \
         may; then 408.",
    ),
    setting(
        "drain_token_file",
        "FILE",
        None,
        "File with the token that lets POST /drain come from elsewhere than loopback \
         (Authorization: Bearer).",
    ),
    setting("log_level", "LEVEL", Some("info"), "error, warn, info, debug or trace."),
    setting("log_format", "FORMAT", Some("json"), "json or text, on stderr."),
];
