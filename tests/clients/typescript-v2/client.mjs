// The TypeScript SDK's second generation (@modelcontextprotocol/client 2.x).
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { play, sampled } from "../client.mjs";
import { drive, isDriven } from "../driven.mjs";

function sdk(url, kind) {
  const options = { capabilities: { sampling: {} } };
  if (kind === "modern") options.versionNegotiation = { mode: { pin: "2026-07-28" } };
  const client = new Client({ name: "typescript-v2", version: "0" }, options);
  client.setRequestHandler("sampling/createMessage", async () => sampled);
  const transport = kind === "sse" ? new SSEClientTransport(url) : new StreamableHTTPClientTransport(url);
  const call = (name, args, onprogress) => client.callTool({ name, arguments: args }, { onprogress });
  return { client, transport, call };
}

if (isDriven)
  await drive(async (url, kind) => {
    const { client, transport, call } = sdk(url, kind);
    await client.connect(transport);
    return { call, listen: () => client.listen({ toolsListChanged: true }) };
  });
await play(sdk(new URL(process.argv[2])));
