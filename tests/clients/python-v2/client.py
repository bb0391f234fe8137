"""The Python SDK's second generation (mcp 2.x)."""

import asyncio
import contextlib
import pathlib
import sys
import types as python_types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from client import play, say  # noqa: E402
from driven import drive, is_driven  # noqa: E402
import mcp_types as types  # noqa: E402
from mcp import Client  # noqa: E402
from mcp.client.sse import sse_client  # noqa: E402


async def sample(context, params):
    content = types.TextContent(type="text", text="sampled")
    return types.CreateMessageResult(role="assistant", model="test", content=content)



@contextlib.asynccontextmanager
async def connect(url, kind):
    server = sse_client(url) if kind == "sse" else url
    mode = "legacy" if kind in ("legacy", "sse") else "auto"
    async with Client(server, sampling_callback=sample, mode=mode) as client:

        async def call(name, arguments, progress):
            return await client.call_tool(name, arguments, progress_callback=progress)

        # So that the SDK knows each tool's output schema, and asks for it at no later call.
        await client.list_tools()
        yield python_types.SimpleNamespace(
            server=client.server_info.name,
            list_tools=client.list_tools,
            call=call,
            listen=lambda: client.listen(tools_list_changed=True),
        )


async def main():
    if is_driven:
        return await drive(connect)
    async with connect(*sys.argv[1:]) as client:
        await play(client.server, client.list_tools, client.call)
    say("terminated")


asyncio.run(main())
