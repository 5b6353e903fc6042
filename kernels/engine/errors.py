"""What can be wrong with a model on disk."""

from __future__ import annotations

from pathlib import Path


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names the file, the tensor or key in it, what is wrong, and the fix."""

    def __init__(self, file: Path | str, what: str, *, tensor: str | None = None, fix: str | None = None) -> None:
        self.file = str(file)
        self.tensor = tensor
        self.what = what
        self.fix = fix
        where = f"{file}: {tensor}" if tensor else str(file)
        super().__init__(f"{where}: {what}" + (f"; {fix}" if fix else ""))
