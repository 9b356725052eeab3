"""Bob: waits for Alice's greeting and answers. Start alice.py in another terminal."""

import asyncio

from convelo import Pool


async def async_main():
    # Bob listens on port 61002; Alice is to be found on port 61001.
    pool = Pool()
    pool.add_http_server(addr="127.0.0.1", port=61002)
    pool.add_http_client("Alice", addr="127.0.0.1", port=61001)

    message = await pool.recv("Alice")
    print(message)
    await pool.send("Alice", "Good morning Alice, I can hear you.")
    await pool.shutdown()


if __name__ == "__main__":
    loop = asyncio.get_event_loop()
    loop.run_until_complete(async_main())
