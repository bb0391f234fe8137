"""The steps that every Python client of the tests takes; each generation's client.py gives its
own SDK. Usage: client.py URL steps|slow. Prints one JSON line per step."""

import json
import sys


def say(step, **value):
    print(json.dumps({"step": step, **value}), flush=True)


def texts(result):
    return [getattr(part, "text", part.type) for part in result.content]


async def play(server, list_tools, call):
    say("connected", server=server)
    # The SDK looks at a tool's output schema when its result comes, and asks for it only then if
    # it never did: a call of its own, which an ebbtide that has ended cannot answer.
    tools = await list_tools()
    if sys.argv[2] == "slow":

        async def progress(progress, total, message):
            say("progress", progress=progress)

        result = await call("trigger-long-running-operation", {"duration": 3, "steps": 6}, progress)
        say("result", texts=texts(result))
        return
    say("tools", names=sorted(tool.name for tool in tools.tools))
    say("echo", texts=texts(await call("echo", {"message": 'héllo "world"'}, None)))
    heard = []

    async def hear(progress, total, message):
        heard.append(progress)

    arguments = {"duration": 0.3, "steps": 3}
    result = await call("trigger-long-running-operation", arguments, hear)
    say("long", texts=texts(result), heard=heard)
    # A server-to-client request, where the server has one.
    if not any(tool.name == "trigger-sampling-request" for tool in tools.tools):
        return
    arguments = {"prompt": "hi", "maxTokens": 5}
    say("sampling", texts=texts(await call("trigger-sampling-request", arguments, None)))
