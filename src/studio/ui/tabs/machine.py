"""What this machine has and does: card, memory, disk, what is loaded, energy; pause and unload."""

from __future__ import annotations

import time
from collections.abc import Mapping

import gradio as gr

from studio import hardware
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.view import button, esc, live


def build(say: Words) -> None:
    gr.Markdown(f'<div class="panel">{live("machine")}</div>', sanitize_html=False)


def render(house: House, say: Words, _query: Mapping[str, str]) -> tuple[str, int]:
    machine = hardware.probe(house.studio.home.root)
    gauges = [_gauge(card.name, card.total_bytes - card.free_bytes, card.total_bytes, say) for card in machine.gpus]
    if not machine.gpus:
        gauges.append(f'<article class="gauge"><header><b>{esc(say("machine.card"))}</b></header>'
                      f"<p>{esc(say('machine.no_card'))}</p></article>")  # fmt: skip
    used = machine.ram_total_bytes - machine.ram_free_bytes
    gauges.append(_gauge(say("machine.memory"), used, machine.ram_total_bytes, say))
    total = house.studio.made.disk_total_bytes()
    gauges.append(_gauge(say("machine.disk"), total - machine.disk_free_bytes, total, say))
    cores = say("machine.cores", count=machine.cores)
    facts = " · ".join([machine.processor, cores, machine.system])
    about = f'<p class="facts">{esc(facts)}<br>{esc(house.studio.home.root)}</p>'
    body = f'{_switch(house, say)}<div class="gauges">{"".join(gauges)}</div>{_loaded(house, say)}{_energy(house, say)}'
    return f'<div class="machine">{body}{about}</div>', 1500


def _gauge(name: str, used: int, total: int, say: Words) -> str:
    share = used / total if total else 0
    level = "high" if share > 0.9 else "mid" if share > 0.75 else ""
    free = say("machine.free", free=say.size(total - used), total=say.size(total))
    return (
        f'<article class="gauge {level}"><header><b>{esc(name)}</b><span>{100 * share:.0f} %</span></header>'
        f'<div class="bar"><i style="width:{100 * share:.0f}%"></i></div><small>{esc(free)}</small></article>'
    )


def _switch(house: House, say: Words) -> str:
    if house.studio.queue.paused:
        text, act = say("machine.paused"), button("resume", esc(say("machine.resume")), kind="primary")
    else:
        text, act = say("machine.works"), button("pause", esc(say("machine.pause")))
    return f'<div class="switch"><p>{esc(text)}</p>{act}</div>'


def _loaded(house: House, say: Words) -> str:
    held = house.studio.queue.note("loaded") or []
    rows = "".join(
        f"<li><b>{esc(one['model'])}</b> <span>{esc(_places(one, say))}</span></li>" for one in held
    )  # fmt: skip
    body = f"<ul>{rows}</ul>" if rows else f"<p>{esc(say('machine.nothing_loaded'))}</p>"
    act = button("unload", esc(say("machine.unload")), kind="small") if rows else ""
    return f'<section class="loaded"><h3>{esc(say("machine.loaded"))}</h3>{body}{act}</section>'


def _places(held: Mapping[str, int], say: Words) -> str:
    if held.get("parked"):
        return say("machine.parked", size=say.size(held["ram_bytes"]))
    card = say("plan.of_vram", size=say.size(held["vram_bytes"])) + " · " if held["vram_bytes"] else ""
    return card + say("plan.of_ram", size=say.size(held["ram_bytes"]))


def _energy(house: House, say: Words) -> str:
    day, known = house.studio.made.energy_since(time.time() - 86_400)
    text = say("machine.energy_day", energy=say.number(day / 3600, 2)) if known else say("machine.energy_unknown")
    return f"<section><h3>{esc(say('machine.energy'))}</h3><p>{esc(text)}</p></section>"
