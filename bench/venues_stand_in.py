"""All simulated venues in a process: `python -m bench.venues_stand_in RATE INSTRUMENT…`, until its stdin ends."""

import asyncio
import json
import sys

from marketdata.simulated import SimulatedVenues


async def main(rate: float, instruments: list[str]) -> None:
    async with SimulatedVenues(instruments, seed=5, rate=rate) as venues:
        print(json.dumps(venues.urls), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), sys.argv[2:]))
