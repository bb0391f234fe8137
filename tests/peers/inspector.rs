//! The MCP Inspector's command line finds the same through ebbtide, and a server that refuses a
//! foreign Host refuses it through ebbtide, too.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
};

use crate::harness::{Ebbtide, HANG, Server, peers};

/// Whether it succeeded, and what it printed.
fn inspect(port: u16, method: &[&str]) -> (bool, String) {
    let clients = peers().join("clients");
    // What it keeps between runs it keeps below HOME.
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inspector");
    fs::create_dir_all(&home).unwrap();
    let package = "inspector/node_modules/@modelcontextprotocol/inspector";
    let output = Command::new(clients.join("conformance/node_modules/node/bin/node"))
        .arg(clients.join(package).join("clients/launcher/build/index.js"))
        .args(["--cli", &format!("http://127.0.0.1:{port}/mcp"), "--transport", "http"])
        .args(method)
        .env("HOME", home)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_inspector_sees_the_same() {
    let call = ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hi"];
    for server in [Server::Everything, Server::TypeScript, Server::Python("http")] {
        let (_server, port) = server.start();
        let ebbtide = Ebbtide::start(port, None);
        for (method, found) in
            [(&["--method", "tools/list"][..], "inputSchema"), (&call, "Echo: hi")]
        {
            let direct = inspect(port, method);
            assert!(direct.0 && direct.1.contains(found), "{}", direct.1);
            assert_eq!(inspect(ebbtide.data, method), direct);
        }
    }
}

fn status_of(port: u16, host: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let length = body.len();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nAccept: \
         application/json, text/event-stream\r\nContent-Length: {length}\r\nConnection: \
         close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_foreign_host_is_refused_by_the_server() {
    let (_server, port) = Server::Python("http").start();
    let ebbtide = Ebbtide::start(port, None);
    for port in [port, ebbtide.data] {
        assert_eq!(status_of(port, "evil.example"), "421");
        assert_ne!(status_of(port, "localhost:1"), "421");
    }
}
