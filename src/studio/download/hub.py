"""Model files from a repository on the hub, at one commit, each checked before it is seen.

The order: which commit, which files, what is here already (in any cache of the hub's layout), is there room,
fetch the rest one after the other. After each file the lock is written, so a pull that is interrupted loses
neither its commit nor its knowledge of what it downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from studio.download import hub_api
from studio.download.choose import Wanted, check_asked, choose, is_glob
from studio.download.common import Meter, alone, check_space
from studio.download.content import fault_in, git_blob_id_of, mismatch
from studio.download.fetch import fetch
from studio.download.hub_api import Listing, Remote
from studio.download.hub_cache import RepoCache, known_caches
from studio.download.lock import Lock, LockedFile, new_lock
from studio.errors import BadWeights, StudioError
from studio.files import move_whole, sha256_of
from studio.spec import ModelSpec, Source


@dataclass(frozen=True)
class Home:
    """What a pull may use: the folder of all models, the network or not, and how to keep its lock."""

    root: Path
    offline: bool
    save: Callable[[Lock], None]

    @property
    def own_cache(self) -> Path:
        return self.root / "hub"


@dataclass(frozen=True)
class _Pull:
    """One repository at one commit. ``other``: it is not the source's own."""

    home: Home
    repo: str
    commit: str
    caches: list[RepoCache]
    meter: Meter
    other: bool = False

    @property
    def target(self) -> RepoCache:
        """Where new files go."""
        return self.caches[0]


@dataclass(frozen=True)
class _Item:
    """One file with all that is known of it from the catalogue, the hub and an earlier pull."""

    pull: _Pull
    wanted: Wanted
    bytes: int | None
    sha256: str | None
    blob_id: str | None
    etag: str
    was_owned: bool


def fetch_repo(
    home: Home,
    spec: ModelSpec,
    source: Source,
    meter: Meter,
    known: Lock | None,
    accept_revision: Callable[[str], bool] | None,
) -> tuple[Lock, list[LockedFile]]:
    """Get the files, of one repository or several; returns the lock to complete, and the files in it."""
    check_asked(source)
    items: list[_Item] = []
    commits: dict[str, str] = {}
    for part in source.by_repo():
        repo = part.repo or ""
        caches = [RepoCache(cache, repo) for cache in known_caches(home.own_cache)]
        earlier = None if known is None else known.revision if repo == source.repo else known.revisions.get(repo)
        listing = _listing(home, spec, part, earlier, caches)
        if earlier is None:
            _ask(spec, part, listing.commit, accept_revision)
        commits[repo] = listing.commit
        pull = _Pull(home, repo, listing.commit, caches, meter, other=repo != source.repo)
        where = f"{repo} at {listing.commit}"
        items += [_item(pull, wanted, listing, known) for wanted in choose(part, listing.files, where)]
    others = {repo: commit for repo, commit in commits.items() if repo != source.repo}
    lock = new_lock(spec, source, commits.get(source.repo or ""), others)
    home.save(lock.model_copy(update={"files": known.files if known else []}))
    meter.total = sum(item.bytes or 0 for item in items)
    return lock, _get_all(home, spec, lock, items)


def _listing(home: Home, spec: ModelSpec, source: Source, earlier: str | None, caches: list[RepoCache]) -> Listing:
    commit = source.revision or earlier
    if not home.offline:
        return hub_api.list_repo(source.repo or "", commit)
    globs = any(is_glob(file.path) for file in source.files.values())
    for cache in caches:
        listing = cache.listing(commit)
        if listing is not None and (not globs or cache.knows_all_files(listing.commit)):
            return listing
    raise StudioError(
        f"Model {spec.id!r} ({source.repo}) is not complete on this machine, and Studio is offline.",
        f"Go online (unset HF_HUB_OFFLINE) and run: studio models pull {spec.id}",
    )


def _ask(spec: ModelSpec, source: Source, commit: str, accept: Callable[[str], bool] | None) -> None:
    if source.revision is None and accept is not None and not accept(commit):
        raise StudioError(
            f"Commit {commit} of {source.repo} was not accepted; nothing was downloaded for {spec.id!r}.",
            "Set the revision that you want in the catalogue entry.",
        )


