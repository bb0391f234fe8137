//! The clients: plain bytes on keep-alive connections, so that they cost little beside what is
//! measured.
//!
//! Never follows more of HTTP than the answers of `upstream` need.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// Connections that call at the same time.
pub const CONNECTIONS: usize = 64;

/// Only a contender that hangs takes so long.
const HANG: Duration = Duration::from_mins(1);

/// The path at which sessions are opened.
pub const SESSIONS: &str = "/sessions";

/// The path of requests that are not known as MCP.
pub const UNKNOWN: &str = "/other";

/// The session that calls are in, where it does not matter.
const SESSION: &str = "0b3f1f9e-5d0c-4a51-9d5c-9a2f8d1a7c11";

/// What a call looks like: 300 bytes of body or 4 KiB, under the headers that MCP clients send.
pub fn post(path: &str, size: usize) -> Vec<u8> {
    post_in(path, size, SESSION)
}

/// The same in that session.
pub fn post_in(path: &str, size: usize, id: &str) -> Vec<u8> {
    let (before, after) = (
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":""#,
        r#""}}}"#,
    );
    let body = format!("{before}{}{after}", "x".repeat(size - before.len() - after.len()));
    // As many headers of the same length, which say nothing about MCP.
    let (media, session) = match path {
        UNKNOWN => ("application/jsom", "mcp-session-no"),
        _ => ("application/json", "mcp-session-id"),
    };
    format!(
        "POST {path} HTTP/1.1\r\nhost: mcp.example.com\r\naccept: application/json, \
         text/event-stream\r\ncontent-type: {media}\r\nmcp-protocol-version: \
         2025-11-25\r\n{session}: {id}\r\nuser-agent: \
         node\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Makes that many calls over all connections together; fails when one is not answered by 200.
pub async fn calls(port: u16, number: usize, path: &str, size: usize) -> anyhow::Result<()> {
    repeat(loopback(port), number, &post(path, size)).await
}

pub fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// The same with any request.
pub async fn repeat(to: SocketAddr, number: usize, request: &[u8]) -> anyhow::Result<()> {
    let request: Arc<[u8]> = request.into();
    let mut connections = JoinSet::new();
    for index in 0..CONNECTIONS {
        let share = number / CONNECTIONS + usize::from(index < number % CONNECTIONS);
        let request = Arc::clone(&request);
        connections.spawn(async move {
            let mut stream = connect_to(to).await?;
            let mut buffer = vec![0; 16 * 1024];
            for _ in 0..share {
                stream.write_all(&request).await?;
                answer(&mut stream, &mut buffer).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    Ok(())
}

/// Opens that many sessions, one after the other; the id of the last.
pub async fn open_sessions(to: SocketAddr, number: usize) -> anyhow::Result<String> {
    let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1.0.0"}}}"#;
    let request = format!(
        "POST {SESSIONS} HTTP/1.1\r\nhost: mcp.example.com\r\naccept: application/json, \
         text/event-stream\r\ncontent-type: application/json\r\nuser-agent: \
         node\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect_to(to).await?;
    let mut buffer = vec![0; 16 * 1024];
    let mut last = String::new();
    for _ in 0..number {
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream, &mut buffer).await?;
        last = session(&buffer).context("an answer without a session")?;
    }
    Ok(last)
}

/// The id of the session that the answer opens.
fn session(answer: &[u8]) -> Option<String> {
    const FIELD: &str = "mcp-session-id: ";
    let head = std::str::from_utf8(&answer[..head_end(answer)?]).ok()?;
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(FIELD))?;
    Some(line[FIELD.len()..].to_owned())
}

pub async fn connect(port: u16) -> anyhow::Result<TcpStream> {
    connect_to(loopback(port)).await
}

async fn connect_to(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one whole answer with a Content-Length.
pub async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    let mut whole = usize::MAX;
    while filled < whole {
        let read = timeout(HANG, stream.read(&mut buffer[filled..])).await??;
        ensure!(read > 0, "the connection was closed before the answer was whole");
        filled += read;
        if whole == usize::MAX
            && let Some(end) = head_end(&buffer[..filled])
        {
            whole = end + content_length(&buffer[..end])?;
        }
    }
    Ok(())
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|part| part == b"\r\n\r\n").map(|at| at + 4)
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        bail!("an answer other than 200: {head}");
    }
    let value = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.lines().next());
    Ok(value.context("an answer without a length")?.trim().parse()?)
}

/// An event stream, open; its first event has come.
pub async fn stream(port: u16) -> anyhow::Result<TcpStream> {
    let mut stream = connect(port).await?;
    let request = "GET /events HTTP/1.1\r\nhost: mcp.example.com\r\naccept: text/event-stream\r\n\
                   mcp-protocol-version: 2025-11-25\r\nmcp-session-id: \
                   0b3f1f9e-5d0c-4a51-9d5c-9a2f8d1a7c11\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut seen = Vec::new();
    while !seen.windows(8).any(|part| part == b"data: {}") {
        let read = timeout(HANG, stream.read_buf(&mut seen)).await.context("no event came")??;
        ensure!(read > 0, "no stream: {}", String::from_utf8_lossy(&seen));
    }
    Ok(stream)
}

/// Whether the rest of a stream ends as a chunked body has to, and not with a reset or a bare end.
pub async fn ends_properly(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = timeout(HANG, stream.read_to_end(&mut rest)).await;
    matches!(read, Ok(Ok(_))) && rest.ends_with(b"0\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_the_session_that_it_opens() {
        let answer = b"HTTP/1.1 200 OK\r\nMcp-Session-Id: e1.Ab\r\nContent-Length: 0\r\n\r\n\0\0";
        assert_eq!(session(answer).as_deref(), Some("e1.Ab"));
        assert_eq!(session(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    }

    #[test]
    fn calls_have_their_size_in_any_session() {
        for id in [SESSION, "e1.another"] {
            let text = String::from_utf8(post_in("/small", 300, id)).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.len(), 300);
            assert!(head.contains(&format!("mcp-session-id: {id}\r\n")), "{head}");
        }
    }
}
