// The steps that every TypeScript client of the tests takes; each generation's client.mjs gives
// its own SDK. Usage: client.mjs URL steps|slow. Prints one JSON line per step.

const say = (step, value) => console.log(JSON.stringify({ step, ...value }));
const texts = (result) => result.content.map((part) => part.text ?? part.type);

export async function play({ client, transport, call }) {
  const [, , , what] = process.argv;
  await client.connect(transport);
  say("connected", { server: client.getServerVersion()?.name });
  if (what === "slow") {
    const result = await call("trigger-long-running-operation", { duration: 3, steps: 6 }, (progress) =>
      say("progress", { progress: progress.progress }),
    );
    say("result", { texts: texts(result) });
    process.exit(0);
  }
  const tools = await client.listTools();
  say("tools", { names: tools.tools.map((tool) => tool.name).sort() });
  say("echo", { texts: texts(await call("echo", { message: "héllo \"world\"" })) });
  const heard = [];
  const long = await call("trigger-long-running-operation", { duration: 0.3, steps: 3 }, (progress) =>
    heard.push(progress.progress),
  );
  say("long", { texts: texts(long), heard });
  // A server-to-client request, where the server has one.
  if (tools.tools.some((tool) => tool.name === "trigger-sampling-request"))
    say("sampling", { texts: texts(await call("trigger-sampling-request", { prompt: "hi", maxTokens: 5 })) });
  await transport.terminateSession?.();
  say("terminated", {});
  await client.close();
  process.exit(0);
}

export const sampled = { role: "assistant", model: "test", content: { type: "text", text: "sampled" } };
