"""The Python SDK's first generation (mcp 1.x)."""

import asyncio
import contextlib
import pathlib
import sys
import types as python_types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from client import play, say  # noqa: E402
from driven import drive, is_driven  # noqa: E402
from mcp import ClientSession, types  # noqa: E402
from mcp.client.sse import sse_client  # noqa: E402
from mcp.client.streamable_http import streamablehttp_client  # noqa: E402


async def sample(context, params):
    content = types.TextContent(type="text", text="sampled")
    return types.CreateMessageResult(role="assistant", model="test", content=content)


@contextlib.asynccontextmanager
async def connect(url, kind):
    transport = sse_client if kind == "sse" else streamablehttp_client
    async with transport(url) as (read, write, *_):
        async with ClientSession(read, write, sampling_callback=sample) as session:
            info = await session.initialize()

            async def call(name, arguments, progress):
                return await session.call_tool(name, arguments, progress_callback=progress)

            # So that the SDK knows each tool's output schema, and asks for it at no later call.
            await session.list_tools()
            yield python_types.SimpleNamespace(
                server=info.serverInfo.name, list_tools=session.list_tools, call=call
            )


async def main():
    if is_driven:
        return await drive(connect)
    async with connect(sys.argv[1], "legacy") as client:
        await play(client.server, client.list_tools, client.call)
    say("terminated")


asyncio.run(main())
