"""What a model needs, by arithmetic over its GGUF header, and which settings fit a budget.

Bytes come from the tensor table, so they hold for every quantisation. ``choose`` goes down one list of settings,
best first, and takes the first that fits: more memory can therefore never give a worse choice. Context lengths
are powers of two, so that one request and the next agree on them and the loaded model is used again.
Buffer rules after llama.cpp's src/llama-kv-cache.cpp and src/llama-context.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from studio.plugin import GIB, MIB, BadRequest, BadWeights, Budget, DoesNotFit, Phase, format_bytes

from .gguf_file import GgufFile, Skipped, Value

KvType = Literal["f16", "q8_0", "q4_0"]

CHUNK, CARD_CHUNK = 128, 512
"""Tokens per evaluation of the prompt, on the processor and on a card; also the unit in which an earlier prompt is
used again. On the processor 64 to 512 read equally fast (152 to 161 tokens/s, SmolLM2 135M, one thread), so a small
one wastes less; a card needs the larger to be busy."""

PICTURE_TOKENS = 1_024
"""Evaluated at once by a model that sees: Gemma's pictures, read without causal masking, must go in one piece."""

KV_BYTES = {"f16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}
AUTO_CONTEXT = 32_768
COMFORTABLE = 8_192
SMALLEST = 2_048
PROCESS_RAM = 80 * MIB
"""Python, llama.cpp and the small process that renders templates: 75 to 76 MiB with the starter, beside its weights,
its cache and its vocabulary (llama-cpp-python 0.3.36 on Linux, resident bytes of both processes)."""
CARD_PROCESS_RAM = 300 * MIB
"""The same with CUDA's libraries."""
TOKEN_RAM = 400
"""What llama.cpp holds for each token of the vocabulary: its text three times, its number, and a merge."""
CARD_OVERHEAD = 300 * MIB
"""What CUDA keeps for itself: the context and the kernels."""


@dataclass(frozen=True)
class Shape:
    """The numbers of a model that its memory depends on. Tuples have one item per layer."""

    layer_bytes: tuple[int, ...]
    input_bytes: int
    output_bytes: int
    kv_values: tuple[int, ...]
    """K and V values per token and layer; 0 for layers without attention."""
    window: int
    windowed: tuple[bool, ...]
    fixed_state_bytes: int
    trained_context: int
    width: int
    vocabulary: int
    vision_bytes: int = 0
    kv_quantises: bool = True
    """Whether llama.cpp can hold K and V in blocks of 32 values."""
    tied: bool = False
    """Whether the output matrix is the token embeddings: on a processor they then lie in memory once."""

    @property
    def layers(self) -> int:
        return len(self.layer_bytes)

    def at_once(self, chunk: int) -> int:
        """The most tokens that llama.cpp is set up to evaluate at once."""
        return max(chunk, PICTURE_TOKENS) if self.vision_bytes else chunk

    @property
    def weight_bytes(self) -> int:
        return sum(self.layer_bytes) + self.input_bytes + self.output_bytes + self.vision_bytes

    def kv_layer_bytes(self, layer: int, context: int, kv: KvType, chunk: int) -> int:
        """A sliding-window layer keeps its window and one evaluation, not the whole context."""
        tokens = context
        if self.windowed[layer]:
            tokens = min(context, -(-(self.window + self.at_once(chunk)) // 256) * 256)
        block, nbytes = KV_BYTES[kv]
        return -(-self.kv_values[layer] // block) * nbytes * tokens

    def kv_bytes(self, context: int, kv: KvType, chunk: int = CHUNK) -> int:
        return sum(self.kv_layer_bytes(layer, context, kv, chunk) for layer in range(self.layers))


def _whole(meta: dict[str, Value], key: str, default: int | None = None, high: int = 2**31) -> int:
    value = meta.get(key, default)
    if isinstance(value, list) and value and all(type(item) is int for item in value):
        value = max(item for item in value if type(item) is int)
    if type(value) is not int or not 0 <= value <= high:
        raise BadWeights(
            f"The model file says {key} = {value!r}, not a whole number up to {high:,}.", "Fetch the file again."
        )
    return value


def _per_layer(meta: dict[str, Value], key: str, default: int, layers: int) -> list[int]:
    value = meta.get(key, default)
    items = value if isinstance(value, list) else [value] * layers
    if len(items) < layers or any(type(item) is not int or not 0 <= item <= 65_536 for item in items):
        raise BadWeights(f"The model file says {key} = {str(value)[:60]}, which fits no layer.", "Fetch it again.")
    return [int(str(item)) for item in items[:layers]]


def _windows(meta: dict[str, Value], arch: str, layers: int) -> tuple[int, tuple[bool, ...]]:
    """Which layers have a sliding window: by the file's pattern, or by what llama.cpp knows of the architecture."""
    window = _whole(meta, f"{arch}.attention.sliding_window", 0)
    pattern = meta.get(f"{arch}.attention.sliding_window_pattern")
    if not window:
        return 0, (False,) * layers
    if isinstance(pattern, list) and len(pattern) >= layers:
        return window, tuple(bool(item) for item in pattern[:layers])
    # llama.cpp src/models: every n-th layer is full, the others have the window.
    every = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4}.get(arch)
    if type(pattern) is int and pattern > 0:
        every = pattern
    # Of an architecture that is not listed, count the whole context: too much rather than too little.
    return window, tuple(bool(every) and (layer + 1) % (every or 1) != 0 for layer in range(layers))


def shape_of(gguf: GgufFile, vision: GgufFile | None = None) -> Shape:
    """The shape of a checked model file (and the network that sees, if it has one)."""
    meta, arch = gguf.metadata, gguf.architecture
    layers = _whole(meta, f"{arch}.block_count", high=1024)
    width = _whole(meta, f"{arch}.embedding_length", high=1_000_000)
    context = _whole(meta, f"{arch}.context_length")
    if not (layers and width and context):
        raise BadWeights("The model file has no layers, no width or no context.", "It is not a text model.")
    heads = _per_layer(meta, f"{arch}.attention.head_count", 0, layers)
    kv_heads = _per_layer(meta, f"{arch}.attention.head_count_kv", max(heads), layers)
    usual = width // max(heads) if max(heads) else 0
    key = _whole(meta, f"{arch}.attention.key_length", usual)
    value = _whole(meta, f"{arch}.attention.value_length", usual)
    window, windowed = _windows(meta, arch, layers)
    layer_bytes, embedding, output, rest = [0] * layers, 0, 0, 0
    for tensor in gguf.tensors:
        kind, _, tail = tensor.name.partition(".")
        number = tail.partition(".")[0]
        if kind == "blk" and number.isdecimal() and int(number) < layers:
            layer_bytes[int(number)] += tensor.nbytes
        elif tensor.name == "token_embd.weight":
            embedding = tensor.nbytes
        elif kind == "output":
            output += tensor.nbytes
        else:
            rest += tensor.nbytes
    inner = _whole(meta, f"{arch}.ssm.inner_size", 0)
    state = inner * (_whole(meta, f"{arch}.ssm.state_size", 0) + _whole(meta, f"{arch}.ssm.conv_kernel", 0)) * 4
    tokens = meta.get("tokenizer.ggml.tokens")
    vocabulary = tokens.count if isinstance(tokens, Skipped) else len(tokens) if isinstance(tokens, list) else 0
    return Shape(
        layer_bytes=tuple(layer_bytes),
        input_bytes=embedding + rest,
        output_bytes=output or embedding,
        kv_values=tuple(heads_here * (key + value) for heads_here in kv_heads),
        window=window,
        windowed=windowed,
        fixed_state_bytes=state * layers,
        trained_context=context,
        width=width,
        vocabulary=vocabulary,
        vision_bytes=sum(tensor.nbytes for tensor in vision.tensors) if vision else 0,
        kv_quantises=key % 32 == 0 and value % 32 == 0,
        tied=not output,
    )


def guessed_shape(weight_bytes: int, trained_context: int, vision_bytes: int = 0) -> Shape:
    """Before the download only the size is known. Layers and KV are then those of a usual model of that size.

    An 8 B model at 4 to 5 bits has 32 layers and 2,048 values a token and layer; others scale with the cube root.
    """
    scale = (weight_bytes / (4.9 * GIB)) ** (1 / 3)
    layers = max(8, round(32 * scale))
    ends = weight_bytes // 10
    each = (weight_bytes - 2 * ends) // layers
    return Shape(
        (each,) * layers, ends, ends, (max(256, round(2048 * scale / 256) * 256),) * layers,
        0, (False,) * layers, 0, trained_context, max(512, round(4096 * scale)), 128_256, vision_bytes,
    )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One way to run: context length, KV precision and layers on the card."""

    context: int
    kv: KvType
    gpu_layers: int

    @property
    def chunk(self) -> int:
        return CARD_CHUNK if self.gpu_layers else CHUNK


@dataclass(frozen=True)
class Need:
    """Bytes that a ``Choice`` takes while it loads and while it writes."""

    vram: int
    ram: int
    phases: tuple[Phase, ...]


def compute_bytes(shape: Shape, choice: Choice) -> int:
    """The scratch buffers of one evaluation: activations, the attention mask, the logits of one token."""
    tokens = shape.at_once(choice.chunk)
    pictures = max(16 * MIB, shape.vision_bytes // 2) if shape.vision_bytes else 0
    return tokens * (shape.width * 64 + choice.context * 4) + 2 * shape.vocabulary * 4 + pictures + 8 * MIB


def need(shape: Shape, choice: Choice) -> Need:
    """The last ``gpu_layers`` layers and the output go to the card, with their share of the KV cache."""
    context, on_card = choice.context, min(choice.gpu_layers, shape.layers)
    first = shape.layers - on_card
    kv = [shape.kv_layer_bytes(layer, context, choice.kv, choice.chunk) for layer in range(shape.layers)]
    scratch = compute_bytes(shape, choice)
    vram = ram = 0
    if on_card:
        vram = sum(shape.layer_bytes[first:]) + shape.output_bytes + sum(kv[first:]) + scratch + CARD_OVERHEAD
        vram += shape.vision_bytes + shape.fixed_state_bytes
    ram = (CARD_PROCESS_RAM if on_card else PROCESS_RAM) + TOKEN_RAM * shape.vocabulary
    ram += sum(shape.layer_bytes[:first]) + shape.input_bytes + sum(kv[:first])
    ram += scratch
    if not on_card:
        ram += shape.vision_bytes + shape.fixed_state_bytes + (0 if shape.tied else shape.output_bytes)
    weights_card = vram - sum(kv[first:]) - scratch if on_card else 0
    # Of the token embeddings a token reads one row, of the network that sees nothing; the output matrix is read whole.
    ends = (shape.output_bytes, 0) if on_card else (0, shape.output_bytes)
    read = sum(shape.layer_bytes[first:]) + ends[0], sum(shape.layer_bytes[:first]) + ends[1]
    phases = (
        Phase(name="load", vram_bytes=max(0, weights_card), ram_bytes=ram - scratch),
        Phase(name="generate", vram_bytes=vram, ram_bytes=ram, token_bytes=read),
    )
    return Need(vram, ram, phases)


def contexts(shape: Shape, asked: int | None) -> list[int]:
    """The context lengths to try, longest first. What is asked for is rounded up to the next 256 tokens."""
    limit = shape.trained_context
    if asked is not None:
        if asked > limit:
            raise BadRequest(
                f"A context of {asked:,} tokens is more than the {limit:,} that the model was trained with.",
                f"Ask for --context {limit} or less.",
            )
        return [min(-(-asked // 256) * 256, limit)]
    top = min(limit, AUTO_CONTEXT)
    ladder = [top] + [2**power for power in range(15, 10, -1) if 2**power < top]
    return ladder


def _rungs(lengths: list[int], kinds: list[KvType]) -> Iterator[tuple[int, KvType]]:
    """A comfortable context at full precision counts more than a longer one at less; q4_0 is for the worst case."""
    good = [kind for kind in kinds if kind != "q4_0"]
    comfortable = min(COMFORTABLE, lengths[0])
    for kind in good:
        yield from ((length, kind) for length in lengths if length >= comfortable)
    yield from ((length, kind) for length in lengths if length < comfortable for kind in good)
    yield from ((length, kind) for kind in kinds if kind not in good for length in lengths)


def _precisions(shape: Shape, kv: str) -> list[KvType]:
    if shape.kv_quantises:
        return ["f16", "q8_0", "q4_0"] if kv == "auto" else [kv]  # type: ignore[list-item]
    if kv in ("auto", "f16"):
        return ["f16"]
    raise BadRequest(
        f"The working memory of this model cannot be {kv}: its heads are no multiple of 32 wide.",
        "Leave out --kv-cache.",
    )


def choices(shape: Shape, asked: int | None, kv: str, gpu_layers: int | None, card: bool) -> Iterator[Choice]:
    """Every setting that the request allows, best first: all layers on the card, then some, then none."""
    lengths = contexts(shape, asked)
    kinds = _precisions(shape, kv)
    full = shape.layers + 1  # llama.cpp counts the output as one more
    if gpu_layers is not None or not card:
        count = min(gpu_layers or 0, full)
        yield from (Choice(length, kind, count) for length, kind in _rungs(lengths, kinds))
        return
    yield from (Choice(length, kind, full) for length, kind in _rungs(lengths, kinds))
    for length in (length for length in lengths if length <= COMFORTABLE or asked):
        # The last precision is for the worst case only: some layers more do not make up for it.
        yield from (Choice(length, kind, n) for kind in kinds[:2] for n in _steps(shape.layers))
        yield from (Choice(length, kind, 0) for kind in kinds)


def told(shape: Shape, choice: Choice, threads: int) -> tuple[str, ...]:
    """The choice in words, by the names of the parameters that would change it."""
    words = [f"context {choice.context:,} tokens", f"KV cache {choice.kv}"]
    on_card = min(choice.gpu_layers, shape.layers)
    if on_card:
        words.append(
            "all layers on the card" if on_card == shape.layers else f"{on_card} of {shape.layers} layers on the card"
        )
    if on_card < shape.layers:
        words.append(f"{threads} processor thread{'s' * (threads > 1)}")
    return tuple(words)


def _steps(layers: int) -> list[int]:
    """Partial counts in an eighth of the layers: finer steps would reload the model as free memory wavers."""
    step = max(1, layers // 8)
    return list(range(layers - step, 0, -step))


def choose(shape: Shape, budget: Budget, *, asked: int | None, kv: str, gpu_layers: int | None) -> tuple[Choice, Need]:
    """The best choice within ``budget``, or ``DoesNotFit`` with the nearest thing that would."""
    card = budget.vram_bytes > 0
    if gpu_layers and not card:
        raise BadRequest(f"{gpu_layers} layers cannot go on a card: there is none to use.", "Leave out --gpu-layers.")
    least: tuple[Choice, Need] | None = None
    for choice in choices(shape, asked, kv, gpu_layers, card):
        cost = need(shape, choice)
        if cost.vram <= budget.vram_bytes and cost.ram <= budget.ram_bytes:
            return choice, cost
        if least is None or _lacking(cost, budget) < _lacking(least[1], budget):
            least = choice, cost
    raise _refusal(shape, budget, least, asked is not None or kv != "auto" or gpu_layers is not None)


def _lacking(cost: Need, budget: Budget) -> int:
    """How many bytes more than there are; of a shortage on both sides the larger counts twice, as the engine counts it
    when it looks for the nearest machine that would do."""
    card, memory = max(0, cost.vram - budget.vram_bytes), max(0, cost.ram - budget.ram_bytes)
    return 2 * max(card, memory) if card and memory else card + memory


def _refusal(shape: Shape, budget: Budget, least: tuple[Choice, Need] | None, fixed: bool) -> DoesNotFit:
    if least is None:  # only if ``contexts`` gave nothing
        return DoesNotFit("No context length is possible with this model.")
    choice, cost = least
    have = f"{format_bytes(budget.ram_bytes)} of memory"
    if budget.vram_bytes:
        have += f" and {format_bytes(budget.vram_bytes)} on the card"
    needs = f"{format_bytes(cost.ram)} of memory" + (f" and {format_bytes(cost.vram)} on the card" if cost.vram else "")
    hint = "Choose a smaller model or a smaller quantisation of this one, or free memory."
    if fixed:
        try:
            free, _ = choose(shape, budget, asked=None, kv="auto", gpu_layers=None)
            hint = f"What fits now: --context {free.context} --kv-cache {free.kv}, and --gpu-layers left out."
        except DoesNotFit:
            pass
    return DoesNotFit(
        f"The least that this needs, {choice.context:,} tokens of context, is {needs}; there are {have}.", hint
    )
