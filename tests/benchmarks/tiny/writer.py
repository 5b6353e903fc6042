"""The bundled model as the evaluation sees it: prompts by its own template, tokens by the local engine."""

from collections.abc import Sequence
from pathlib import Path

from predawn.kernels.engine import checkpoint
from predawn.kernels.engine.engine import Engine
from predawn.kernels.engine.model import Model
from predawn.kernels.engine.sampling import Sampling
from predawn.kernels.tiny.evaluate import Prompt, Written

SEED = 7


class EngineWriter:
    """Writes with all rows of the engine's batch."""

    def __init__(self, model: Path) -> None:
        loaded = checkpoint.load(model)
        assert loaded.chat is not None
        self._tokenizer, self._chat = loaded.tokenizer, loaded.chat
        self._model = Model(loaded.config, loaded.weights)

    def write(
        self, prompts: Sequence[Prompt], *, max_tokens: int, temperature: float = 0.0, n: int = 1
    ) -> list[list[Written]]:
        engine = Engine(self._model, pages=2048, max_waiting=len(prompts), eos_ids=self._tokenizer.eos_ids)
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature, n=n, seed=SEED)
        for number, prompt in enumerate(prompts):
            engine.submit(str(number), self._tokens(prompt), sampling)
        drawn: list[list[list[int]]] = [[[] for _ in range(n)] for _ in prompts]
        while not engine.idle:
            for token in engine.step():
                drawn[int(token.request_id)][token.index].append(token.token_id)
        return [[Written(self._text(ids), len(ids)) for ids in choices] for choices in drawn]

    def _tokens(self, prompt: Prompt) -> list[int]:
        continued = prompt.messages[-1]["role"] == "assistant"
        text = self._chat.render(
            prompt.messages,
            continue_final=continued,
            add_generation_prompt=not continued,
            enable_thinking=prompt.thinking,
        )
        return self._tokenizer.encode(text, special=True)

    def _text(self, ids: Sequence[int]) -> str:
        """With `</think>` in its place, without what ends a turn."""
        return self._tokenizer.decode([token for token in ids if token not in self._tokenizer.eos_ids])
