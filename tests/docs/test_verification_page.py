"""The verifier of the page works, and so does its test."""

import re

from docs.generate import DOCS

PAGE = (DOCS / "verification.md").read_text(encoding="utf-8")


async def test_the_ten_lines_are_ten_and_pass_their_test():
    code, test = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    space = {"__name__": "example"}
    exec(compile(code, "docs/verification.md", "exec"), space)
    exec(compile(test, "docs/verification.md", "exec"), space)
    verifier = code.partition("class NoPromises")[2].partition("class PromisesPlugin")[0]

    assert len([line for line in verifier.splitlines() if line.strip()]) <= 10
    await space["test_nothing_is_promised"]()
