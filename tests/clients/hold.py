"""A client that holds one session, with its stream open, and calls a slow tool with progress until
its standard input ends. Usage: hold.py URL MILLISECONDS (each call's). Prints one JSON line per call, and one per session that
was lost and opened anew. Each generation's hold.py gives its own SDK."""

import asyncio
import json
import sys

# Seconds. What hangs is told, within the test's patience.
PATIENCE = 45


def say(step, **value):
    print(json.dumps({"step": step, **value}), flush=True)


def text(error):
    """The innermost errors: those of a transport come in groups."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(text(one) for one in error.exceptions)
    return f"{type(error).__name__}: {error}"


async def ignore(progress, total, message):
    pass


async def hold(opened):
    """`opened`: gives an async context manager of a connected client's `call`."""
    stop = asyncio.Event()

    async def until_end():
        await asyncio.to_thread(sys.stdin.read)
        stop.set()

    ended = asyncio.create_task(until_end())
    sessions, refused = 0, 0
    error = None
    # A call that met a session's end is tried again in the next one.
    again = 0
    while not stop.is_set() or again:
        try:
            async with opened() as call:
                sessions, refused = sessions + 1, 0
                if sessions == 1:
                    say("ready")
                while not stop.is_set() or again:
                    error = None
                    try:
                        await call("slow", {"milliseconds": int(sys.argv[2])}, ignore)
                        again = 0
                    except Exception as caught:
                        error = text(caught)
                        if again < 10 and ("404" in error or "session" in error.lower()):
                            again += 1
                            say("session", error=error)
                            break
                        again = 0
                    say("call", error=error)
        except Exception as caught:
            # A transport that died says so when it is left. `initialize` is refused while a pod
            # drains; there is nothing to lose yet.
            refused += 1
            if refused > 50:
                say("call", error=text(caught))
                return
            await asyncio.sleep(0.1)
    ended.cancel()
