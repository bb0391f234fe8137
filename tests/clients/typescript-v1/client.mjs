// The TypeScript SDK's first generation (@modelcontextprotocol/sdk 1.x).
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema, CreateMessageRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { play, sampled } from "../client.mjs";

const client = new Client({ name: "typescript-v1", version: "0" }, { capabilities: { sampling: {} } });
client.setRequestHandler(CreateMessageRequestSchema, async () => sampled);
const transport = new StreamableHTTPClientTransport(new URL(process.argv[2]));
const call = (name, args, onprogress) =>
  client.callTool({ name, arguments: args }, CallToolResultSchema, { onprogress });
await play({ client, transport, call });
