import asyncio
import os

import rattler


async def install():
    platforms = [str(rattler.Platform.current()), "noarch"]
    records = await rattler.solve(["http://conda.example/channel"], ["tiny"], platforms=platforms)
    await rattler.install(records, "/opt/environment")


asyncio.run(install())
# Its threads do not always survive the interpreter's end.
os._exit(0)
