from predawn_shout import ShoutPlugin

from predawn.plugins.testing import run_plugin


async def test_answers_are_shouted() -> None:
    for stream in (False, True):
        result = await run_plugin(
            ShoutPlugin, "How are you?", upstream="fine, thanks", settings={"marks": 2}, stream=stream
        )

        assert result.text == "FINE, THANKS!!"
