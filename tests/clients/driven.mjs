// A TypeScript client that does what its standard input says, one JSON command with an id per line,
// and tells on standard output what it saw: for the tests that end things under it. Each generation's
// client.mjs gives `connect(url, kind)`. Usage: client.mjs URL legacy|modern|sse.
import { createInterface } from "node:readline";

const say = (step, value) => console.log(JSON.stringify({ step, ...value }));

// What a program that uses the SDK could tell errors apart by.
const named = (error) =>
  [error.constructor.name, error.status ?? error.data?.status ?? error.code ?? error.cause?.code]
    .filter((part) => part !== undefined)
    .join(" ");

export async function drive(connect) {
  const [, , url, kind] = process.argv;
  let client;
  const commands = {
    connect: async ({ id }) => {
      client = await connect(new URL(url), kind);
      say("connected", { id });
    },
    call: async ({ id, name, arguments: args }) => {
      const result = await client.call(name, args, () => say("progress", { id }));
      say(result.isError ? "error result" : "result", { id });
    },
    listen: async ({ id }) => {
      const subscription = await client.listen();
      say("acknowledged", { id });
      say("ended", { id, how: await subscription.closed });
    },
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    commands[command.do](command).catch((error) => say("failed", { id: command.id, error: named(error) }));
  }
  process.exit(0);
}

export const isDriven = ["legacy", "modern", "sse"].includes(process.argv[3]);
