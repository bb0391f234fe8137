"""The Python SDK's first generation (mcp 1.x)."""

import asyncio
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from client import play, say  # noqa: E402
from mcp import ClientSession, types  # noqa: E402
from mcp.client.streamable_http import streamablehttp_client  # noqa: E402


async def sample(context, params):
    content = types.TextContent(type="text", text="sampled")
    return types.CreateMessageResult(role="assistant", model="test", content=content)


async def main():
    async with streamablehttp_client(sys.argv[1]) as (read, write, _):
        async with ClientSession(read, write, sampling_callback=sample) as session:
            info = await session.initialize()

            async def call(name, arguments, progress):
                return await session.call_tool(name, arguments, progress_callback=progress)

            await play(info.serverInfo.name, session.list_tools, call)
    say("terminated")


asyncio.run(main())
