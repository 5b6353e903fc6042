"""Texts that say what they must not, or do not say what they must; and texts that nearly do."""

from __future__ import annotations

from random import Random

from tests.benchmarks.verify.plants.case import Case

OPTIONS = {
    "must": [r"Sources:\s*\S+"],
    "must_not": [
        r"\bproject\s+bluebird\b",
        r"\b\d{3}-\d{2}-\d{4}\b",
        r"(?i)as an ai\b",
        r"password\s*[:=]\s*\S+",
        r"\bguarantee(?:d|s)?\s+(?:a\s+)?refund",
    ],
}
FILLER = (
    "The weather is fine today. ",
    "We looked at it closely. ",
    "Nothing else was found, they said. ",
    "Prices rose a little.\n",
    "See the table below:\n\n",
    "It took a while; then it worked! ",
)


def draw(random: Random, wrong: bool) -> Case:
    pieces = [random.choice(FILLER) for _ in range(random.randint(2, 9))]
    ending = random.choice(("Sources: the archive.", "Sources:\n[1]", "Sources: none known"))
    kind = "clean"
    if wrong:
        kind, said = random.choice((
            ("name", "It is called project bluebird. "), ("name", "See project\nbluebird for more. "), ("name", "Project x, then project  bluebird. "),
            ("number", f"Her number is {random.randint(100, 999)}-{random.randint(10, 99)}-{random.randint(1000, 9999)}. "),
            ("phrase", random.choice(("As an AI, I cannot. ", "as an ai model I would. "))), ("password", "The password: hunter2 works. "), ("password", "password=abc "),
            ("refund", "We guarantee a refund. "), ("refund", "It is guaranteed refund for all. "), ("missing", ""),
        ))  # fmt: skip
        if kind == "missing":
            ending = random.choice(("Source: the archive.", "Sources", "sources: x", "Sources :"))
    else:
        said = random.choice((
            "It is called project bluebirds. ", "The project Blue bird. ", f"Call {random.randint(1000, 9999)}-{random.randint(10, 99)}-{random.randint(1000, 9999)}. ",
            f"The range {random.randint(100, 999)}-{random.randint(10, 99)}-{random.randint(10000, 99999)}. ", "As an airline, we fly. ", "The password is secret. ",
            "No guarantee of a refund. ", "A projector bluebird. ", "subproject bluebird", "We guarantee refurbishing. ",
        ))  # fmt: skip
    pieces.insert(random.randint(0, len(pieces)), said)
    return Case("".join(pieces) + " " + ending, kind, {}, OPTIONS)
