"""Several data sets in one: each folder or zip in `ingest.folder` is a site.

Its name is the site's. Its layout is found by its files, or named in a `sites.yaml`
beside the sites, in which everything is optional:

    montgomery:
      layout: covid19_radiography
      target: lung
      classes: [montgomery]
      licence: public domain
"""

import dataclasses
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import plugins
from stages.core.errors import PipelineError
from stages.core.files import is_hidden
from stages.core.params import SITES, IngestParams, LayoutName, Section, first_problem
from stages.datasets import layouts
from stages.datasets.pairs import Pair, natural_key

logger = logging.getLogger(__name__)

TABLE = "sites.yaml"
RESERVED = {"all", "images", "masks"}  # a row of tables; the halves of one data set
NAME = re.compile(r"\w[\w .-]{0,63}")
POOLED = (
    *("dataset", "page", "licence", "citation"),
    *("target", "mask_definition_id", "mask_definition"),
)
MIN_PAIRS = 2  # of a site: one pair has no interval and cannot be split


class Entry(Section):
    """The entry of a site in `sites.yaml`."""

    layout: LayoutName | None = None
    target: str | None = None
    classes: list[str] | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Site:
    """A data set of its own: its pairs and its facts."""

    name: str
    source: Iterable[Pair]
    facts: layouts.Facts

    def pairs(self) -> Iterator[Pair]:
        """The pairs, with the site's name in ids and groups: sites may share those.

        Raises:
            PipelineError: If there are fewer than 2.
        """
        count = 0
        for pair in self.source:
            count += 1
            yield dataclasses.replace(
                pair,
                site=self.name,
                pair_id=layouts.id_in(self.name, pair.pair_id),
                group=f"{self.name}/{pair.group}" if pair.group else "",
            )
        if count < MIN_PAIRS:
            raise PipelineError(
                f"the site {self.name!r} should have at least {MIN_PAIRS} pairs but "
                f"has {count}; add films to it, or remove it"
            )


def find(params: IngestParams) -> list[Site]:
    """The sites of all sources, in natural order of their names.

    Raises:
        PipelineError: If there is none, one cannot be read or has a bad name,
            `sites.yaml` does not fit, or masks are defined in several ways.
    """
    places = _places(params)
    folder = Path(params.folder)
    entries = _entries(folder / TABLE, list(places)) if folder.is_dir() else {}
    sites = [
        _site(name, *place, entries.get(name, Entry()), params)
        for name, place in sorted(places.items(), key=lambda item: natural_key(item[0]))
    ]
    meanings = {site.facts.mask_definition_id: site.name for site in sites}
    if len(meanings) > 1 and not params.allow_mixed_masks:
        found = ", ".join(f"{name!r} has {id_}" for id_, name in meanings.items())
        raise PipelineError(
            f"all sites should define their masks alike, but {found}; remove a site, "
            f"name its target or layout in {TABLE}, or set ingest.allow_mixed_masks"
        )
    return sites


def names(params: IngestParams) -> list[str]:
    """The names of the sites in natural order; errors as in `find`."""
    return sorted(_places(params), key=natural_key)


def facts(sites: Sequence[Site], params: IngestParams) -> layouts.Facts:
    """The pooled facts of all sites."""

    def pooled(name: str) -> str:
        values = (getattr(site.facts, name) for site in sites)
        return "; ".join(dict.fromkeys(filter(None, values)))

    return layouts.Facts(
        **{name: pooled(name) for name in POOLED},
        layout=SITES,
        folder=Path(params.folder).name,
    )


def _places(params: IngestParams) -> dict[str, tuple[str, Path | None]]:
    """Source and place of each site, by its name."""
    places: dict[str, tuple[str, Path | None]] = {}
    found: list[tuple[str, Path | None]]
    for source in params.source:
        if source == "folder":
            found = [(_name(path), path) for path in _children(Path(params.folder))]
        elif source == "kaggle":
            kaggle = plugins.load("stages.datasets.sources", source)
            name = params.kaggle.dataset.partition("/")[2]
            found = [(name, kaggle.fetch(params.kaggle))]
        else:
            found = [(source, None)]
        for name, path in found:
            if name in places:
                raise PipelineError(
                    f"two sites have the name {name!r}; rename a folder or a zip"
                )
            places[name] = source, path
    return places


def _children(folder: Path) -> list[Path]:
    """The visible folders and zips in a folder."""
    if not folder.is_dir():
        raise PipelineError(
            f"ingest.folder should be a folder of data sets, since ingest.layout is "
            f"{SITES}, but {str(folder)!r} is not a folder; correct it"
        )
    found = []
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            continue
        if path.is_dir() or path.suffix.lower() == ".zip":
            found.append(path)
        elif path.name != TABLE and path.suffix != ".md":
            logger.warning("%s is ignored: it is neither a folder nor a zip", path)
    if not found:
        raise PipelineError(
            f"ingest.folder {str(folder)!r} should hold a folder or a zip per site, "
            "but holds none; put the data sets there, or name another folder"
        )
    return found


def _name(path: Path) -> str:
    """The name of a site: of its folder, or of its zip without the suffix."""
    name = path.name if path.is_dir() else path.stem
    if not NAME.fullmatch(name) or name.lower() in RESERVED:
        raise PipelineError(
            f"{str(path)!r} cannot give a site its name: letters, digits, spaces, "
            "dots and hyphens are allowed, 64 at most, and none of "
            f"{', '.join(sorted(RESERVED))}; rename it, or set ingest.layout to "
            "another than sites if this is a single data set"
        )
    return name


def _entries(path: Path, known: Sequence[str]) -> dict[str, Entry]:
    """The contents of `sites.yaml`, by site."""
    if not path.is_file():
        return {}
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise PipelineError(f"{path} must be YAML: {reason}") from None
    there = f"it may name {', '.join(map(repr, known))}"
    if not values or not isinstance(values, dict):
        raise PipelineError(f"{path} names no site; {there}, or remove it")
    for name in values:
        if name not in known:
            raise PipelineError(f"{path} names {name!r}, which is not a site; {there}")
    try:
        return TypeAdapter(dict[str, Entry]).validate_python(values)
    except ValidationError as error:
        raise PipelineError(f"{path}: {first_problem(error)}") from None


def _site(
    name: str, source: str, path: Path | None, entry: Entry, params: IngestParams
) -> Site:
    own = entry.model_dump(exclude={"licence"}, exclude_none=True)
    if path is not None:
        own["folder"] = str(path)
        own["layout"] = entry.layout or layouts.detect(path, params)
    params = params.model_copy(update=own)
    module = plugins.load("stages.datasets.sources", source)
    pairs = module.pairs(params)
    facts: layouts.Facts = module.describe(params)
    if source == "folder" and (
        pairs.class_names - layouts.load(params.layout).ABOUT.classes
    ):  # not the data set that the layout is known for
        facts = dataclasses.replace(
            facts,
            dataset=f"other data in the layout {params.layout}",
            page="",
            licence=f"not stated, to be named in {TABLE}",
            citation="",
        )
    if entry.licence is not None:
        facts = dataclasses.replace(facts, licence=entry.licence)
    logger.info(
        "site %s: layout %s, masks %s",
        name,
        facts.layout,
        facts.mask_definition_id,
    )
    return Site(name, pairs, facts)
