"""A FastMCP server with the tools that the tests call. Usage: server.py PORT."""

import asyncio
import sys

from fastmcp import Context, FastMCP

server = FastMCP("fastmcp-test")


@server.tool
def echo(message: str) -> str:
    return f"Echo: {message}"


@server.tool(name="trigger-long-running-operation")
async def slow(duration: float, steps: int, ctx: Context) -> str:
    for step in range(1, steps + 1):
        await asyncio.sleep(duration / steps)
        await ctx.report_progress(step, steps)
    return f"completed in {steps} steps"


server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), path="/mcp", show_banner=False)
