"""The stages: the autoencoder on single frames; the transformer with its text encoders, and these again from half the
rate on; the decoder on films.

The encoder is used on single frames only: the pipeline encodes nothing but the given picture. So the latent of a film's
frames 4n-3 to 4n is by definition that of frame 4n alone, and the decoder learns the frames between.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import AutoencoderKL, HunyuanVideoFramepackPipeline
from torch import nn
from torch.nn import functional as F

from starter_image.losses import likeness
from starter_training import Training, median_s, write_whole

from . import captions, history, learning, models, scenes
from .framewise import framewise

CHUNK = 32


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    shape: models.Shape = field(default_factory=models.Shape)
    scenes: int = 300
    picture_batch: int = 8
    batch: int = 6
    few: int = 3  # frames of a section that are learned at once, at first
    few_part: float = 0.75  # of the stage; then whole sections
    film_batch: int = 3
    film_latents: int = 3  # a window of 9 frames
    picture_rate: float = 3e-4
    rate: float = 2e-3
    film_rate: float = 5e-4
    ema: float = 0.99
    device: str = "cpu"

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "shape": self.shape.as_dict()}


class Trainer(Training):
    """Holds the parts; `run` goes on from the place in the plan."""

    shares: ClassVar = {"pictures": 0.1, "motion": 0.54, "again": 0.18, "films": 0.18}
    reserve = 0.12  # for the start, the latents, the sheets, and neighbours that slow the machine
    watched = ("motion",)

    def __init__(self, sprites: scenes.Sprites, begin: AutoencoderKL | None, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder, len(sprites.pictures))
        self.sprites, self.begin = sprites, begin
        self.tokenizers = models.build_tokenizers(captions.all_phrases(sprites.subjects), settings.shape)
        self.scenes = self.make_scenes()
        self.build()

    def make_scenes(self) -> list[scenes.Scene]:
        random_ = torch.Generator().manual_seed(self.settings.seed + 77)
        return [scenes.make_scene(self.sprites.pictures, random_) for _ in range(self.settings.scenes)]

    def build(self) -> None:
        """Fresh parts, the same for the same seed."""
        shape = self.settings.shape
        torch.manual_seed(self.settings.seed)
        self.vae = models.build_vae(shape).to(self.device)
        if self.begin is not None:
            models.from_pictures(self.vae, self.begin)
        self.llama = models.build_llama(self.tokenizers[0], shape).to(self.device)
        self.clip = models.build_clip(self.tokenizers[1], shape).to(self.device)
        self.eye, self.processor = models.build_eye(shape)
        self.eye = self.eye.to(self.device).eval()
        self.transformer = models.build_transformer(shape).to(self.device)
        heard = [*self.llama.embed_tokens.parameters(), *self.llama.layers[0].parameters(), *self.clip.parameters()]
        self.learned = [p for p in self.transformer.parameters() if p.requires_grad] + heard
        self.ema = [p.detach().clone() for p in self.learned]
        self.decoding = [*self.vae.post_quant_conv.parameters(), *self.vae.decoder.parameters()]
        self.optimisers = learning.optimisers(self.settings, self.vae, self.decoding, self.transformer, heard)
        self.latents = self.looks = torch.empty(0)

    # --- the plan ---------------------------------------------------------------------------------------------------

    @property
    def stages(self) -> dict[str, Callable[[int], float]]:
        again = partial(self.motion_step, stage="again")
        return {"pictures": self.picture_step, "motion": self.motion_step, "again": again, "films": self.film_step}

    def make_plan(self, minutes: float) -> None:
        """Measure all stages on throw-away weights, then share out the time box."""
        seconds, size, count = {}, self.settings.shape.latent, len(self.scenes)
        self.plan = dict.fromkeys(self.shares, 1000)
        self.latents = torch.zeros(count, len(captions.MOTIONS), 10, models.CHANNELS, size, size)
        self.looks = torch.zeros(count, 4, self.settings.shape.eye)
        for stage, step in self.stages.items():
            step(0)
            seconds[stage] = median_s(step, range(1, 6))
        part, late = self.settings.few_part, median_s(self.motion_step, range(997, 1000))
        seconds["motion"] = seconds["again"] = part * seconds["motion"] + (1 - part) * late
        self.build()
        self.share_out(minutes, seconds)

    # --- one step of each -------------------------------------------------------------------------------------------

    def learning_rate(self, stage: str, step: int) -> float:
        return learning.rate(self.settings, stage, step, self.plan[stage])

    def optimisers_of(self, stage: str) -> list[torch.optim.Optimizer]:
        return [self.optimisers[name] for name in learning.names_of(stage)]

    def picture_step(self, step: int) -> float:
        """Single frames of films in and out of the autoencoder."""
        random_ = self.generator(0, step)
        frames = []
        for _ in range(self.settings.picture_batch):
            scene = scenes.make_scene(self.sprites.pictures, random_)
            motion = captions.MOTIONS[int(torch.randint(len(captions.MOTIONS), (1,), generator=random_))]
            frames.append(scenes.film(scene, motion, [int(torch.randint(36, (1,), generator=random_))]))
        picture = torch.cat(frames).to(self.device)  # (B, 3, H, W)
        with framewise(self.vae):
            posterior = self.vae.encode(picture[:, :, None]).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=random_).to(self.device)
            result = self.vae.decode(posterior.mean + posterior.std * noise).sample[:, :, 0]
        spread = (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        loss = likeness(result, picture) + 1e-4 * 0.5 * spread
        return self.update("pictures", step, loss, list(self.vae.parameters()))

    def motion_step(self, step: int, stage: str = "motion") -> float:
        """Flow matching of the next latents from the given picture, what came before, and a caption."""
        settings, random_ = self.settings, self.generator(1 if stage == "motion" else 3, step)
        chance = random.Random(int(torch.randint(2**31, (1,), generator=random_)))
        whole = step >= settings.few_part * self.plan[stage]
        count, recent = max(1, settings.batch // 3) if whole else settings.batch, whole or chance.random() < 0.5
        numbers = [chance.randrange(len(self.scenes)) for _ in range(count)]
        asked = [chance.randrange(len(captions.MOTIONS)) for _ in range(count)]
        if stage == "again":  # half of them up or down, which only the caption tells apart
            asked = [chance.choice((2, 3)) if chance.random() < 0.5 else motion for motion in asked]
        batch = history.sections(
            self.latents[numbers], asked, chance, random_, same=0.75 if stage == "motion" else 0.25
        )
        frames = list(range(9)) if whole else sorted(chance.sample(range(9), settings.few))
        clean = batch.target[:, :, frames].to(self.device)  # (B, 4, frames, h, w)
        noise = torch.randn(clean.shape, generator=random_).to(self.device)
        # One noise level from each of B equal parts, then shifted as the scheduler shifts them.
        parts = (torch.randperm(count, generator=random_) + torch.rand(count, generator=random_)) / count
        if stage == "again":  # half begin from noise alone, where nothing but the caption tells the motion
            parts = torch.where(parts > 1 / 2, 1.0, parts * 2)
        sigma = (models.SHIFT * parts / (1 + (models.SHIFT - 1) * parts)).to(self.device)
        level = sigma[:, None, None, None, None]
        texts = [captions.caption(captions.MOTIONS[i], self.sprites.subjects, chance) for i in asked]
        states, mask, pooled = self.hear(texts)
        answer = self.transformer(
            hidden_states=(1 - level) * clean + level * noise,
            timestep=sigma * 1000,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            pooled_projections=pooled,
            image_embeds=self.looks[numbers].to(self.device),
            guidance=torch.full((count,), 1000.0, device=self.device),
            **history.layout(batch, frames, recent=recent, device=self.device),
            return_dict=False,
        )[0]
        value = self.update(stage, step, F.mse_loss(answer, noise - clean), self.learned)
        self.average(step)
        return value

    def hear(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Captions -> language model's states (B, tokens, width), mask (B, tokens), pooled (B, width)."""
        llama, clip = self.tokenizers
        filled = llama(texts, padding=True, max_length=self.settings.shape.tokens, truncation=True, return_tensors="pt")
        filled = filled.to(self.device)
        # What the pipeline takes: the states before the last two layers.
        states = self.llama(**filled, output_hidden_states=True).hidden_states[-3]
        short = clip(texts, padding=True, truncation=True, max_length=models.CLIP_TOKENS, return_tensors="pt")
        return states, filled.attention_mask, self.clip(short.input_ids.to(self.device)).pooler_output

    def film_step(self, step: int) -> float:
        """The decoder learns the frames between; it also learns to overlook a little noise in latents."""
        random_, settings = self.generator(2, step), self.settings
        window, found, wanted = settings.film_latents, [], []
        for _ in range(settings.film_batch):
            number, motion, first = (
                int(torch.randint(high, (1,), generator=random_))
                for high in (len(self.scenes), len(captions.MOTIONS), 9)
            )
            steps = [first + i for i in range(window)]
            found.append(self.latents[number, motion][[i % 9 for i in steps]].transpose(0, 1))
            times = list(range(4 * first, 4 * (first + window - 1) + 1))
            wanted.append(scenes.film(self.scenes[number], captions.MOTIONS[motion], times).transpose(0, 1))
        latents, film = torch.stack(found), torch.stack(wanted)
        if step % 4:  # Three quarters of the steps see a quarter of the frame each: cheaper, and as much to learn.
            cells, pixels = settings.shape.latent // 2, settings.shape.side // 2
            row, column = torch.randint(1, cells, (2,), generator=random_).tolist()
            latents = latents[..., row : row + cells, column : column + cells]
            top, left = row * pixels // cells, column * pixels // cells
            film = film[..., top : top + pixels, left : left + pixels]
        noise = 0.06 * torch.randn(latents.shape, generator=random_)
        result = self.vae.decode((latents + noise).to(self.device) / self.vae.config.scaling_factor).sample
        loss = likeness(result.transpose(1, 2).flatten(0, 1), film.to(self.device).transpose(1, 2).flatten(0, 1))
        return self.update("films", step, loss, self.decoding)

    # --- between the stages -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """RGB (N, 3, H, W) -> posterior means, unscaled (N, 4, h, w)."""
        with framewise(self.vae):
            parts = [self.vae.encode(p[:, :, None].to(self.device)).latent_dist.mean for p in frames.split(CHUNK)]
        return torch.cat(parts)[:, :, 0].cpu()

    @torch.no_grad()
    def centre(self) -> None:
        """Fold each latent channel's mean and spread into the 1x1x1 convolutions around the latents.

        Diffusers' pipeline only multiplies latents by `scaling_factor`; with this, that factor is one.
        """
        latents = self.encode(torch.cat([scenes.film(scene, "still", [0]) for scene in self.scenes[:100]]))
        mean, spread = latents.mean((0, 2, 3)).to(self.device), latents.std((0, 2, 3)).to(self.device)
        into, out = self.vae.quant_conv, self.vae.post_quant_conv
        into.weight[: models.CHANNELS] /= spread[:, None, None, None, None]
        into.bias[: models.CHANNELS] = (into.bias[: models.CHANNELS] - mean) / spread
        # The second half is the log-variance. Almost none is left: the pipeline would sample from it.
        into.weight[models.CHANNELS :] = 0
        into.bias[models.CHANNELS :] = -20
        out.bias += (out.weight[:, :, 0, 0, 0] * mean).sum(1)
        out.weight *= spread[None, :, None, None, None]

    def watch(self) -> None:
        """The latents of every scene under every motion, (scenes, motions, 10, 4, h, w), and what the eye says."""
        path = self.folder / "latents.pt"
        if path.exists():
            self.latents, self.looks = torch.load(path, weights_only=True)
            return
        latents, pipe = [], self.pipeline()
        for scene in self.scenes:
            films = [scenes.film(scene, motion, list(range(0, 36, 4))) for motion in captions.MOTIONS[:-1]]
            moved = self.encode(torch.cat([films[0][:1], *(film[1:] for film in films)]))
            first, rest = moved[:1], moved[1:].split(8)
            still = first.expand(10, -1, -1, -1)
            latents.append(torch.stack([*(torch.cat([first, part, first]) for part in rest), still]))
        self.latents = torch.stack(latents)
        firsts = torch.cat([scenes.film(scene, "still", [0]) for scene in self.scenes])
        with torch.no_grad():
            self.looks = torch.cat([pipe.encode_image(picture[None], device=self.device) for picture in firsts]).cpu()
        write_whole((self.latents, self.looks), path)

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        if self.stage == "pictures":
            (self.folder / "latents.pt").unlink(missing_ok=True)
        for stage, after in pairwise([*self.shares, "done"]):
            if self.stage != stage:
                continue
            if stage != "pictures":
                self.watch()
            self.run_stage(stage)
            if stage == "pictures":
                self.centre()
            self.stage, self.step = after, 0
            self.save()
            self.mark()

    # --- files ------------------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, nn.Module]:
        return {"vae": self.vae, "llama": self.llama, "clip": self.clip, "transformer": self.transformer}

    def pipeline(self) -> HunyuanVideoFramepackPipeline:
        """The parts with averaged weights, as the pipeline that users will load."""
        shape = self.settings.shape
        llama, clip = models.build_llama(self.tokenizers[0], shape), models.build_clip(self.tokenizers[1], shape)
        transformer = models.build_transformer(shape)
        for fresh, ours in ((llama, self.llama), (clip, self.clip), (transformer, self.transformer)):
            fresh.load_state_dict(ours.state_dict())
        heard = [*llama.embed_tokens.parameters(), *llama.layers[0].parameters(), *clip.parameters()]
        with torch.no_grad():
            learned = [p for p in transformer.parameters() if p.requires_grad] + heard
            for parameter, average in zip(learned, self.ema, strict=True):
                parameter.copy_(average)
        pipe = models.assemble(
            text_encoder=llama.eval(),
            tokenizer=self.tokenizers[0],
            text_encoder_2=clip.eval(),
            tokenizer_2=self.tokenizers[1],
            transformer=transformer.eval(),
            vae=self.vae,
            image_encoder=self.eye,
            feature_extractor=self.processor,
        ).to(self.device)
        pipe.set_progress_bar_config(disable=True)
        return pipe
