"""Markdown with Python in it, sound and broken."""

from __future__ import annotations

from random import Random

from tests.benchmarks.verify.plants.case import Case

SOUND = (
    "def {f}({a}, {b}=1, *args, **kwargs):\n    return {a} + {b} + len(args) + len(kwargs)\n\nprint({f}(1))",
    "import math\nfrom os import path as p\n\nfor {a} in range(3):\n    {b} = math.sqrt({a})\n    print({b}, p.join('x', str({a})))",
    "class {F}:\n    x = 1\n\n    def {f}(self, {a}):\n        super().__init__()\n        return self.x + {a}\n\n{b} = {F}()\nprint({b}.{f}(2))",
    "{a} = [{b} * 2 for {b} in range(5) if {b} % 2]\n{b} = {{k: v for k, v in zip({a}, {a})}}\nprint(sum(x for x in {a}), {b})",
    "try:\n    {a} = int('3')\nexcept ValueError as {b}:\n    print({b})\nelse:\n    print({a})",
    "import asyncio\n\nasync def {f}():\n    await asyncio.sleep(0)\n    return 1\n\nprint(await {f}())",
    "with open('x') as {a}, open('y') as {b}:\n    print({a}.read(), {b}.read())",
    "def {f}({a}):\n    match {a}:\n        case [{b}, *rest]:\n            return {b}, rest\n        case {{'k': v}}:\n            return v\n    return None",
    "{f} = lambda {a}, {b}=2: {a} ** {b}\nprint(f'{{{f}(3)!r:>5}}')",
    ">>> {a} = 1\n>>> {a} + 1\n2",
    "%matplotlib inline\n!pip install numpy\nimport numpy as np\n{a} = np.zeros(3)\nprint({a})",
    "def {f}():\n    global {a}\n    {a} = 1\n\n{f}()\nprint({a}, __name__)",
    "while ({a} := input()) != 'q':\n    print({a})",
    "print({known}.head())",
)
BROKEN = (
    "def {f}({a}:\n    return {a}", "for {a} in range(3)\n    print({a})", "{a} = (1, 2\nprint({a})", "if True:\nprint(1)", "print('{a})",
    "{a} = 1\nprint({missing})", "def {f}({a}):\n    return {a} + {missing}", "{a} = [{missing} for {b} in range(3)]", "import math\nprint(maths.sqrt(2), math.pi)",
    "class {F}:\n    x = 1\n\n    def {f}(self):\n        return x", "for i in range(3):\n    print(i)\n  print(i)", "{a} = {{1: 2,, 3}}", "return = 5", "print 'hello'",
    "try:\n    pass\nexcept KeyErorr:\n    pass", "def {f}():\n    return {{missing}}\n\n{missing}()", "{a} = 5 +\nprint({a})", "else:\n    pass", "{a} == 1 = 2",
)  # fmt: skip


def draw(random: Random, wrong: bool) -> Case:
    names = random.sample("total count item value node rows price left".split(), 2)
    fill = {
        "a": names[0],
        "b": names[1],
        "f": random.choice(("solve", "work", "go_on")),
        "F": random.choice(("Tree", "Queue")),
        "missing": random.choice(("undefined_thing", "resutl", "helper2")),
        "known": "sales_frame",
    }
    template = random.choice(BROKEN if wrong else SOUND)
    code = template.format(**fill)
    if wrong and random.random() < 0.3:
        code = (
            "import os\n\n" + random.choice(SOUND[:8]).format(**fill) + "\n\n" + code
            if not code.startswith("else")
            else code
        )
    pieces = [
        "Here is how:\n\n",
        f"```{random.choice(('python', 'py', 'python3', 'Python'))}\n{code}\n```\n",
        random.choice(("", "\nThat does it.\n", "\n```text\nnot ( code\n```\n", "\nUse `x = (` with care.\n")),
    ]
    if not wrong and random.random() < 0.2:
        pieces.append("\n```js\nlet x = (1;\n```\n")
    return Case(
        "".join(pieces), template[:30], {"messages": [{"role": "user", "content": "My data is in sales_frame."}]}
    )
