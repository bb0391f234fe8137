// A server by the TypeScript SDK's second generation, both eras on one endpoint, with what the
// conformance suite calls. Usage: server.mjs PORT.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import {
  localhostHostValidation,
  NodeStreamableHTTPServerTransport,
  toNodeHandler,
} from "@modelcontextprotocol/node";
import { createMcpHandler, McpServer, ResourceTemplate } from "@modelcontextprotocol/server";
import { z } from "zod";

const pixel =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
const silence = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=";
const text = (text) => ({ type: "text", text });
const image = { type: "image", data: pixel, mimeType: "image/png" };
const embedded = (uri) => ({ type: "resource", resource: { uri, mimeType: "text/plain", text: "embedded" } });
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
// Else it goes to the stand-alone GET, and nowhere if that has not come yet.
const onThisStream = (ctx) => ({ relatedRequestId: ctx.mcpReq.id });

function mcpServer() {
  const server = new McpServer(
    { name: "typescript-v2-test", version: "0" },
    { capabilities: { logging: {}, completions: {}, resources: { subscribe: true } } },
  );
  const tool = (name, inputSchema, run) =>
    server.registerTool(name, { description: name, inputSchema: z.object(inputSchema) }, async (args, ctx) => ({
      content: [await run(args, ctx)].flat(),
    }));
  tool("echo", { message: z.string() }, ({ message }) => text(`Echo: ${message}`));
  tool("test_simple_text", {}, () => text("This is a simple text response for testing."));
  tool("test_image_content", {}, () => image);
  tool("test_audio_content", {}, () => ({ type: "audio", data: silence, mimeType: "audio/wav" }));
  tool("test_embedded_resource", {}, () => embedded("test://embedded-resource"));
  tool("test_multiple_content_types", {}, () => [text("mixed"), image, embedded("test://mixed-content-resource")]);
  // Headers that a client makes of arguments (MCP 2026-07-28), with any text in them.
  const region = z.string().meta({ "x-mcp-header": "Region" });
  tool("test_custom_headers", { region }, ({ region }) => text(region));
  tool("test_error_handling", {}, () => {
    throw new Error("This tool intentionally returns an error for testing");
  });
  tool("test_tool_with_logging", {}, async (_, ctx) => {
    for (const said of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
      await ctx.mcpReq.log("info", said);
      await pause(50);
    }
    return text("done");
  });
  tool("test_tool_with_progress", {}, async (_, ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken ?? 0;
    for (const progress of [0, 50, 100]) {
      await ctx.mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
      await pause(50);
    }
    return text("done");
  });
  tool("test_reconnection", {}, async (_, ctx) => {
    ctx.http?.closeSSE?.();
    await pause(200);
    return text("Reconnection test completed");
  });
  tool("test_sampling", { prompt: z.string() }, async ({ prompt }, ctx) => {
    const messages = [{ role: "user", content: text(prompt) }];
    const answer = await ctx.mcpReq.requestSampling({ messages, maxTokens: 100 }, onThisStream(ctx));
    return text(`LLM response: ${answer.content.text}`);
  });
  const elicited = async (ctx, message, properties, required) => {
    const requestedSchema = { type: "object", properties, required };
    const answer = await ctx.mcpReq.elicitInput({ message, requestedSchema }, onThisStream(ctx));
    return text(`action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`);
  };
  tool("test_elicitation", { message: z.string() }, ({ message }, ctx) =>
    elicited(ctx, message, { response: { type: "string" } }, ["response"]),
  );
  tool("test_elicitation_sep1034_defaults", {}, (_, ctx) =>
    elicited(ctx, "Please review the defaults", {
      name: { type: "string", default: "John Doe" },
      age: { type: "integer", default: 30 },
      score: { type: "number", default: 95.5 },
      status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
      verified: { type: "boolean", default: true },
    }),
  );

  const resource = (uri, mimeType, content) =>
    server.registerResource(uri, uri, { mimeType }, async () => ({ contents: [{ uri, mimeType, ...content }] }));
  resource("test://static-text", "text/plain", { text: "This is the content of the static text resource." });
  resource("test://static-binary", "image/png", { blob: pixel });
  resource("test://watched-resource", "text/plain", { text: "watched" });
  const template = new ResourceTemplate("test://template/{id}/data", { list: undefined });
  server.registerResource("template", template, { mimeType: "application/json" }, async (uri, { id }) => ({
    contents: [{ uri: uri.href, mimeType: "application/json", text: JSON.stringify({ id, templateTest: true }) }],
  }));
  server.server.setRequestHandler("resources/subscribe", async () => ({}));
  server.server.setRequestHandler("resources/unsubscribe", async () => ({}));

  const prompt = (name, argsSchema, say) =>
    server.registerPrompt(name, { description: name, argsSchema: z.object(argsSchema) }, async (args) => ({
      messages: [say(args)].flat().map((content) => ({ role: "user", content })),
    }));
  prompt("test_simple_prompt", {}, () => text("This is a simple prompt for testing."));
  prompt("test_prompt_with_arguments", { arg1: z.string(), arg2: z.string() }, ({ arg1, arg2 }) =>
    text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`),
  );
  prompt("test_prompt_with_embedded_resource", { resourceUri: z.string() }, ({ resourceUri }) => embedded(resourceUri));
  prompt("test_prompt_with_image", {}, () => [image, text("Analyze the image above.")]);
  server.server.setRequestHandler("completion/complete", async () => ({
    completion: { values: [], total: 0, hasMore: false },
  }));
  return server;
}

// What a client that comes back with Last-Event-ID has missed.
function eventStore() {
  const events = [];
  return {
    storeEvent: async (stream, message) => `${events.push({ stream, message })}`,
    getStreamIdForEventId: async (id) => events[Number(id) - 1]?.stream,
    replayEventsAfter: async (id, { send }) => {
      const { stream } = events[Number(id) - 1];
      for (let number = Number(id); number < events.length; number++)
        if (events[number].stream === stream && events[number].message?.jsonrpc)
          await send(`${number + 1}`, events[number].message);
      return stream;
    },
  };
}

const sessions = new Map();
async function session() {
  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: eventStore(),
    retryInterval: 100,
    onsessioninitialized: (id) => sessions.set(id, transport),
    onsessionclosed: (id) => sessions.delete(id),
  });
  await mcpServer().connect(transport);
  return transport;
}

const modern = toNodeHandler(createMcpHandler(mcpServer, { legacy: "reject" }));
const hostIsLocal = localhostHostValidation();
createServer(async (request, response) => {
  // Not Origin: the suite sends both wrong, and this is to see a Host that a proxy has changed.
  if (!hostIsLocal(request, response)) return;
  let body;
  if (request.method === "POST") {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    try {
      body = JSON.parse(Buffer.concat(chunks).toString());
    } catch {
      response.writeHead(400).end();
      return;
    }
  }
  const id = request.headers["mcp-session-id"];
  const legacy = request.method !== "POST" || id || body.method === "initialize";
  if (!legacy) return modern(request, response, body);
  const transport = id ? sessions.get(id) : await session();
  if (!transport) return response.writeHead(404).end();
  return transport.handleRequest(request, response, body);
}).listen(Number(process.argv[2]), "127.0.0.1");
