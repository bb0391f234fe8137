// The TypeScript SDK's first generation (@modelcontextprotocol/sdk 1.x).
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";
import { hold, patience } from "../hold.mjs";

await hold(async () => {
  const client = new Client({ name: "typescript-v1", version: "0" });
  await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
  const call = (name, args, onprogress) =>
    client.callTool({ name, arguments: args }, CallToolResultSchema, { ...patience, onprogress });
  return { call, close: () => client.close() };
});
