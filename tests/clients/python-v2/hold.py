"""The Python SDK's second generation (mcp 2.x)."""

import asyncio
import contextlib
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from hold import PATIENCE, hold  # noqa: E402
from mcp import Client  # noqa: E402


@contextlib.asynccontextmanager
async def opened():
    async with Client(sys.argv[1]) as client:
        await client.list_tools()

        async def call(name, arguments, progress):
            return await client.call_tool(name, arguments, PATIENCE, progress)

        yield call


asyncio.run(hold(opened))
os._exit(0)
