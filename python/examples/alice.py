"""Alice: greets Bob and prints his answer. Start bob.py in another terminal, before or after."""

import asyncio

from convelo import Pool


async def async_main():
    # Alice listens on port 61001; Bob is to be found on port 61002.
    pool = Pool()
    pool.add_http_server(addr="127.0.0.1", port=61001)
    pool.add_http_client("Bob", addr="127.0.0.1", port=61002)

    await pool.send("Bob", "Good morning Bob, Alice here.")
    reply = await pool.recv("Bob")
    print(reply)
    await pool.shutdown()


if __name__ == "__main__":
    loop = asyncio.get_event_loop()
    loop.run_until_complete(async_main())
