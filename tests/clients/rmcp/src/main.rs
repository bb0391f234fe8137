//! The Rust SDK (rmcp) takes the steps that client.mjs and client.py take.
//! Usage: ebbtide-test-client URL steps|slow|legacy|modern|hold [MILLISECONDS]. Prints one JSON line per step.
//!
//! Never judges what it sees: the test that started it does.

#![allow(deprecated, reason = "legacy servers still ask for sampling")]

mod driven;

use std::borrow::Cow;

use anyhow::Context;
use rmcp::{
    ClientHandler, ErrorData, Peer, RoleClient, ServiceExt,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientConfig, CreateMessageRequestParams,
        CreateMessageResult, Implementation, ProgressNotificationParam, SamplingCapability,
        SamplingMessage,
    },
    service::{NotificationContext, RequestContext},
    transport::StreamableHttpClientTransport,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Answers every sampling request, and hands on what progress it hears.
struct Handler {
    heard: mpsc::UnboundedSender<f64>,
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.sampling = Some(SamplingCapability::default());
        ClientConfig::new(capabilities, Implementation::new("rmcp", "0"))
    }

    async fn create_message(
        &self,
        _: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text("sampled"), "test".into()))
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        // Nobody listens any more only when everything ends anyway.
        let _ = self.heard.send(progress.progress);
    }
}

/// What hangs is told, within the test's patience.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(45);

fn say(step: &str, mut value: Value) {
    value["step"] = step.into();
    println!("{value}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("no URL")?;
    let what = arguments.next().context("no steps|slow|legacy|modern|hold")?;
    if matches!(&*what, "legacy" | "modern") {
        return driven::drive(&url, &what).await;
    }
    let slow = what == "slow";
    let (sender, heard) = mpsc::unbounded_channel();
    // Nothing is held yet that could be lost: as hold.mjs and hold.py do.
    let mut tries = if what == "hold" { 50 } else { 0 };
    let client = loop {
        let transport = StreamableHttpClientTransport::from_uri(url.clone());
        match (Handler { heard: sender.clone() }).serve(transport).await {
            Ok(client) => break client,
            Err(error) if tries == 0 => return Err(error.into()),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
        tries -= 1;
    };
    let server = client.peer_info();
    let server = server.as_ref().and_then(|info| info.server_info.as_ref());
    say("connected", json!({ "server": server.map(|server| &server.name) }));
    if what == "hold" {
        let milliseconds = arguments.next().context("no MILLISECONDS")?.parse()?;
        return hold(&client, milliseconds).await;
    }
    if slow {
        play_slow(&client, heard).await?;
    } else {
        play(&client, heard).await?;
    }
    // Ends the session with DELETE.
    client.cancel().await?;
    say("terminated", json!({}));
    Ok(())
}

/// Calls a slow tool until its standard input ends, as hold.mjs and hold.py do. When its session is
/// gone the SDK opens another, and nobody hears of it.
async fn hold(client: &Peer<RoleClient>, milliseconds: u64) -> anyhow::Result<()> {
    let (mut input, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
    let mut end = std::pin::pin!(tokio::io::copy(&mut input, &mut nowhere));
    let mut ends = false;
    say("ready", json!({}));
    while !ends {
        let called = call(client, "slow", json!({ "milliseconds": milliseconds }));
        let mut called = std::pin::pin!(tokio::time::timeout(PATIENCE, called));
        let called = loop {
            tokio::select! {
                called = &mut called => break called,
                _ = &mut end, if !ends => ends = true,
            }
        };
        let error = match called {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("it hangs".to_owned()),
        };
        say("call", json!({ "error": error }));
    }
    std::process::exit(0);
}

async fn play_slow(
    client: &Peer<RoleClient>,
    mut heard: mpsc::UnboundedReceiver<f64>,
) -> anyhow::Result<()> {
    let mut result = std::pin::pin!(call(
        client,
        "trigger-long-running-operation",
        json!({ "duration": 3, "steps": 6 })
    ));
    loop {
        tokio::select! {
            Some(progress) = heard.recv() => say("progress", json!({ "progress": progress })),
            texts = &mut result => {
                say("result", json!({ "texts": texts? }));
                return Ok(());
            }
        }
    }
}

async fn play(
    client: &Peer<RoleClient>,
    mut heard: mpsc::UnboundedReceiver<f64>,
) -> anyhow::Result<()> {
    let tools = client.list_all_tools().await?;
    let mut names: Vec<_> = tools.iter().map(|tool| tool.name.clone()).collect();
    names.sort();
    say("tools", json!({ "names": names }));
    let texts = call(client, "echo", json!({ "message": "héllo \"world\"" })).await?;
    say("echo", json!({ "texts": texts }));
    let texts =
        call(client, "trigger-long-running-operation", json!({ "duration": 0.3, "steps": 3 }));
    let texts = texts.await?;
    // The SDK hands each notification to a task of its own: they may come after the result.
    let mut progress = Vec::new();
    while progress.len() < 3 {
        progress.push(heard.recv().await.context("the client has ended")?);
    }
    progress.sort_by(f64::total_cmp);
    say("long", json!({ "texts": texts, "heard": progress }));
    // A server-to-client request, where the server has one.
    if names.iter().any(|name| name == "trigger-sampling-request") {
        let texts =
            call(client, "trigger-sampling-request", json!({ "prompt": "hi", "maxTokens": 5 }));
        say("sampling", json!({ "texts": texts.await? }));
    }
    Ok(())
}

async fn call(
    client: &Peer<RoleClient>,
    name: &'static str,
    arguments: Value,
) -> anyhow::Result<Vec<String>> {
    let result = client.call_tool(request(name, &arguments)).await?;
    let text = |part: &rmcp::model::ContentBlock| {
        part.as_text().map_or_else(|| "no text".to_owned(), |part| part.text.clone())
    };
    Ok(result.content.iter().map(text).collect())
}

fn request(name: impl Into<Cow<'static, str>>, arguments: &Value) -> CallToolRequestParams {
    let mut request = CallToolRequestParams::new(name);
    request.arguments = arguments.as_object().cloned();
    request
}
