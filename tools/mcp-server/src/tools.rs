//! The tools: what a test needs to hold a call open and to know where it ran.

use std::time::Duration;

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
        PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

/// How often a slow call tells its progress, where the client asked for it.
const PROGRESS: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Tools;

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![
            tool("echo", "Answers with the message", &json!({"message": {"type": "string"}})),
            tool(
                "slow",
                "Answers after that time",
                &json!({"milliseconds": {"type": "integer", "minimum": 0}}),
            ),
            tool("whoami", "Answers with the pod's name", &json!({})),
            tool("crash", "Ends the process with exit code 1, without an answer", &json!({})),
        ]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        // A test waits for this line, to know that the pod has a call in it.
        println!("call {}", request.name);
        let arguments = request.arguments.unwrap_or_default();
        let text = match &*request.name {
            "echo" => text(&arguments, "message")?,
            "slow" => slow(&arguments, &context).await?,
            "whoami" => whoami(),
            "crash" => std::process::exit(1),
            name => {
                return Err(ErrorData::invalid_params(format!("no tool is named `{name}`"), None));
            }
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

async fn slow(
    arguments: &Map<String, Value>,
    context: &RequestContext<RoleServer>,
) -> Result<String, ErrorData> {
    let milliseconds = arguments.get("milliseconds").and_then(Value::as_u64).ok_or_else(|| {
        ErrorData::invalid_params("`milliseconds` has to be a whole number", None)
    })?;
    let began = Instant::now();
    let end = began + Duration::from_millis(milliseconds);
    let token = context.meta.get_progress_token();
    let mut next = began;
    while next < end {
        next = (next + PROGRESS).min(end);
        tokio::select! {
            () = sleep_until(next) => (),
            () = context.ct.cancelled() => {
                return Err(ErrorData::internal_error("the call was cancelled", None));
            }
        }
        if let Some(token) = &token {
            let progress = next.duration_since(began).as_secs_f64();
            let told = ProgressNotificationParam::new(token.clone(), progress);
            // Who asked may be gone; the call runs on, as in any server.
            let _ = context.peer.notify_progress(told).await;
        }
    }
    Ok(format!("{milliseconds} ms in {}", whoami()))
}

fn whoami() -> String {
    let name = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    name.unwrap_or_else(|_| "unknown".into())
}

fn text(arguments: &Map<String, Value>, name: &str) -> Result<String, ErrorData> {
    let text = arguments.get(name).and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| ErrorData::invalid_params(format!("`{name}` has to be a text"), None))
}

/// A tool whose parameters are all required.
fn tool(name: &'static str, description: &'static str, properties: &Value) -> Tool {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("required".into(), json!(required));
    schema.insert("properties".into(), properties.clone());
    Tool::new(name, description, schema)
}
