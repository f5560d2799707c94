"""The parts, all of them diffusers' and transformers' own classes: HunyuanVideoFramepackPipeline loads the folder.

The autoencoder begins as the image starter's. AutoencoderKL and AutoencoderKLHunyuanVideo hold the same layers, one in
two dimensions and one in three: with its weights at the last place in time, the film's autoencoder treats each frame as
the picture's does. Only the kernels are turned by half a circle, as one class pads before and the other behind.
"""

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
)
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    LlamaConfig,
    LlamaModel,
    LlamaTokenizer,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

CHANNELS = 4  # of a latent
SHIFT = 7.0  # of the noise levels, in training and in sampling
CLIP_TOKENS = 77  # the pipeline pads to so many


@dataclass(frozen=True)
class Shape:
    """Sizes of the parts. Tests use less."""

    side: int = 64
    vae: tuple[int, ...] = (24, 48, 96)  # as the image starter's: 64 pixels -> 16 latents a side
    groups: int = 8
    heads: int = 4
    head: int = 32
    axes: tuple[int, int, int] = (8, 12, 12)  # of a head: time, rows, columns
    dual: int = 1
    single: int = 5
    text_width: int = 64
    vocabulary: int = 900
    tokens: int = 24  # of a caption in training
    eye: int = 32  # side and width of the image encoder

    @property
    def latent(self) -> int:
        return self.side // 2 ** (len(self.vae) - 1)

    def as_dict(self) -> dict[str, object]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def learn_pairs(
    words: Counter[tuple[str, ...]], size: int, known: list[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Byte-pair encoding, ties broken by spelling: the same vocabulary every time, which the library's is not."""
    tokens, merges = list(known), []
    while len(tokens) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        if best[0] + best[1] not in tokens:
            tokens.append(best[0] + best[1])
        words = Counter({_merge(word, best): count for word, count in words.items()})
    return tokens, merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            result.append(pair[0] + pair[1])
            i += 2
        else:
            result.append(word[i])
            i += 1
    return tuple(result)


def build_tokenizers(texts: Iterable[str], shape: Shape) -> tuple[LlamaTokenizer, CLIPTokenizer]:
    lines = [text.lower() for text in texts]
    spaces, letters = Metaspace(), ByteLevel(add_prefix_space=False)
    words = Counter(tuple(word) for line in lines for word, _ in spaces.pre_tokenize_str(line))
    printable = {chr(i) for i in range(33, 127)} | set("àâäçéèêëîïôöùûüœæ'’▁")
    begin = ["<unk>", "<s>", "</s>", "<pad>", *sorted(printable | {c for word in words for c in word})]
    tokens, merges = learn_pairs(words, shape.vocabulary, begin)
    llama = LlamaTokenizer(
        vocab={t: i for i, t in enumerate(tokens)},
        merges=merges,
        model_max_length=512,
        pad_token="<pad>",  # noqa: S106 - a token of the vocabulary
        padding_side="right",
    )
    # A caption of no words has this one token: the mean over none would not be a number.
    llama.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", llama.bos_token_id)]
    )

    bytes_ = sorted(ByteLevel.alphabet())
    split = (w.lstrip("\u0120") for line in lines for word in line.split() for w, _ in letters.pre_tokenize_str(word))
    clip_words = Counter((*word[:-1], word[-1] + "</w>") for word in split if word)
    tokens, merges = learn_pairs(clip_words, shape.vocabulary, [*bytes_, *(letter + "</w>" for letter in bytes_)])
    vocabulary = {t: i for i, t in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return llama, CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_TOKENS)


def build_llama(tokenizer: LlamaTokenizer, shape: Shape) -> LlamaModel:
    """Three layers: the pipeline takes what comes out of the first, so the other two stay as they are."""
    return LlamaModel(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.text_width,
            intermediate_size=2 * shape.text_width,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_clip(tokenizer: CLIPTokenizer, shape: Shape) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.text_width,
            intermediate_size=2 * shape.text_width,
            projection_dim=shape.text_width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CLIP_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_eye(shape: Shape) -> tuple[SiglipVisionModel, SiglipImageProcessor]:
    """It is never trained: what the model sees of the picture is its latent."""
    config = SiglipVisionConfig(
        hidden_size=shape.eye,
        intermediate_size=2 * shape.eye,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=shape.eye,
        patch_size=shape.eye // 2,
        vision_use_head=False,
    )
    return SiglipVisionModel(config), SiglipImageProcessor(size={"height": shape.eye, "width": shape.eye})


def build_transformer(shape: Shape) -> HunyuanVideoFramepackTransformer3DModel:
    model = HunyuanVideoFramepackTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=shape.heads,
        attention_head_dim=shape.head,
        num_layers=shape.dual,
        num_single_layers=shape.single,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=shape.text_width,
        pooled_projection_dim=shape.text_width,
        rope_axes_dim=shape.axes,
        has_image_proj=True,
        image_proj_dim=shape.eye,
        has_clean_x_embedder=True,
    )
    # The guidance scale says nothing here: with zeros it stays so whatever scale is asked for.
    torch.nn.init.zeros_(model.time_text_embed.guidance_embedder.linear_2.weight)
    torch.nn.init.zeros_(model.time_text_embed.guidance_embedder.linear_2.bias)
    model.time_text_embed.guidance_embedder.requires_grad_(False)
    return model


def build_vae(shape: Shape) -> AutoencoderKLHunyuanVideo:
    """Its kernels hold weights at the last place in time only: each frame is treated alone until films are learned."""
    depth = len(shape.vae)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=CHANNELS,
        down_block_types=("HunyuanVideoDownBlock3D",) * depth,
        up_block_types=("HunyuanVideoUpBlock3D",) * depth,
        block_out_channels=shape.vae,
        layers_per_block=1,
        norm_num_groups=shape.groups,
        spatial_compression_ratio=2 ** (depth - 1),
        temporal_compression_ratio=4,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        for weight in (p for p in vae.parameters() if p.ndim == 5):  # (out, in, time, rows, columns)
            weight[:, :, :-1] = 0
    return vae


@torch.no_grad()
def from_pictures(vae: AutoencoderKLHunyuanVideo, pictures: AutoencoderKL) -> None:
    """Take over the weights of the autoencoder for pictures, framewise."""
    theirs = pictures.state_dict()
    for name, value in vae.state_dict().items():
        found = theirs.get(name.replace(".conv.weight", ".weight").replace(".conv.bias", ".bias"), theirs.get(name))
        found = theirs[name.replace(".conv.conv.", ".conv.")] if found is None else found
        if value.ndim == 5:
            value[:, :, -1] = found.flip(-1, -2)
        else:
            value.copy_(found.reshape(value.shape))


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def assemble(**parts: object) -> HunyuanVideoFramepackPipeline:
    return HunyuanVideoFramepackPipeline(scheduler=build_scheduler(), **parts)


def save_half(pipe: HunyuanVideoFramepackPipeline, folder: Path) -> None:
    """Write the pipeline in fp16 safetensors; the parts in memory keep their precision."""
    names = ("text_encoder", "text_encoder_2", "image_encoder", "transformer", "vae")
    halves = {name: copy.deepcopy(getattr(pipe, name)).half() for name in names}
    rest = {name: getattr(pipe, name) for name in ("tokenizer", "tokenizer_2", "feature_extractor")}
    assemble(**halves, **rest).save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # one of the two libraries writes them for the owner alone
