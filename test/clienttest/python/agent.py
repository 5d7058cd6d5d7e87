"""An agent on Debian's python3-websockets; what it is asked and tells is in
agent_test.go. The certificates that it trusts come with the environment
(SSL_CERT_FILE)."""

import asyncio
import json
import sys
import urllib.error
import urllib.request

import websockets
from websockets.legacy import client  # the one of Debian 12, still there in later ones


def tell(**event):
    print(json.dumps(event), flush=True)


def request(method, url, header, text):
    asked = urllib.request.Request(url, text.encode(), header, method=method)
    try:
        with urllib.request.urlopen(asked) as response:
            tell(event="response", status=response.status, text=response.read().decode())
    except urllib.error.HTTPError as refusal:
        tell(event="response", status=refusal.code, text=refusal.read().decode())


class Agent:
    socket = None

    async def request(self, method, url, header=None, text=""):
        await asyncio.to_thread(request, method, url, header or {}, text)

    async def connect(self, url, header=None, protocols=None):
        try:
            self.socket = await client.connect(url, extra_headers=header, subprotocols=protocols)
        except websockets.InvalidStatusCode as refusal:
            tell(event="refused", status=refusal.status_code)
        else:
            tell(event="open", text=self.socket.subprotocol or "")
            self.reading = asyncio.create_task(self.read(self.socket))

    async def read(self, socket):
        try:
            async for frame in socket:
                if isinstance(frame, str):
                    tell(event="text", text=frame)
                else:
                    tell(event="binary", text=frame.decode())
        except websockets.ConnectionClosed:
            pass
        tell(event="close", code=socket.close_code, text=socket.close_reason)

    async def send(self, text):
        await self.socket.send(text)

    async def ping(self, text):
        await (await self.socket.ping(text))
        tell(event="pong", text=text)

    async def close(self, code):
        await self.socket.close(code)

    async def drop(self):
        self.socket.transport.abort()


async def main():
    commands = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    agent = Agent()
    while line := await commands.readline():
        command = json.loads(line)
        try:
            await getattr(agent, command.pop("do"))(**command)
        except Exception as error:
            tell(event="failed", text=str(error))
    if agent.socket:
        await agent.drop()


asyncio.run(main())