def _item(pull: _Pull, wanted: Wanted, listing: Listing, known: Lock | None) -> _Item:
    """Join what is known of a file. Raises ``BadWeights`` where catalogue and hub contradict each other."""
    remote: Remote = listing.files[wanted.path]
    place = (pull.repo if pull.other else None, wanted.path)
    earlier = next((file for file in known.files if (file.repo, file.path) == place), None) if known else None
    for what, ours, theirs in (
        ("sha256", wanted.sha256, remote.sha256),
        ("size in bytes", wanted.bytes, remote.bytes),
        ("sha256", earlier.sha256 if earlier else None, remote.sha256),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            raise BadWeights(
                f"{wanted.path}: the hub lists {what} {theirs}, expected {ours}.",
                "The file on the hub is not the one that was checked. Do not use it; report this to the project.",
            )
    sha256 = wanted.sha256 or remote.sha256 or (earlier.sha256 if earlier else None)
    etag = remote.etag or sha256
    if etag is None:
        raise BadWeights(
            f"{wanted.path}: no hash is known, so it cannot be checked.", "Add its sha256 to the catalogue entry."
        )
    size = wanted.bytes if wanted.bytes is not None else remote.bytes
    return _Item(pull, wanted, size, sha256, remote.blob_id, etag, earlier.owned if earlier else False)


def _get_all(home: Home, spec: ModelSpec, lock: Lock, items: list[_Item]) -> list[LockedFile]:
    """Use what is here, then fetch the rest, if there is room for all of it."""
    done: dict[int, LockedFile] = {}
    for index, item in enumerate(items):
        if (found := _find(item)) is not None:
            done[index] = found
    missing = {index: item for index, item in enumerate(items) if index not in done}
    if missing and home.offline:
        first = next(iter(missing.values())).wanted.path
        raise StudioError(
            f"Model {spec.id!r}: {len(missing)} files are missing ({first} first), and Studio is offline.",
            f"Go online and run: studio models pull {spec.id}",
        )
    need = {item.etag: max(0, (item.bytes or 0) - _partial_bytes(item)) for item in missing.values()}
    check_space(items[0].pull.target.folder, sum(need.values()), spec.id)
    for index, item in missing.items():
        done[index] = _fetch(item)
        so_far = [done[position] for position in sorted(done)]
        home.save(lock.model_copy(update={"files": so_far}))
    return [done[index] for index in range(len(items))]


def _partial_bytes(item: _Item) -> int:
    partial = item.pull.target.partial(item.etag)
    return partial.stat().st_size if partial.is_file() else 0


def _find(item: _Item) -> LockedFile | None:
    """The file if a cache has it and it is right. A bad one is passed over; where new files go, it is replaced."""
    pull = item.pull
    for cache in pull.caches:
        for place in cache.candidates(pull.commit, item.wanted.path, item.etag):
            pull.meter.start(item.wanted.path)
            fault, digest = _check(item, place, pull.meter)
            if fault is not None:
                continue
            _refuse_disguise(item, place)
            content = place.resolve()
            owned = item.was_owned or content.is_relative_to(pull.home.root.resolve())
            return _show(item, content, digest, owned=owned)
    return None


def _fetch(item: _Item) -> LockedFile:
    """Download one file. Content that is wrong is removed and fetched once more, then refused."""
    pull = item.pull
    partial, blob = pull.target.partial(item.etag), pull.target.blob(item.etag)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with alone(pull.target.guard(item.etag), pull.meter.tick):
        # Another model or program may have brought it meanwhile, or this one under another path.
        if (found := _find(item)) is not None:
            return found
        fault: str | None = None
        for _ in range(2):
            partial.touch()
            pull.meter.start(item.wanted.path, _partial_bytes(item))
            fetch(pull.repo, pull.commit, item.wanted.path, partial, item.bytes, pull.meter)
            fault, digest = _check(item, partial, pull.meter)
            if fault is None:
                _refuse_disguise(item, partial)
                move_whole(partial, blob)
                return _show(item, blob.resolve(), digest, owned=True)
            partial.unlink(missing_ok=True)
    raise BadWeights(
        f"{item.wanted.path} of {pull.repo} is refused: {fault}. It was fetched twice.",
        "If it stays so, the source or the line is bad: try another network or another model.",
    )


def _show(item: _Item, content: Path, digest: str, *, owned: bool) -> LockedFile:
    pull, size = item.pull, content.stat().st_size
    movable = owned and content.is_relative_to(pull.target.cache.resolve())
    local = pull.target.show(content, pull.commit, item.wanted.path, movable=movable)
    pull.meter.finish(size)
    return LockedFile(
        role=item.wanted.role,
        path=item.wanted.path,
        local=str(local),
        bytes=size,
        sha256=digest,
        owned=owned,
        repo=pull.repo if pull.other else None,
    )


def _check(item: _Item, place: Path, meter: Meter) -> tuple[str | None, str]:
    """How the file differs from what was listed (``None``: not at all), and its sha256."""
    digest = sha256_of(place, meter.tick)
    fault = mismatch("it", place, size=None, expected=item.bytes)
    if fault is None and item.sha256 is not None and digest != item.sha256:
        fault = f"its sha256 is {digest}, expected {item.sha256}"
    if fault is None and item.sha256 is None and git_blob_id_of(place) != item.blob_id:
        fault = f"its git hash is not the {item.blob_id} that the hub lists"
    return fault, digest


def _refuse_disguise(item: _Item, place: Path) -> None:
    """Raises ``BadWeights`` when a file is exactly what its source lists and yet not what its name says."""
    pull = item.pull
    if (fault := fault_in(place, item.wanted.path)) is None:
        return
    if place == pull.target.partial(item.etag):
        place.unlink()
    raise BadWeights(
        f"{item.wanted.path} of {pull.repo} is refused: {fault}.", "Choose a safetensors or GGUF version of this model."
    )


def remove(lock: Lock, own_cache: Path, others: list[Lock]) -> int:
    """Delete the files of ``lock`` that Studio downloaded and no other model uses. Returns the bytes freed."""
    own = lock.source.removeprefix("repo:")
    in_use = {file.local for other in others for file in other.files}
    freed = 0
    for file in lock.files:
        pointer = Path(file.local)
        # .../CACHE/models--org--name/snapshots/COMMIT/path
        cache = RepoCache(pointer.parents[file.path.count("/") + 3], file.repo or own)
        if file.local not in in_use:
            freed += cache.forget(pointer, owned=file.owned)
    used = {repo for other in others for repo in (other.source.removeprefix("repo:"), *other.revisions)}
    for repo in {own, *lock.revisions} - used:
        for partial in (RepoCache(own_cache, repo).folder / "blobs").glob("*.incomplete"):
            freed += partial.stat().st_size
            partial.unlink()
    return freed
