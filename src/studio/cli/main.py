"""``studio``: the commands, and the one place where errors become lines and exit codes.

0: done. 1: the job failed. 2: a bad request, refused before anything was queued. Heavy modules are imported inside
the commands, so that ``studio --help`` is quick.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from studio.errors import StudioError

app = typer.Typer(
    name="studio",
    help="Text, image, video, sound and 3D from open-weight models, on one consumer graphics card.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
models = typer.Typer(help="List, show, download and remove models.", no_args_is_help=True, rich_markup_mode=None)
jobs = typer.Typer(help="List, follow, cancel and reorder jobs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models, name="models")
app.add_typer(jobs, name="jobs")

Json = Annotated[bool, typer.Option("--json", help="Machine-readable: JSON on standard output.")]
_RAW = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from studio import __version__

        typer.echo(f"studio {__version__}")
        raise typer.Exit


@app.command(context_settings=_RAW, add_help_option=False)
def run(context: typer.Context) -> None:
    """Make something: studio run MODEL --prompt "WORDS"."""
    from studio.cli.run import run_command

    raise typer.Exit(run_command(context.args))


@app.command()
def chat(
    model: Annotated[str | None, typer.Argument(help="A text model; default: the best that is installed.")] = None,
    system: Annotated[str, typer.Option(help="What the model is told to be.")] = "",
) -> None:
    """Talk with a text model."""
    from studio.cli.chat import chat_command

    raise typer.Exit(chat_command(model, system))


@app.command()
def batch(
    file: Annotated[str, typer.Argument(help="A YAML file of jobs.")],
    executor: Annotated[str, typer.Option(help="inline or worker.")] = "worker",
    grid: Annotated[str | None, typer.Option(help="Also draw each matrix as a contact sheet into this PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Run a file of jobs; run it again to do only what is missing."""
    from studio.cli.batch import batch_command

    raise typer.Exit(batch_command(file, executor, as_json, grid))


@app.command(context_settings=_RAW, add_help_option=False)
def plan(context: typer.Context) -> None:
    """Say what a request would take, before anything is loaded."""
    from studio.cli.plan import plan_command

    raise typer.Exit(plan_command(context.args))


@app.command(short_help="Say what this machine has, and what is wrong.")
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    as_json: Json = False,
) -> None:
    """Say what this machine has, which llama.cpp build is installed, and what is wrong."""
    from studio.cli.doctor import doctor_command

    raise typer.Exit(doctor_command(repair, as_json))


@app.command(short_help="Open the page in the browser.")
def ui(
    host: Annotated[str, typer.Option(help="Where to listen; others than this machine need a password.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: 7860, or the next free one.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
    password_file: Annotated[str | None, typer.Option(help="A text file with the password in its first line.")] = None,
) -> None:
    """Open the page in the browser: everything that the command line does, with a tab for each kind of thing."""
    from studio.cli.ui import ui_command

    raise typer.Exit(ui_command(host, port, browser, password_file))


@app.command(short_help="Say what runs, what waits, what is loaded, what is free.")
def status(as_json: Json = False) -> None:
    """Say what runs, what waits, what is loaded where, and what is free."""
    from studio.cli.status import show_status

    show_status(as_json)


@app.command(short_help="Stop working and give the card back; nothing is lost.")
def pause() -> None:
    """Stop working and give the card back; what was running goes back to the queue."""
    from studio.cli.status import set_pause

    set_pause(True)


@app.command()
def resume() -> None:
    """Go on after a pause."""
    from studio.cli.status import set_pause

    set_pause(False)


@models.command("list")
def models_list(as_json: Json = False) -> None:
    """All models of the catalogue."""
    from studio.cli.models import list_models

    list_models(as_json)


@models.command("show")
def models_show(model: str, as_json: Json = False) -> None:
    """One model: its card, files, licence and parameters."""
    from studio.cli.models import show_model

    show_model(model, as_json)


@models.command("pull", short_help="Download a model, or go on where it stopped.")
def models_pull(
    model: str, offline: Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Download a model; an interrupted download goes on where it stopped."""
    from studio.cli.models import pull_model

    pull_model(model, offline, as_json)


@models.command("rm")
def models_rm(model: str, as_json: Json = False) -> None:
    """Remove a model's files."""
    from studio.cli.models import remove_model

    remove_model(model, as_json)


@models.command("verify", short_help="Compare a model's files with their sha256.")
def models_verify(model: str) -> None:
    """Compare every file of a model with the sha256 kept at its download."""
    from studio.cli.models import verify_model

    raise typer.Exit(verify_model(model))


@jobs.command("list")
def jobs_list(
    as_json: Json = False, limit: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
) -> None:  # fmt: skip
    """The newest jobs first."""
    from studio.cli.jobs import list_jobs

    list_jobs(as_json, limit)


@jobs.command("show")
def jobs_show(job: str, as_json: Json = False) -> None:
    """One job: its request, state and what it made."""
    from studio.cli.jobs import show_job

    show_job(job, as_json)


@jobs.command("cancel")
def jobs_cancel(job: list[str], as_json: Json = False) -> None:
    """Cancel jobs that are waiting or running."""
    from studio.cli.jobs import cancel_jobs

    cancel_jobs(job, as_json)


@jobs.command("watch")
def jobs_watch(
    job: Annotated[str | None, typer.Argument(help="A job; default: work off the whole queue.")] = None,
    as_json: Json = False,
) -> None:
    """Follow a job, or work off the queue."""
    from studio.cli.jobs import watch_jobs

    raise typer.Exit(watch_jobs(job, as_json))


@jobs.command("first")
def jobs_first(job: str) -> None:
    """Let a waiting job be the next of its priority."""
    from studio.cli.jobs import first_job

    first_job(job)


@jobs.command("retry")
def jobs_retry(job: str) -> None:
    """Queue a job again that failed, was cancelled or was set aside."""
    from studio.cli.jobs import retry_job

    retry_job(job)


def main() -> None:
    """The console script."""
    try:
        app()
    except StudioError as error:
        complain(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(1)
    except Exception as error:
        logging.getLogger("studio").exception("a bug in the command line")
        complain(StudioError(f"{type(error).__name__}: {error}", "This is a bug; see logs/studio.log in the home."))
        sys.exit(1)


def complain(error: StudioError, *, as_json: bool = False) -> None:
    """One line on standard error; with ``--json`` also a ``failed`` object on standard output."""
    if as_json:
        from studio.events import Failed

        typer.echo(Failed(error=error.what, hint=error.hint).model_dump_json())
    typer.echo(f"studio: {error}", err=True)


if __name__ == "__main__":
    main()
