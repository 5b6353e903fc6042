"""A plugin for Predawn that answers in capitals."""

from copy import deepcopy

from pydantic import Field

from predawn.plugins import Chunk, ChunkFilter, Exchange, Plugin, PluginSettings, hookimpl


class ShoutSettings(PluginSettings):
    marks: int = Field(default=0, ge=0, le=9, description="Exclamation marks after each answer.")


class ShoutPlugin(Plugin[ShoutSettings]):
    """Answers in capitals."""

    settings_type = ShoutSettings

    @hookimpl
    def chunk_filter(self, exchange: Exchange) -> ChunkFilter | None:
        return self._louder if exchange.route == "chat" else None

    def _louder(self, chunk: Chunk) -> Chunk:
        if not chunk.data or not chunk.data.get("choices"):
            return chunk
        data = deepcopy(chunk.data)
        for choice in data["choices"]:
            delta = choice["delta"]
            if delta.get("content"):
                delta["content"] = delta["content"].upper()
            if choice.get("finish_reason") == "stop":
                delta["content"] = (delta.get("content") or "") + "!" * self.settings.marks
        return chunk.with_data(data)
