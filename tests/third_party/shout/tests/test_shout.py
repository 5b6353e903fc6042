from predawn.plugins.testing import run_plugin
from predawn_shout import ShoutPlugin


async def test_answers_are_shouted() -> None:
    for stream in (False, True):
        result = await run_plugin(ShoutPlugin, "How are you?", upstream="fine, thanks", stream=stream, marks=2)

        assert result.text == "FINE, THANKS!!"
