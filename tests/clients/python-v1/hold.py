"""The Python SDK's first generation (mcp 1.x)."""

import asyncio
import contextlib
import datetime
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from hold import PATIENCE, hold  # noqa: E402
from mcp import ClientSession  # noqa: E402
from mcp.client.streamable_http import streamablehttp_client  # noqa: E402


@contextlib.asynccontextmanager
async def opened():
    async with streamablehttp_client(sys.argv[1]) as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            await session.list_tools()

            async def call(name, arguments, progress):
                limit = datetime.timedelta(seconds=PATIENCE)
                return await session.call_tool(name, arguments, limit, progress)

            yield call


asyncio.run(hold(opened))
os._exit(0)
