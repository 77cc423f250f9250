"""A plain pass-through of aiohttp on both sides, as one would write it in an afternoon: no key, no choice, no count."""

import asyncio
import sys

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from tests.bench.serving import BACKLOG, HOST, serve

BACKEND_PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 0
FORWARDED = ("content-type", "accept", "user-agent", "authorization")
SESSION: web.AppKey[ClientSession] = web.AppKey("session", ClientSession)


async def forward(request: web.Request) -> web.StreamResponse:
    """The request to the backend, the answer back."""
    body = await request.read()
    headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
    url = f"http://{HOST}:{BACKEND_PORT}{request.path_qs}"
    async with request.app[SESSION].post(url, data=body, headers=headers) as answer:
        kind = answer.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            return web.Response(status=answer.status, body=await answer.read(), headers={"content-type": kind})
        response = web.StreamResponse(status=answer.status, headers={"content-type": kind})
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        await response.write_eof()
        return response


async def listen() -> asyncio.AbstractServer:
    app = web.Application()
    app[SESSION] = ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None))
    app.router.add_post("/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    return await asyncio.get_running_loop().create_server(runner.server, HOST, 0, backlog=BACKLOG)


if __name__ == "__main__":
    serve(listen)
