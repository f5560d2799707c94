"""The parts, all of them diffusers' and transformers' own classes, so that StableDiffusionPipeline loads the folder."""

import copy
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT_CHANNELS = 4
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}


@dataclass(frozen=True)
class Shape:
    """Sizes of the parts. The defaults give 7.8 M parameters; tests use less."""

    picture: int = 64
    vae: tuple[int, ...] = (24, 48, 96)  # two halvings: 64 pixels -> 16 latents a side
    unet: tuple[int, ...] = (64, 96, 128)
    text_width: int = 128
    text_layers: int = 2
    tokens: int = 32  # captions are short, and cross-attention pays for every position
    vocabulary: int = 4000

    @property
    def latent(self) -> int:
        return self.picture // 2 ** (len(self.vae) - 1)

    def as_dict(self) -> dict[str, object]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def build_tokenizer(texts: Iterable[str], shape: Shape) -> CLIPTokenizer:
    """CLIP's own splitting and byte-level BPE, with merges learned from our captions."""
    learned = CLIPTokenizer().train_new_from_iterator(
        texts, vocab_size=shape.vocabulary - 512, show_progress=False, length=None
    )
    model = json.loads(learned.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    # As in CLIP: every byte, inside and at the end of a word, is a token, so nothing is ever unknown.
    letters = sorted(_byte_letters())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=shape.tokens)


def _byte_letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return list(ByteLevel.alphabet())


def build_vae(shape: Shape) -> AutoencoderKL:
    depth = len(shape.vae)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=shape.vae,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=shape.picture,
        force_upcast=False,
    )


def build_text_encoder(tokenizer: CLIPTokenizer, shape: Shape) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.text_width,
            intermediate_size=4 * shape.text_width,
            projection_dim=shape.text_width,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=4,
            max_position_embeddings=shape.tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(shape: Shape) -> UNet2DConditionModel:
    depth = len(shape.unet)
    return UNet2DConditionModel(
        sample_size=shape.latent,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        # Attention is left out at the widest level: 256 positions cost the most there and say the least.
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (depth - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (depth - 1) + ("UpBlock2D",),
        block_out_channels=shape.unet,
        layers_per_block=1,
        attention_head_dim=4,  # the number of heads, in this class's older naming
        cross_attention_dim=shape.text_width,
        norm_num_groups=16,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """DPM++ 2M: clean pictures from 20 steps."""
    return DPMSolverMultistepScheduler(
        **NOISE, prediction_type="v_prediction", algorithm_type="dpmsolver++", steps_offset=1
    )


def assemble(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_half(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Write the pipeline in fp16 safetensors; the parts in memory keep their precision."""
    vae, text, unet = (copy.deepcopy(part).half() for part in (pipe.vae, pipe.text_encoder, pipe.unet))
    assemble(vae, text, pipe.tokenizer, unet).save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # one of the two libraries writes them for the owner alone
