//! The same transcript with and without ebbtide, and no call lost to a SIGTERM.

use std::{net::TcpStream, process::ExitStatus};

use serde_json::Value;

use crate::harness::{Client, Ebbtide, Server, free_port};

fn same_with_and_without(client: Client, server: Server) {
    let (_server, port) = server.start();
    let direct = client.transcript(port);
    let ebbtide = Ebbtide::start(port, None);
    assert_eq!(client.transcript(ebbtide.data), direct);
    assert_eq!(direct.last().unwrap()["step"], "terminated");
}

/// Runs a slow call, sends the signal once its progress shows that it runs; the call's last line.
fn signalled(
    client: Client,
    mut ebbtide: Ebbtide,
    signal: &str,
) -> (Option<Value>, ExitStatus, Ebbtide) {
    let (_client, mut lines) = client.start(ebbtide.data, "slow");
    let mut last = None;
    let mut sent = false;
    while let Some(Ok(line)) = lines.next() {
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["step"] == "progress" && !sent {
            ebbtide.process.signal(signal);
            sent = true;
        }
        if line["step"] != "terminated" {
            last = Some(line);
        }
        if sent && signal == "-KILL" {
            break;
        }
    }
    assert!(sent, "the call never ran");
    let status = ebbtide.process.ended();
    (last, status, ebbtide)
}

fn survives_sigterm(client: Client, server: Server) {
    let (_server, port) = server.start();
    let (last, status, ebbtide) = signalled(client, Ebbtide::start(port, None), "-TERM");
    assert_eq!(last.expect("the client saw something")["step"], "result");
    assert_eq!(status.code(), Some(0));
    let report = ebbtide.logged("drain report");
    assert_eq!((&report["cut"], &report["lost"]), (&Value::from(0), &Value::from(0)));
}

macro_rules! pairs {
    ($($name:ident: $client:ident, $server:ident;)*) => {
        mod same_transcript {
            use super::*;
            $(#[test] fn $name() { same_with_and_without(Client::$client, Server::$server); })*
        }
        mod sigterm_in_a_call {
            use super::*;
            $(#[test] fn $name() { survives_sigterm(Client::$client, Server::$server); })*
        }
    };
}

pairs! {
    typescript_v1_everything: TypeScript1, Everything;
    typescript_v2_everything: TypeScript2, Everything;
    python_v1_everything: Python1, Everything;
    python_v2_everything: Python2, Everything;
    rmcp_everything: Rmcp, Everything;
    typescript_v1_fastmcp: TypeScript1, FastMcp;
    typescript_v2_fastmcp: TypeScript2, FastMcp;
    python_v1_fastmcp: Python1, FastMcp;
    python_v2_fastmcp: Python2, FastMcp;
    rmcp_fastmcp: Rmcp, FastMcp;
}

/// As in a container's ENTRYPOINT: the server is ebbtide's child.
#[test]
fn a_supervised_server_is_stopped_after_the_call() {
    for server in [Server::Everything, Server::FastMcp] {
        let port = free_port();
        let ebbtide = Ebbtide::start(port, Some(server.command(port)));
        let (last, status, _) = signalled(Client::Python2, ebbtide, "-TERM");
        assert_eq!(last.unwrap()["step"], "result");
        assert_eq!(status.code(), Some(0));
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the server runs on");
    }
}

/// The harness sees a lost call: SIGKILL gives the proxy no chance.
#[test]
fn the_harness_notices_a_lost_call() {
    let (_server, port) = Server::FastMcp.start();
    let (last, status, _) = signalled(Client::Python2, Ebbtide::start(port, None), "-KILL");
    assert_ne!(last.unwrap()["step"], "result");
    assert_eq!(status.code(), None);
}
