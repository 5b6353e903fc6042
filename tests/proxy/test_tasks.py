"""Background tasks: cancelled together, and none is left over."""

import asyncio

from predawn.proxy.tasks import Tasks


async def test_what_begins_while_others_end_is_cancelled_too():
    tasks, ended = Tasks(), []

    async def forever(generation):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(generation)
            if generation < 3:
                tasks.spawn(forever(generation + 1), "next")
                await asyncio.sleep(0)

    tasks.spawn(forever(0), "first")
    await asyncio.sleep(0)
    await tasks.cancel()

    assert len(tasks) == 0
    assert [task for task in asyncio.all_tasks() if task.get_name() == "predawn.next"] == []
    assert ended == [0, 1, 2, 3]
