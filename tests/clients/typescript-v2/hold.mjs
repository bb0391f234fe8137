// The TypeScript SDK's second generation (@modelcontextprotocol/client 2.x).
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { hold, patience } from "../hold.mjs";

await hold(async () => {
  const client = new Client({ name: "typescript-v2", version: "0" });
  await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
  const call = (name, args, onprogress) => client.callTool({ name, arguments: args }, { ...patience, onprogress });
  return { call, close: () => client.close() };
});
