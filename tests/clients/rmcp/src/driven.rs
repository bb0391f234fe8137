//! A client that does what its standard input says, one JSON command with an id per line,
//! and tells on standard output what it saw: for the tests that end things under it.
//!
//! Never ends by itself before its input does: what fails is told, and the next command awaited.

use std::fmt::Debug;

use anyhow::Context;
use rmcp::{
    Peer, RoleClient, ServiceExt,
    model::{ProtocolVersion, SubscriptionFilter},
    service::{
        ClientLifecycleMode, ClientServiceExt, RunningService, ServiceError, SubscriptionEnd,
    },
    transport::StreamableHttpClientTransport,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    sync::mpsc,
    task::JoinSet,
};

use crate::{Handler, request, say};

pub async fn drive(url: &str, kind: &str) -> anyhow::Result<()> {
    let (sender, mut heard) = mpsc::unbounded_channel();
    let mut doing = JoinSet::new();
    doing.spawn(async move {
        while heard.recv().await.is_some() {
            say("progress", json!({}));
        }
    });
    let mut client: Option<RunningService<RoleClient, Handler>> = None;
    let mut commands = BufReader::new(stdin()).lines();
    while let Some(line) = commands.next_line().await? {
        let command: Value = serde_json::from_str(&line)?;
        if command["do"] == "connect" {
            client = connect(url, kind, Handler { heard: sender.clone() }, &command["id"]).await;
            continue;
        }
        let peer = client.as_ref().context("no connection")?.peer().clone();
        doing.spawn(async move {
            let id = &command["id"];
            let done = match command["do"].as_str() {
                Some("listen") => listen(&peer, id).await,
                _ => call(&peer, &command).await,
            };
            if let Err(error) = done {
                failed(id, &error);
            }
        });
    }
    Ok(())
}

async fn connect(
    url: &str,
    kind: &str,
    handler: Handler,
    id: &Value,
) -> Option<RunningService<RoleClient, Handler>> {
    let transport = StreamableHttpClientTransport::from_uri(url);
    let connected = if kind == "modern" {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        let lifecycle = ClientLifecycleMode::Discover { preferred_versions };
        handler.serve_with_lifecycle(transport, lifecycle).await
    } else {
        handler.serve(transport).await
    };
    match connected {
        Ok(client) => {
            say("connected", json!({ "id": id }));
            Some(client)
        }
        Err(error) => {
            say("failed", json!({ "id": id, "error": variant(&error) }));
            None
        }
    }
}

async fn call(peer: &Peer<RoleClient>, command: &Value) -> Result<(), ServiceError> {
    let name = command["name"].as_str().unwrap_or_default().to_owned();
    let result = peer.call_tool(request(name, &command["arguments"])).await?;
    let step = if result.is_error == Some(true) { "error result" } else { "result" };
    say(step, json!({ "id": command["id"] }));
    Ok(())
}

async fn listen(peer: &Peer<RoleClient>, id: &Value) -> Result<(), ServiceError> {
    let filter = SubscriptionFilter::builder().tools_list_changed().build();
    let mut subscription = peer.listen(filter).await?;
    say("acknowledged", json!({ "id": id }));
    while subscription.next().await?.is_some() {}
    let how = match subscription.end() {
        Some(SubscriptionEnd::Graceful(_)) => "graceful",
        _ => "not graceful",
    };
    say("ended", json!({ "id": id, "how": how }));
    Ok(())
}

fn failed(id: &Value, error: &ServiceError) {
    let error = match error {
        ServiceError::McpError(error) => format!("McpError {}", error.code.0),
        error => variant(error),
    };
    say("failed", json!({ "id": id, "error": error }));
}

/// Its name, of what may carry much.
fn variant(error: &impl Debug) -> String {
    let text = format!("{error:?}");
    let end = text.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(text.len());
    text[..end].to_owned()
}
