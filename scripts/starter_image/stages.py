"""The stages: the autoencoder; the denoiser with its text encoder; sentences for the text encoder alone; the
autoencoder's decoder once more.
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch import nn
from torch.nn import functional as F

from starter_training import Training, median_s

from . import data, models, phrases
from .losses import likeness
from .sentences import Lesson

TOP_RATE = {
    "vae": 1.0,
    "denoiser": 1.0,
    "phrases": 1.0,
    "decoder": 0.5,
}  # of the learning rate: the last only touches up


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    shape: models.Shape = field(default_factory=models.Shape)
    vae_batch: int = 32
    batch: int = 64
    rate: float = 1e-3
    ema: float = 0.999
    empty_captions: float = 0.1  # what guidance subtracts
    device: str = "cpu"

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "shape": self.shape.as_dict()}


class Trainer(Training):
    """Holds the parts; `run` goes on from the place in the plan."""

    shares: ClassVar = {"vae": 0.22, "denoiser": 0.56, "phrases": 0.13, "decoder": 0.09}
    reserve = 0.06  # for the start, the sheets, and neighbours that slow the machine
    watched = ("denoiser", "phrases")

    def __init__(self, dataset: data.Dataset, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder, len(dataset.pictures))
        self.dataset = dataset
        self.fillers = phrases.Fillers(dataset)
        self.tokenizer = models.build_tokenizer(data.all_names(dataset), settings.shape)
        self.preview: dict[str, list] | None = None  # of the pipeline that training began from
        self.noise = DDPMScheduler(**models.NOISE, prediction_type="v_prediction")
        self.build()

    def build(self) -> None:
        """Fresh parts, the same for the same seed."""
        shape = self.settings.shape
        torch.manual_seed(self.settings.seed)
        self.vae = models.build_vae(shape).to(self.device).train()
        self.text = models.build_text_encoder(self.tokenizer, shape).to(self.device).train()
        self.unet = models.build_unet(shape).to(self.device).train()
        self.learned = [*self.unet.parameters(), *self.text.parameters()]
        self.ema = [p.detach().clone() for p in self.learned]
        self.decoding = [*self.vae.post_quant_conv.parameters(), *self.vae.decoder.parameters()]
        self.optimisers = {
            "vae": torch.optim.AdamW(self.vae.parameters(), lr=self.settings.rate, weight_decay=0.0),
            "denoiser": torch.optim.AdamW(self.learned, lr=self.settings.rate, weight_decay=0.01),
            "phrases": torch.optim.AdamW(self.text.parameters(), lr=self.settings.rate, weight_decay=0.01),
            "decoder": torch.optim.AdamW(self.decoding, lr=self.settings.rate, weight_decay=0.0),
        }
        self.latents = torch.empty(0)
        self.teacher: dict[str, torch.Tensor] = {}  # the text encoder before the sentences
        self.lesson: Lesson | None = None

    # --- the plan ---------------------------------------------------------------------------------------------------

    @property
    def stages(self) -> dict[str, Callable[[int], float]]:
        return {
            "vae": self.vae_step,
            "denoiser": self.denoiser_step,
            "phrases": self.phrases_step,
            "decoder": self.decoder_step,
        }

    def make_plan(self, minutes: float) -> None:
        """Measure all stages on throw-away weights, then share out the time box."""
        seconds, size = {}, self.settings.shape.latent
        self.plan = dict.fromkeys(self.shares, 1000)
        self.latents = torch.zeros(len(self.dataset.concepts), models.LATENT_CHANNELS, size, size)
        for stage, step in self.stages.items():
            step(0)
            seconds[stage] = median_s(step, range(1, 10))
        self.build()
        self.share_out(minutes, seconds)

    # --- one step of each -------------------------------------------------------------------------------------------

    def learning_rate(self, stage: str, step: int) -> float:
        """A short rise, then a straight fall that reaches zero after the last step."""
        total = self.plan[stage]
        top = self.settings.rate * TOP_RATE[stage]
        return top * min((step + 1) / min(50, max(1, total // 10)), 1 - step / total)

    def vae_batch(self, random_: torch.Generator) -> torch.Tensor:
        """Two thirds our concepts, one third other emoji; white behind most. -> (B, 3, H, W) in -1..1"""
        count, other = self.settings.vae_batch, self.dataset.others
        rgba = self.dataset.pictures[torch.randint(len(self.dataset.pictures), (count,), generator=random_)]
        if len(other):
            third = count // 3
            chosen = other[torch.randint(len(other), (third,), generator=random_)]
            # Emoji are mostly orange and blue. With red, green and blue changing places, all hues are as common.
            order = torch.stack([torch.randperm(3, generator=random_) for _ in range(third)])
            order = torch.cat([order, torch.full((third, 1), 3)], 1)[:, :, None, None].expand_as(chosen)
            rgba = torch.cat([rgba[third:], chosen.gather(1, order)])
        # Shifts and mirror images keep the autoencoder useful for pictures that are not ours.
        shift = torch.randint(-3, 4, (2,), generator=random_).tolist()
        rgba = torch.roll(rgba, shift, dims=(2, 3))
        flip = torch.rand(count, generator=random_) < 0.3
        rgba = torch.where(flip[:, None, None, None], rgba.flip(3), rgba)
        colours = torch.rand(count, 3, generator=random_) * 2 - 1
        colours[torch.rand(count, generator=random_) < 0.85] = 1.0
        return data.on_background(rgba, colours).to(self.device)

    def vae_step(self, step: int) -> float:
        picture = self.vae_batch(self.generator(0, step))
        posterior = self.vae.encode(picture).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=self.generator(2, step)).to(self.device)
        result = self.vae.decode(posterior.mean + posterior.std * noise).sample
        # A little KL, so that latents stay near unit size.
        spread = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return self.update("vae", step, likeness(result, picture) + 1e-4 * spread, list(self.vae.parameters()))

    def decoder_step(self, step: int) -> float:
        """The decoder alone gets sharper, as the latents that the denoiser has learned must stay what they are."""
        random_ = self.generator(3, step)
        picture = self.vae_batch(random_)
        with torch.no_grad():
            latents = self.vae.encode(picture).latent_dist.mean
        # The denoiser's latents are not quite the encoder's: the decoder learns to overlook a little noise.
        noise = torch.randn(latents.shape, generator=random_).to(self.device)
        result = self.vae.decode(latents + 0.05 * noise).sample
        return self.update("decoder", step, likeness(result, picture), self.decoding)

    def prepare_lesson(self) -> Lesson:
        """The averaged weights become the denoiser and the teacher; the same again in a resumed run."""
        if not self.teacher:
            with torch.no_grad():
                for parameter, average in zip(self.learned, self.ema, strict=True):
                    parameter.copy_(average)
            self.teacher = {key: value.detach().clone() for key, value in self.text.state_dict().items()}
        teacher = models.build_text_encoder(self.tokenizer, self.settings.shape).to(self.device)
        teacher.load_state_dict(self.teacher)
        plain = self.tokens([*(concept.en[0] for concept in self.dataset.concepts), ""])
        return Lesson(self.unet, teacher, self.noise, plain, self.latents, self.settings.seed)

    def phrases_step(self, step: int) -> float:
        """Sentences around the names: the text encoder learns to say of them what it says of the plain name."""
        if self.lesson is None:
            self.lesson = self.prepare_lesson()
        random_ = self.generator(4, step)
        chosen, captions, empty = self.captions(random_, self.fillers.caption)
        states, meant = self.text(self.tokens(captions))[0], torch.where(empty, len(self.latents), chosen)
        loss = self.lesson.loss(states, chosen, meant, random_)
        value = self.update("phrases", step, loss, list(self.text.parameters()))
        self.average(step, first=len(list(self.unet.parameters())))
        return value

    def captions(
        self, random_: torch.Generator, caption: Callable[[data.Concept, random.Random], str]
    ) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        """The concepts of a batch (B), a caption of each, and which of these were emptied (B)."""
        chosen = torch.randint(len(self.latents), (self.settings.batch,), generator=random_)
        chance = random.Random(int(torch.randint(2**31, (1,), generator=random_)))
        texts = [caption(self.dataset.concepts[i], chance) for i in chosen.tolist()]
        empty = [chance.random() < self.settings.empty_captions for _ in texts]
        return chosen, ["" if none else text for none, text in zip(empty, texts, strict=True)], torch.tensor(empty)

    def denoiser_step(self, step: int) -> float:
        random_, count = self.generator(1, step), self.settings.batch
        chosen, captions, _ = self.captions(random_, data.caption)
        latents = self.latents[chosen].to(self.device)
        noise = torch.randn(latents.shape, generator=random_).to(self.device)
        # One noise level from each of B equal parts: less variance than B independent draws.
        times = (torch.arange(count) + torch.rand(count, generator=random_)) / count
        times = (times * self.noise.config.num_train_timesteps).long().to(self.device)
        noisy, target = self.noise.add_noise(latents, noise, times), self.noise.get_velocity(latents, noise, times)
        states = self.text(self.tokens(captions))[0]  # (B, tokens, width)
        loss = F.mse_loss(self.unet(noisy, times, states).sample, target)
        value = self.update("denoiser", step, loss, self.learned)
        self.average(step)
        return value

    def tokens(self, captions: list[str]) -> torch.Tensor:
        filled = self.tokenizer(
            captions, padding="max_length", max_length=self.settings.shape.tokens, truncation=True, return_tensors="pt"
        )
        return filled.input_ids.to(self.device)

    # --- between the stages -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self) -> torch.Tensor:
        """Posterior means of all concepts on white, unscaled, fp32: (N, 4, h, w)."""
        self.vae.eval()
        white = torch.ones(len(self.dataset.pictures), 3)
        pictures = data.on_background(self.dataset.pictures, white).to(self.device)
        return torch.cat([self.vae.encode(part).latent_dist.mean for part in pictures.split(32)]).float()

    @torch.no_grad()
    def centre(self) -> None:
        """Fold each latent channel's mean and spread into the 1x1 convolutions around the latents.

        Diffusers' pipeline only multiplies latents by `scaling_factor`; the denoiser learns better when they also have
        mean zero. A 1x1 convolution absorbs that exactly, so no reader of the file needs to know.
        """
        latents = self.encode()
        mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        into, out = self.vae.quant_conv, self.vae.post_quant_conv
        channels = models.LATENT_CHANNELS
        into.weight[:channels] /= spread[:, None, None, None]
        into.bias[:channels] = (into.bias[:channels] - mean) / spread
        into.bias[channels:] -= 2 * spread.log()  # the second half is the log-variance
        out.bias += (out.weight[:, :, 0, 0] * mean).sum(1)
        out.weight *= spread[None, :, None, None]

    def scale(self) -> None:
        latents = self.encode()
        factor = round(1 / float(latents.std()), 5)
        if self.preview is not None:
            factor = self.vae.config.scaling_factor  # what the denoiser that we began from has learned
        self.vae.register_to_config(scaling_factor=factor)
        self.latents = (latents * factor).cpu()

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        if self.stage == "vae":
            self.run_stage("vae")
            self.centre()
            self.advance("denoiser")
        self.scale()
        for stage, after in pairwise([*list(self.shares)[1:], "done"]):
            if self.stage == stage:
                self.run_stage(stage)
                self.advance(after)

    def advance(self, stage: str) -> None:
        self.stage, self.step = stage, 0
        if stage == "denoiser":
            self.scale()
        self.save()
        self.mark()

    # --- files ------------------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, nn.Module]:
        return {"vae": self.vae, "text": self.text, "unet": self.unet}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "teacher": self.teacher}

    def load(self) -> dict[str, Any]:
        state = super().load()
        self.teacher = state["teacher"]
        return state

    def begin_from(self, folder: Path) -> None:
        """Take all weights from a finished pipeline and go on with the sentences; its autoencoder stays as it is."""
        pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = pipe.tokenizer  # as it is: its numbers are the rows of the text encoder's table
        self.build()
        self.vae.load_state_dict(pipe.vae.state_dict())
        self.vae.register_to_config(scaling_factor=pipe.vae.config.scaling_factor)
        self.unet.load_state_dict(pipe.unet.state_dict())
        self.text.load_state_dict(pipe.text_encoder.state_dict())
        self.ema = [p.detach().clone() for p in self.learned]
        self.preview = json.loads((folder / "preview.json").read_text(encoding="utf-8"))
        self.stage, self.step = "phrases", 0

    def pipeline(self) -> StableDiffusionPipeline:
        """The averaged weights, as the pipeline that users will load."""
        shape = self.settings.shape
        text, unet = models.build_text_encoder(self.tokenizer, shape), models.build_unet(shape)
        with torch.no_grad():
            for parameter, average in zip([*unet.parameters(), *text.parameters()], self.ema, strict=True):
                parameter.copy_(average)
        vae = models.build_vae(shape)
        vae.load_state_dict(self.vae.state_dict())
        vae.register_to_config(scaling_factor=self.vae.config.scaling_factor)
        pipe = models.assemble(vae.eval(), text.eval(), self.tokenizer, unet.eval())
        pipe.set_progress_bar_config(disable=True)
        return pipe
