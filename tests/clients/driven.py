"""A Python client that does what its standard input says, one JSON command with an id per line, and
tells on standard output what it saw: for the tests that end things under it. Each generation's client.py
gives `connect(url, kind)`. Usage: client.py URL legacy|modern|sse."""

import asyncio
import json
import os
import sys

is_driven = sys.argv[2] in ("legacy", "modern", "sse")


def say(step, **value):
    print(json.dumps({"step": step, **value}), flush=True)


def named(error):
    """What a program that uses the SDK could tell errors apart by."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    code = getattr(getattr(error, "error", error), "code", None)
    return type(error).__name__ + (f" {code}" if code is not None else "")


commands = asyncio.Queue()


async def read_commands():
    while line := await asyncio.to_thread(sys.stdin.readline):
        commands.put_nowait(json.loads(line))
    # Nobody is there any more to be told how anything ends.
    os._exit(0)


async def call(client, id, what):
    async def progress(*_):
        say("progress", id=id)

    result = await client.call(what["name"], what["arguments"], progress)
    is_error = getattr(result, "isError", getattr(result, "is_error", False))
    say("error result" if is_error else "result", id=id)


async def listen(client, id, what):
    async with client.listen() as subscription:
        say("acknowledged", id=id)
        async for _ in subscription:
            pass
        say("ended", id=id, how="graceful")


async def guarded(id, doing):
    try:
        await doing
    except Exception as error:
        say("failed", id=id, error=named(error))


async def drive(connect):
    reading = asyncio.create_task(read_commands())
    doing = {}
    while not reading.done():
        what = await commands.get()
        if what["do"] != "connect":
            say("failed", id=what["id"], error="no connection")
            continue
        doing[what["id"]] = None
        try:
            async with connect(*sys.argv[1:]) as client:
                del doing[what["id"]]
                say("connected", id=what["id"])
                while True:
                    what = await commands.get()
                    do = {"call": call, "listen": listen}[what["do"]](client, what["id"], what)
                    # Each in a task of its own: the next command may come before it ends.
                    doing[what["id"]] = asyncio.create_task(guarded(what["id"], do))
        except Exception as error:
            # The connection as a whole, and with it all that still runs on it.
            for id, task in doing.items():
                if task is None or not task.done():
                    say("failed", id=id, error=f"the connection: {named(error)}")
                    task and task.cancel()
            doing.clear()
