"""A server by the Python SDK's second generation, both eras on one endpoint, with what the
conformance suite and the other tests call. Usage: server.py PORT http|json|resumable|sse."""

import asyncio
import sys

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.streamable_http import EventMessage, EventStore
from mcp_types import (
    AudioContent,
    Completion,
    EmbeddedResource,
    ImageContent,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel, Field

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
SILENCE = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="

server = MCPServer("python-v2-test", log_level="ERROR")


class Events(EventStore):
    """What a client that comes back with Last-Event-ID has missed."""

    def __init__(self):
        self.events = []

    async def store_event(self, stream_id, message):
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id, send_callback):
        last = int(last_event_id)
        stream = self.events[last - 1][0]
        for number, (its_stream, message) in enumerate(self.events, start=1):
            if number > last and its_stream == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


@server.tool(description="for the suite")
def echo(message: str) -> str:
    return f"Echo: {message}"


@server.tool(name="trigger-long-running-operation", description="slow")
async def slow(duration: float, steps: int, ctx: Context) -> str:
    for step in range(1, steps + 1):
        await asyncio.sleep(duration / steps)
        await ctx.report_progress(step, steps)
    return f"completed in {steps} steps"


def embedded(uri, text):
    resource = TextResourceContents(uri=uri, mime_type="text/plain", text=text)
    return EmbeddedResource(type="resource", resource=resource)


def image():
    return ImageContent(type="image", data=PIXEL, mime_type="image/png")


@server.tool(description="for the suite", structured_output=False)
def test_simple_text() -> str:
    return "This is a simple text response for testing."


@server.tool(description="for the suite", structured_output=False)
def test_image_content() -> list:
    return [image()]


@server.tool(description="for the suite", structured_output=False)
def test_audio_content() -> list:
    return [AudioContent(type="audio", data=SILENCE, mime_type="audio/wav")]


@server.tool(description="for the suite", structured_output=False)
def test_embedded_resource() -> list:
    return [embedded("test://embedded-resource", "embedded")]


@server.tool(description="for the suite", structured_output=False)
def test_multiple_content_types() -> list:
    text = TextContent(type="text", text="Multiple content types test:")
    return [text, image(), embedded("test://mixed-content-resource", "mixed")]


@server.tool(description="for the suite")
async def test_tool_with_logging(ctx: Context) -> str:
    for text in ["Tool execution started", "Tool processing data", "Tool execution completed"]:
        await ctx.info(text)
        await asyncio.sleep(0.05)
    return "done"


@server.tool(description="for the suite")
async def test_tool_with_progress(ctx: Context) -> str:
    for progress in [0, 50, 100]:
        await ctx.report_progress(progress, 100, f"Completed step {progress} of 100")
        await asyncio.sleep(0.05)
    return "done"


@server.tool(description="for the suite")
def test_error_handling() -> str:
    raise RuntimeError("This tool intentionally returns an error for testing")


@server.tool(description="for the suite")
async def test_reconnection(ctx: Context) -> str:
    await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return "Reconnection test completed"


@server.tool(description="for the suite")
async def test_sampling(prompt: str, ctx: Context) -> str:
    question = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    result = await ctx.session.create_message(
        messages=[question], max_tokens=100, related_request_id=ctx.request_id
    )
    return f"LLM response: {result.content.text}"


class Answer(BaseModel):
    response: str = Field(description="User's response")


class Defaults(BaseModel):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = True


async def elicited(ctx, message, schema):
    result = await ctx.elicit(message, schema)
    content = result.data.model_dump_json() if result.action == "accept" else "{}"
    return f"action={result.action}, content={content}"


@server.tool(description="for the suite")
async def test_elicitation(message: str, ctx: Context) -> str:
    return await elicited(ctx, message, Answer)


@server.tool(description="for the suite")
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    return await elicited(ctx, "Please review the defaults", Defaults)


@server.resource("test://static-text")
def static_text() -> str:
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    return bytes([0x89, 0x50, 0x4E, 0x47, 0, 255])


@server.resource("test://template/{id}/data", mime_type="application/json")
def templated(id: str) -> str:
    return f'{{"id": "{id}", "templateTest": true}}'


@server.resource("test://watched-resource")
def watched() -> str:
    return "watched"


@server.prompt(description="for the suite")
def test_simple_prompt() -> str:
    return "This is a simple prompt for testing."


@server.prompt(description="for the suite")
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt(description="for the suite")
def test_prompt_with_embedded_resource(resourceUri: str) -> list:
    return [UserMessage(embedded(resourceUri, "embedded")), UserMessage("Process the resource above.")]


@server.prompt(description="for the suite")
def test_prompt_with_image() -> list:
    return [UserMessage(image()), UserMessage("Analyze the image above.")]


@server.completion()
async def complete(ref, argument, context):
    return Completion(values=[], total=0, has_more=False)


port, mode = int(sys.argv[1]), sys.argv[2]
if mode == "sse":
    server.run("sse", port=port)
elif mode == "resumable":
    server.run("streamable-http", port=port, event_store=Events(), retry_interval=100)
else:
    server.run("streamable-http", port=port, json_response=mode == "json")
