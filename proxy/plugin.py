"""What a plugin is: a name, settings, and methods marked `@hookimpl`."""

from __future__ import annotations

from typing import ClassVar, Generic, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeVar


class PluginSettings(BaseModel):
    """Settings every plugin has; a plugin's own settings class derives from this one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[str, ...] | None = Field(
        default=None, description="Aliases the plugin acts on; all of them when absent."
    )
    on_error: Literal["fail", "skip"] = Field(
        default="fail",
        description="What a raised error in `on_request` does: refuse the request, or go on without the plugin.",
    )
    timeout_s: float = Field(
        default=30.0, gt=0, description="Longest time one hook of this plugin may take, `around_completion` excepted."
    )


SettingsT = TypeVar("SettingsT", bound=PluginSettings, default=PluginSettings)


class Plugin(Generic[SettingsT]):
    """Base class of plugins. `settings_type` names the class its part of the settings file is checked against."""

    name: ClassVar[str] = ""
    """Set by the loader from the settings key or the entry point."""
    settings_type: ClassVar[type[PluginSettings]] = PluginSettings
    wants_usage: ClassVar[bool] = False
    """True for a plugin that needs the usage of every stream: asked of the upstream, hidden from the client."""

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings

    @property
    def unused_hooks(self) -> frozenset[str]:
        """Names of request hooks that the settings leave without work; asked once, at start-up.

        They are never called, and a request on which no plugin acts takes the short way through the proxy.
        """
        return frozenset()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
