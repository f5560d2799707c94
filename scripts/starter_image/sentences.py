"""Teaching the text encoder sentences, without drawing: the denoiser must be told the same as by the plain name.

A denoiser hears of its caption in its cross-attentions alone. So with the denoiser as it is, a text encoder says the
same of "please, a cat!" as its teacher, the encoder before this lesson, says of "a cat", when every cross-attention
answers the same to the same questions. Questions are kept once, from noisy latents of every concept; a step then costs
a text encoder and a few attentions, a tenth of what it costs to train through the denoiser, and has no noise in it.
"""

import copy

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel

LEVELS = 12  # noise levels of each concept whose questions are kept
PLACES = 16  # positions of the picture whose questions are kept


class Lesson:
    """Questions that the denoiser asked, and what the teacher's words made its attentions answer."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        teacher: CLIPTextModel,
        noise: DDPMScheduler,
        plain: torch.Tensor,
        latents: torch.Tensor,
        seed: int,
    ) -> None:
        """`plain` (N + 1, tokens): the names as ids, the empty caption last. `latents` (N, 4, h, w), scaled."""
        self.unet = copy.deepcopy(unet).eval().requires_grad_(False)
        self.listening = [part for name, part in self.unet.named_modules() if name.endswith("attn2")]
        with torch.no_grad():
            self.states = copy.deepcopy(teacher).eval()(plain)[0]  # (N + 1, tokens, width)
            self.questions = self.ask(noise, latents, torch.Generator().manual_seed(seed))

    def ask(self, noise: DDPMScheduler, latents: torch.Tensor, random_: torch.Generator) -> list[torch.Tensor]:
        """For each attention: (LEVELS, N, PLACES, width of that attention)."""
        heard: list[list[torch.Tensor]] = [[] for _ in self.listening]
        device, count = self.states.device, len(latents)

        def keep(number: int) -> object:
            def hook(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, object]) -> None:
                asked = args[0]  # (N, positions, width)
                places = torch.randint(asked.shape[1], (len(asked), PLACES, 1), generator=random_).to(device)
                heard[number].append(asked.gather(1, places.expand(-1, -1, asked.shape[2])))

            return hook

        hooks = [
            part.register_forward_pre_hook(keep(number), with_kwargs=True) for number, part in enumerate(self.listening)
        ]
        for level in range(LEVELS):
            times = (level + torch.rand(count, generator=random_)) / LEVELS * noise.config.num_train_timesteps
            times = times.long().to(device)
            wild = torch.randn(latents.shape, generator=random_).to(device)
            self.unet(noise.add_noise(latents.to(device), wild, times), times, self.states[:-1])
        for hook in hooks:
            hook.remove()
        return [torch.stack(asked) for asked in heard]

    def loss(
        self, states: torch.Tensor, chosen: torch.Tensor, meant: torch.Tensor, random_: torch.Generator
    ) -> torch.Tensor:
        """How far the answers to `states` (B, tokens, width) are from the teacher's, in its own spread.

        `chosen` (B): whose latents the questions come from. `meant` (B): the caption, len(plain) - 1 for the empty one.
        """
        level = torch.randint(LEVELS, (len(chosen),), generator=random_)
        total = states.new_zeros(())
        for part, kept in zip(self.listening, self.questions, strict=True):
            asked = kept[level, chosen]
            with torch.no_grad():
                wanted = part(asked, self.states[meant])
            total = total + F.mse_loss(part(asked, states), wanted) / wanted.var()
        return total / len(self.listening)
