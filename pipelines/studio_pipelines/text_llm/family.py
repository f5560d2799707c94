"""The text family: GGUF models in llama.cpp. This module is light; llama.cpp is imported by ``load``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from studio.plugin import BadRequest, BadWeights, Budget, Context, Event, Footprint, Pipeline, Plan, StudioError

from .catalogued import DEFAULT_CONTEXT, catalogued_shape, settings_of
from .gguf_file import GgufFile, read_gguf
from .params import TextParams
from .sizing import PICTURE_TOKENS, Choice, KvType, Shape, choose, contexts, need, shape_of, told


@lru_cache(maxsize=16)
def _read_once(path: Path, _size: int, _changed_ns: int) -> GgufFile:
    return read_gguf(path)


def read_checked(path: Path) -> GgufFile:
    """The checked header of a file, read again only when the file has changed."""
    try:
        stat = path.stat()
    except OSError as error:
        raise BadWeights(f"{path.name} cannot be read: {error.strerror}.", "Fetch it: studio models pull.") from error
    return _read_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1)
def llama_uses_card() -> bool:
    """Whether the installed llama.cpp was built for a card: by its libraries' names, because a plan is also made in
    the control process, which must not load them."""
    found = find_spec("llama_cpp")
    folders = found.submodule_search_locations if found else None
    names = [file.name for folder in folders or [] for file in Path(folder, "lib").glob("*ggml-*")]
    return any(backend in name for name in names for backend in ("cuda", "hip", "metal", "vulkan", "sycl"))


class TextLLM(Pipeline[TextParams]):
    """Answers in text, JSON or thoughts; sees pictures when the model has an ``mmproj`` file."""

    task = "text->text"
    makes = ("text/plain", "application/json")
    Params = TextParams
    libraries = ("llama-cpp-python",)

    uses_card: Callable[[], bool] = staticmethod(llama_uses_card)
    """Asked only when there is a card: whether this build of llama.cpp can use it."""

    _session: Any = None

    def shape(self) -> Shape:
        """What the model's size depends on: from its file, or before the download from the catalogue."""
        if "model" in self.files:
            vision = read_checked(self.files["mmproj"]) if "mmproj" in self.files else None
            return shape_of(read_checked(self.files["model"]), vision)
        return catalogued_shape(self.spec)

    def footprint(self, params: TextParams) -> Footprint:
        """The need on the processor alone, with the asked or a comfortable context."""
        shape = self.shape()
        context = contexts(shape, params.context)[0] if params.context else min(DEFAULT_CONTEXT, shape.trained_context)
        kv: KvType = "f16" if params.kv_cache == "auto" else params.kv_cache
        return Footprint(phases=need(shape, Choice(context, kv, 0)).phases, disk_bytes=self.spec.about_bytes or 0)

    @property
    def _has_eyes(self) -> bool:
        return "mmproj" in self.files or bool(self.spec.source and "mmproj" in self.spec.source.files)

    def preflight(self, params: TextParams) -> None:
        """The headers are sound, the context is not longer than trained, and pictures go to a model that sees."""
        if not self._has_eyes and (params.images or any(turn.images for turn in params.messages)):
            raise BadRequest(
                f"{self.spec.id} cannot see pictures: it has no mmproj file.",
                "Leave out --images, or choose a model that sees.",
            )
        contexts(self.shape(), params.context)

    def plan(self, params: TextParams, budget: Budget) -> Plan:
        """Context, KV precision and layers on the card; nothing of it depends on the prompt."""
        self.preflight(params)
        if budget.vram_bytes and not self.uses_card():
            budget = budget.model_copy(update={"vram_bytes": 0})
        choice, cost = choose(
            self.shape(), budget, asked=params.context, kv=params.kv_cache, gpu_layers=params.gpu_layers
        )
        threads = params.threads or max(1, budget.threads)
        settings = {
            "n_ctx": choice.context,
            "n_gpu_layers": choice.gpu_layers,
            "type_k": choice.kv,
            "type_v": choice.kv,
            "n_batch": choice.chunk,
            "n_ubatch": PICTURE_TOKENS if self._has_eyes else choice.chunk,
            "n_threads": threads,
            "flash_attn": True,
        }
        return Plan(
            model=self.spec.id,
            device="cuda" if choice.gpu_layers else "cpu",
            peak_vram_bytes=cost.vram,
            peak_ram_bytes=cost.ram,
            disk_bytes=self.spec.about_bytes or 0,
            phases=cost.phases,
            settings=settings,
            told=told(self.shape(), choice, threads),
        )

    def load(self, plan: Plan) -> None:
        """Check the files, compile the templates at arm's length, and only then let llama.cpp have them."""
        from .session import Session

        self.unload()
        if "model" not in self.files:
            raise BadWeights(f"{self.spec.id} has no model file.", f"Fetch it: studio models pull {self.spec.id}")
        files = {role: read_checked(path) for role, path in self.files.items() if role in ("model", "mmproj")}
        self._session = Session(files, plan.settings, settings_of(self.spec).thinking)

    def generate(self, params: TextParams, ctx: Context) -> Iterator[Event]:
        """Stream the answer, then one artefact: the answer as text, or as JSON where a schema was given."""
        if self._session is None:
            raise StudioError(f"{self.spec.id} is not loaded.", "Call load() first.")
        yield from self._session.run(self._told(params), ctx)

    def _told(self, params: TextParams) -> TextParams:
        """The thinking switch of models that want it in the system turn."""
        switch = settings_of(self.spec).thinking_system
        if switch is None or params.thinking == "auto" or params.completion:
            return params
        words = switch.on if params.thinking == "on" else switch.off
        return params.model_copy(update={"system": f"{words}\n\n{params.system}".strip(), "thinking": "auto"})

    def unload(self) -> None:
        """Free the model, its context and the template's process."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
