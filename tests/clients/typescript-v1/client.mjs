// The TypeScript SDK's first generation (@modelcontextprotocol/sdk 1.x).
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema, CreateMessageRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { play, sampled } from "../client.mjs";
import { drive, isDriven } from "../driven.mjs";

function sdk(url, kind) {
  const client = new Client({ name: "typescript-v1", version: "0" }, { capabilities: { sampling: {} } });
  client.setRequestHandler(CreateMessageRequestSchema, async () => sampled);
  const transport = kind === "sse" ? new SSEClientTransport(url) : new StreamableHTTPClientTransport(url);
  const call = (name, args, onprogress) =>
    client.callTool({ name, arguments: args }, CallToolResultSchema, { onprogress });
  return { client, transport, call };
}

if (isDriven)
  await drive(async (url, kind) => {
    const { client, transport, call } = sdk(url, kind);
    await client.connect(transport);
    return { call };
  });
await play(sdk(new URL(process.argv[2])));
