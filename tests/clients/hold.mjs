// A client that holds one session, with its stream open, and calls a slow tool with progress until
// its standard input ends. Usage: hold.mjs URL MILLISECONDS (each call's). Prints one JSON line per call, and one per session
// that was lost and opened anew. Each generation's hold.mjs gives its own SDK.

const say = (step, value) => console.log(JSON.stringify({ step, ...value }));
// What hangs is told, within the test's patience.
export const patience = { timeout: 45_000 };
const milliseconds = Number(process.argv[3]);
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export async function hold(open) {
  let stop = false;
  process.stdin.resume().on("end", () => (stop = true));
  // `initialize` is refused while a pod drains; there is nothing to lose yet.
  const opened = async () => {
    for (let left = 50; ; left--)
      try {
        return await open();
      } catch (error) {
        if (left === 0) throw error;
        await pause(100);
      }
  };
  let held = await opened();
  say("ready", {});
  while (!stop) {
    let error = null;
    for (let attempt = 0; attempt < 10; attempt++) {
      try {
        await held.call("slow", { milliseconds }, () => {});
        error = null;
        break;
      } catch (caught) {
        error = [caught?.code, caught?.data?.status, caught?.cause?.code, caught?.message ?? caught].join(" ");
        // Which connection, how much came on it, and when: what tells one that was idle.
        const { socket, message } = caught?.cause ?? {};
        if (socket) error += ` ${message} ${JSON.stringify(socket)} ${new Date().toISOString()}`;
      }
      // The specification's end of a session. The SDKs leave it to their user to open another.
      if (!error.includes("404") && !/session/i.test(error)) break;
      say("session", { error });
      await held.close().catch(() => {});
      held = await opened();
    }
    say("call", { error });
  }
  process.exit(0);
}
