"""Prints which of the ports of an address take a connection: all are asked at once, for a second."""

import asyncio
import sys


async def is_open(host, port):
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 1)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True


async def main(host, ports):
    found = await asyncio.gather(*(is_open(host, int(port)) for port in ports))
    print(" ".join(port for port, there in zip(ports, found) if there))


asyncio.run(main(sys.argv[1], sys.argv[2:]))
