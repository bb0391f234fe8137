"""The Python SDK's second generation (mcp 2.x)."""

import asyncio
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from client import play, say  # noqa: E402
import mcp_types as types  # noqa: E402
from mcp import Client  # noqa: E402


async def sample(context, params):
    content = types.TextContent(type="text", text="sampled")
    return types.CreateMessageResult(role="assistant", model="test", content=content)


async def main():
    async with Client(sys.argv[1], sampling_callback=sample) as client:

        async def call(name, arguments, progress):
            return await client.call_tool(name, arguments, progress_callback=progress)

        await play(client.server_info.name, client.list_tools, call)
    say("terminated")


asyncio.run(main())
