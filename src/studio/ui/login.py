"""The form that asks for the password: the only page that a stranger sees, so it needs nothing else."""

from __future__ import annotations

from studio.ui.i18n import words_of

_PAGE = """<!doctype html><html lang="{language}"><meta charset="utf-8"><title>Studio</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>body{{font:16px system-ui,sans-serif;display:grid;place-items:center;min-height:90vh;margin:0}}
form{{display:grid;gap:.8rem;width:min(20rem,86vw)}}h1{{font-size:1.5rem;margin:0}}p{{margin:0;color:light-dark(#b3202f,#f2808c)}}label{{line-height:1.9}}
input,button{{font:inherit;padding:.7rem .9rem;border-radius:.6rem;border:1px solid #8886}}
button{{background:#4757d6;color:#fff;border:0;cursor:pointer}}</style>
<form method="post" action="/studio/login"><h1>Studio</h1>{fault}
<label>{label}<br><input name="password" type="password" autocomplete="current-password" autofocus required
style="width:100%;box-sizing:border-box"></label><button>{enter}</button></form></html>"""


def login_page(french: bool, *, wrong: bool = False, wait: bool = False) -> str:
    say = words_of("fr" if french else "en")
    fault = f"<p>{say('login.wait' if wait else 'login.wrong')}</p>" if wrong else ""
    return _PAGE.format(language=say.language, fault=fault, label=say("login.password"), enter=say("login.enter"))
