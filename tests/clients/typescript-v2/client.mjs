// The TypeScript SDK's second generation (@modelcontextprotocol/client 2.x).
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { play, sampled } from "../client.mjs";

const client = new Client({ name: "typescript-v2", version: "0" }, { capabilities: { sampling: {} } });
client.setRequestHandler("sampling/createMessage", async () => sampled);
const transport = new StreamableHTTPClientTransport(new URL(process.argv[2]));
const call = (name, args, onprogress) => client.callTool({ name, arguments: args }, { onprogress });
await play({ client, transport, call });
