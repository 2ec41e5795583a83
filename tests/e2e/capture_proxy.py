#!/usr/bin/env python3
"""A plain TCP proxy that keeps a copy of every byte that goes towards a store.

    capture_proxy.py --listen 127.0.0.1:0 --to 127.0.0.1:9000 --into DIR --ready-file F

One file for each connection, so that a search sees the bytes of one connection in their order. It understands nothing of
HTTP: what is in the files is what was sent. The store's answers are not kept. The address goes to the ready file.
"""

import argparse
import asyncio
import signal
from pathlib import Path

PIECE_LEN = 1 << 18


async def pump(reader, writer, copy):
    """Carries bytes one way until the end, then passes the end on."""
    try:
        while piece := await reader.read(PIECE_LEN):
            if copy is not None:
                # Unbuffered: the copy is on its way to the disk before the store has the bytes.
                copy.write(piece)
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        # Either side broke off; the other one has to learn it.
        writer.transport.abort()


class Proxy:
    def __init__(self, host, port, folder):
        self.host, self.port, self.folder = host, port, folder
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        path = self.folder / f"{self.connections:06}.up"
        try:
            to_reader, to_writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.close()
            return
        with open(path, "wb", buffering=0) as copy:
            try:
                await asyncio.gather(pump(reader, to_writer, copy), pump(to_reader, writer, None))
            finally:
                to_writer.close()
                writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--to", required=True)
    parser.add_argument("--into", required=True, type=Path)
    parser.add_argument("--ready-file", required=True, type=Path)
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    host, port = options.to.rsplit(":", 1)
    proxy = Proxy(host, int(port), options.into)
    listen_host, listen_port = options.listen.rsplit(":", 1)
    server = await asyncio.start_server(proxy.serve, listen_host, int(listen_port), limit=PIECE_LEN)
    address = server.sockets[0].getsockname()
    partial = options.ready_file.with_suffix(".partial")
    partial.write_text(f"{address[0]}:{address[1]}\n")
    partial.rename(options.ready_file)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
