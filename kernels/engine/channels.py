"""What a chat model says, split into its reasoning and its answer: `<think>…</think>` around the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from predawn.kernels.engine.marks import MarkSearch

OPENS: Final = "<think>"
CLOSES: Final = "</think>"
TAGS: Final = (OPENS, CLOSES)

Channel: TypeAlias = Literal["content", "reasoning"]
Beginning: TypeAlias = Literal["plain", "open", "reasoning", "content"]
"""Where an answer begins: in text that is not looked into, before it is known whether the model thinks, or inside."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one channel; a tag belongs to none."""

    channel: Channel | None
    text: str
    size: int
    """Characters of what the model said that it stands for: more than `text` has where blanks were trimmed."""


def beginning_after(opening: str, *, continues: bool) -> Beginning:
    """Where the model goes on after `opening`, the part of the prompt that is already its own turn."""
    opens, closes = opening.rfind(OPENS), opening.rfind(CLOSES)
    if opens > closes:
        return "reasoning"
    return "content" if closes >= 0 or continues else "open"


class Channels:
    """Splits one answer. White space at the start of a channel is left out, unless a prefill is continued there."""

    def __init__(self, beginning: Beginning, *, continues: bool = False) -> None:
        self._where: Beginning = beginning
        self._held = ""
        self._closing = MarkSearch((CLOSES,))
        self._trims = beginning != "plain" and not continues

    @property
    def is_reasoning(self) -> bool:
        """Whether what comes next is thought."""
        return self._where == "reasoning"

    @property
    def channel(self) -> Channel:
        """Where what comes next belongs, as far as that is known."""
        return "reasoning" if self._where == "reasoning" else "content"

    def feed(self, text: str) -> list[Segment]:
        """What is known to belong somewhere now."""
        segments: list[Segment] = []
        if self._where == "open":
            text = self._open(text, segments)
        if self._where == "reasoning":
            text = self._reason(text, segments)
        if text:
            segments.append(self._trimmed("content", text))
        return segments

    def end(self) -> list[Segment]:
        """What was held back until the answer was over."""
        held, self._held = self._held + self._closing.rest(), ""
        return [self._trimmed(self.channel, held)] if held else []

    def _open(self, text: str, segments: list[Segment]) -> str:
        """What is left of `text` once it is known whether the answer begins with a tag."""
        held = self._held + text
        bare = held.lstrip()
        tag = next((tag for tag in TAGS if bare.startswith(tag)), None)
        if tag is None and any(tag.startswith(bare) for tag in TAGS):
            self._held = held
            return ""
        self._held = ""
        self._where = "reasoning" if tag == OPENS else "content"
        if tag is None:
            return held
        size = len(held) - len(bare) + len(tag)
        segments.append(Segment(None, "", size))
        return held[size:]

    def _reason(self, text: str, segments: list[Segment]) -> str:
        """What follows the end of the reasoning in `text`."""
        thought, tag = self._closing.feed(text)
        if thought:
            segments.append(self._trimmed("reasoning", thought))
        if tag is None:
            return ""
        segments.append(Segment(None, "", len(tag)))
        self._where = "content"
        self._trims = True
        return self._closing.rest()

    def _trimmed(self, channel: Channel, text: str) -> Segment:
        shown = text.lstrip() if self._trims else text
        if shown:
            self._trims = False
        return Segment(channel, shown, len(text))
