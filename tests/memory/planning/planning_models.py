"""Footprints of real models, from their public configurations, and functions that build one block for a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.memory.calibration import Calibration, Kept, Run, Subject, rates_id
from studio.pipeline import Block, Budget, Footprint, Network, Probe, Rates, Stage, Variant
from studio.units import GIB, MIB

TEXT = 256
"""Text tokens beside those of the picture."""

# Of HunyuanVideo's blocks, 3,072 wide: parameters, rows of their matrices, parameters in no matrix.
DUAL = Block(kind="dual", params=339_831_296, count=20, rows=92_160, plain=92_672)
SINGLE = Block(kind="single", params=141_591_808, count=40, rows=33_792, plain=34_048)
FRAMEPACK = Network(name="transformer", params=12_874_000_000, blocks=(DUAL, SINGLE))


def llm(name: str, params: int, layers: int, share: float = 0.9) -> Network:
    """A text encoder: ``share`` of its parameters are in ``layers`` equal layers."""
    return Network(
        name=name, params=params, blocks=(Block(kind="layer", params=int(params * share / layers), count=layers),)
    )


def vae(params: int, whole: int, *, rounds: int = 1, flops: float = 1e13) -> tuple[Network, Stage]:
    """A VAE and its decoding, whole or in tiles of a quarter and a sixteenth."""
    variants = (
        Variant(name="whole", flops=flops, activation_bytes=whole),
        Variant(name="tiles of 256", flops=1.3 * flops, activation_bytes=whole // 6, loss=0.02),
        Variant(name="tiles of 128", flops=1.6 * flops, activation_bytes=whole // 19, loss=0.05),
    )
    network = Network(name="vae", params=params, quantises=False)
    return network, Stage(name="decode", network="vae", variants=variants, rounds=rounds)


def model(
    denoiser: Network, encoder: Network, flops: float, activations: int, *, calls: int, rounds: int = 1,
    whole: int = 4 * GIB,
) -> Footprint:  # fmt: skip
    """Encode, denoise, decode."""
    network, decode = vae(250_000_000, whole, rounds=rounds)
    once = Variant(flops=2.0 * encoder.params * TEXT, activation_bytes=64 * MIB)
    step = Variant(flops=flops, activation_bytes=activations)
    networks = (encoder, denoiser, network)
    return Footprint(
        networks=networks,
        stages=(
            Stage(name="encode", network=encoder.name, variants=(once,)),
            Stage(
                name="denoise", network=denoiser.name, calls=calls, rounds=rounds, variants=(step,),
                held_bytes=32 * MIB,
            ),
            decode,
        ),
        disk_bytes=sum(2 * one.params for one in networks),
    )  # fmt: skip


LLAMA = llm("text_encoder", 7_500_000_000, 32)


def framepack(flops: float, activations: int, *, rounds: int = 1) -> Footprint:
    """FramePack: 25 steps a section; 15.2 GiB to decode 18 latents whole."""
    return model(FRAMEPACK, LLAMA, flops, activations, calls=25, rounds=rounds, whole=int(15.2 * GIB))


def z_image() -> Footprint:
    denoiser = Network(
        name="transformer", params=6_160_000_000, blocks=(Block(kind="layer", params=196_000_000, count=30),)
    )
    return model(denoiser, llm("text_encoder", 4_022_000_000, 36), 2 * 6.16e9 * 4352, 500 * MIB, calls=9)


def flux() -> Footprint:
    blocks = (Block(kind="dual", params=339_831_296, count=19), Block(kind="single", params=141_591_808, count=38))
    denoiser = Network(name="transformer", params=11_900_000_000, blocks=blocks)
    return model(denoiser, llm("text_encoder_2", 4_762_000_000, 24), 2 * 11.9e9 * 4352, 400 * MIB, calls=4)


def sdxl() -> Footprint:
    blocks = (Block(kind="BasicTransformerBlock", params=34_800_000, count=60),)  # those that are 1,280 wide
    denoiser = Network(name="unet", params=2_567_000_000, blocks=blocks)
    return model(denoiser, llm("text_encoder_2", 695_000_000, 32), 6e12, 900 * MIB, calls=100)


AT_16K = framepack(7e14, 2_072 * MIB)
AT_4K = framepack(1.5e14, 550 * MIB)
AT_1K = framepack(3e13, 160 * MIB)
MODELS = {"framepack-16k": AT_16K, "framepack-4k": AT_4K, "framepack-1k": AT_1K, "framepack-sections":
          framepack(7e14, 2_072 * MIB, rounds=10), "z-image": z_image(), "flux": flux(), "sdxl": sdxl()}  # fmt: skip

# The card of the measurements: 53 GB/s over the bus, FramePack's 7e14 operations in 1.11 s.
H100 = Rates(
    flops_per_s=7e14 / 1.11, bus_bytes_per_s=53e9, device_bytes_per_s=3.35e12, disk_bytes_per_s=3e9, measured=True
)
# A card of 8 GB on eight lanes of PCIe 4 that reaches 50e12 operations a second.
EIGHT_LANES = Rates(
    flops_per_s=50e12, bus_bytes_per_s=12e9, device_bytes_per_s=288e9, disk_bytes_per_s=1.5e9, measured=True
)


def budget(vram_gib: float, ram_gib: float = 64, rates: Rates | None = None) -> Budget:
    return Budget(vram_bytes=int(vram_gib * GIB), ram_bytes=int(ram_gib * GIB), threads=4, rates=rates)


# -- for probes --------------------------------------------------------------------------------------------------

Made = tuple[Any, Sequence[Any]]


def hunyuan_block(kind: str, tokens: int, dtype: str = "bfloat16", heads: int = 24, width: int = 128) -> Made:
    """One block of HunyuanVideo's transformer, which is FramePack's."""
    import torch
    from diffusers.models.transformers import transformer_hunyuan_video as hunyuan

    classes = {"dual": hunyuan.HunyuanVideoTransformerBlock, "single": hunyuan.HunyuanVideoSingleTransformerBlock}
    of, size = getattr(torch, dtype), heads * width
    block = classes[kind](heads, width, 4.0, qk_norm="rms_norm").to(of)
    turns = torch.randn(tokens, width), torch.randn(tokens, width)
    states = torch.randn(1, tokens, size).to(of), torch.randn(1, TEXT, size).to(of), torch.randn(1, size).to(of)
    return block, (*states, None, turns)


def vae_tile(pixels: int, dtype: str = "float32", widths: Sequence[int] = (128, 256, 512, 512)) -> Made:
    """Decoding one tile with Stable Diffusion's VAE."""
    import torch
    from diffusers import AutoencoderKL

    count = len(widths)
    network = AutoencoderKL(
        block_out_channels=tuple(widths), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * count, up_block_types=("UpDecoderBlock2D",) * count,
    ).to(getattr(torch, dtype))  # fmt: skip
    scale = 2 ** (count - 1)
    return network.decode, (torch.randn(1, 4, pixels // scale, pixels // scale).to(getattr(torch, dtype)),)


def hunyuan_vae(pixels: int) -> Made:
    """Decoding a film's 18 latents with HunyuanVideo's VAE at full size, as diffusers does by itself."""
    import torch
    from diffusers import AutoencoderKLHunyuanVideo

    network = AutoencoderKLHunyuanVideo().to(torch.bfloat16)
    return network.decode, (torch.randn(1, 16, 18, pixels // 8, pixels // 8).to(torch.bfloat16),)


def llama_layer(tokens: int, dtype: str = "float32", width: int = 64) -> Made:
    """One layer of transformers' Llama, as in a text encoder."""
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    config = LlamaConfig(
        hidden_size=width, intermediate_size=3 * width, num_attention_heads=4, num_key_value_heads=2,
        attn_implementation="sdpa",
    )  # fmt: skip
    of, head = getattr(torch, dtype), width // 4
    layer = LlamaDecoderLayer(config, 0).to(of)
    turns = torch.randn(1, tokens, head).to(of), torch.randn(1, tokens, head).to(of)

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, states: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> Any:
            return self.layer(states, position_embeddings=turns)

    return Layer(), (torch.randn(1, tokens, width).to(of), turns)


def probe(kind: str, tokens: int, count: int = 1) -> Probe:
    return Probe(make="planning_models:hunyuan_block", arguments={"kind": kind, "tokens": tokens}, count=count)


# -- runs that were measured ---------------------------------------------------------------------------------------

CARD = "A card"
SUBJECT = Subject(machine=CARD, software={"torch": "2"}, pipeline="film", model="one", choice="cuda a:bf16")
RATES = rates_id(H100)


def run(load: float | None = None, denoise: float | None = None, **more: object) -> Run:
    """A run that took so many times what was predicted, of one second each."""
    stages = {name: (1.0, value) for name, value in (("load", load), ("denoise", denoise)) if value is not None}
    return Run.model_validate({"cold": load is not None, "rates": RATES, "stages": stages, **more})


def known(*runs: Run, subject: Subject = SUBJECT) -> Calibration:
    return Calibration((Kept(subject=subject, runs=runs),))
