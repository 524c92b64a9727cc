"""Kaggle, through kagglehub: its credentials, its cache, its resumed downloads.

The version is pinned. What is cached already is read without asking anybody; what
is not is downloaded once and read as the zip it is, so that there are never two
copies, nor 42,000 small files, on the disk.
"""

import errno
import json
import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

import kagglehub
import requests
from kagglehub.cache import Cache, get_cached_archive_path
from kagglehub.clients import download_file
from kagglehub.config import get_cache_folder, get_kaggle_credentials
from kagglehub.exceptions import DataCorruptionError
from kagglehub.handle import DatasetHandle
from kagglesdk.datasets.services.dataset_api_service import DatasetApiClient
from kagglesdk.datasets.types.dataset_api_service import (
    ApiDownloadDatasetRequest,
    ApiGetDatasetRequest,
)
from kagglesdk.kaggle_http_client import KaggleHttpClient
from requests.adapters import HTTPAdapter

from stages.core.errors import NetworkError, PipelineError
from stages.core.params import IngestParams, KaggleParams
from stages.datasets import layouts
from stages.datasets.sources.folder import Pairs, pairs_in

logger = logging.getLogger(__name__)

WAITS_S = (1.0, 4.0, 16.0)  # before another try, where trying again can help
LONGEST_WAIT_S = 120.0  # however long Kaggle asks to wait
TIMEOUT_S = (10.0, 60.0)  # to connect, and between two bytes
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
WHERE_CREDENTIALS_GO = (
    "set KAGGLE_API_TOKEN to a token from https://www.kaggle.com/settings, or save the "
    "token as ~/.kaggle/access_token, or set KAGGLE_USERNAME and KAGGLE_KEY, or save "
    "kaggle.json in ~/.kaggle (or in KAGGLE_CONFIG_DIR)"
)
Answer = TypeVar("Answer")


def pairs(params: IngestParams) -> Pairs:
    """The pairs of the pinned version, in class order, then natural order.

    Raises:
        PipelineError: If it cannot be had, or is not in the layout of params.
    """
    return pairs_in(fetch(params.kaggle), params)


def describe(params: IngestParams) -> dict[str, Any]:
    """What the pairs are; the licence as Kaggle reported it at the download."""
    about = layouts.load(params.layout).ABOUT
    facts = about.facts(params.target)
    page = f"https://www.kaggle.com/datasets/{params.kaggle.dataset}"
    if page != about.page:
        licence = "not reported by Kaggle; see the data set's page"
        facts |= {
            "dataset": params.kaggle.dataset,
            "page": page,
            "licence": licence,
            "citation": "",
        }
    reported = _reported_path(_handle(params.kaggle))
    if reported.is_file():
        facts |= json.loads(reported.read_text("utf-8"))
    return {
        "layout": params.layout,
        "folder": None,
        "version": params.kaggle.version,
        **facts,
    }


def fetch(kaggle: KaggleParams) -> Path:
    """The pinned version on this disk, downloaded if it is not there.

    Returns:
        The zip; or a directory, where kagglehub itself has unpacked it earlier.

    Raises:
        NetworkError: If Kaggle or the network failed in a way that may pass.
        PipelineError: If credentials are missing or refused, or Kaggle or the disk
            will not give it.
    """
    handle = _handle(kaggle)
    unpacked = Cache().load_from_cache(handle)
    target = _zip_path(handle)
    if unpacked or target.is_file():
        logger.info("%s is cached; Kaggle is not asked", handle)
        return Path(unpacked) if unpacked else target
    with _client() as client:
        try:
            _persistently(handle, client, lambda: _download(handle, client))
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise PipelineError(
                f"no space left in {get_cache_folder()} for {handle}; free some, or "
                "set KAGGLEHUB_CACHE to a folder on a larger disk; the next run goes "
                "on from what was downloaded"
            ) from None
        _note_licence(handle, client)
    return target


def newest_version(kaggle: KaggleParams) -> int:
    """The newest version that Kaggle has of the data set; errors as in `fetch`."""
    handle = _handle(kaggle)
    with _client() as client:
        facts = _persistently(handle, client, lambda: _ask(handle, client))
    return int(facts.current_version_number)


def _handle(kaggle: KaggleParams) -> DatasetHandle:
    owner, dataset = kaggle.dataset.split("/")
    return DatasetHandle(owner=owner, dataset=dataset, version=kaggle.version)


def _zip_path(handle: DatasetHandle) -> Path:
    """Beside kagglehub's own `VERSION.archive`, which is a download under way."""
    return Path(get_cached_archive_path(handle)).with_name(f"{handle.version}.zip")


def _reported_path(handle: DatasetHandle) -> Path:
    return _zip_path(handle).with_name(f"{handle.version}.reported.json")


@contextmanager
def _client() -> Iterator[DatasetApiClient]:
    """Kaggle's interface to data sets, with the user's credentials.

    Never verbose: verbose prints every request, token included.
    """
    # Its debugging lines hold whole addresses, and a signed one is a secret.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    try:
        found = get_kaggle_credentials()
    except (ValueError, OSError) as error:
        # Neither's text is shown: it may quote the token.
        kind = "cannot be read" if isinstance(error, OSError) else "are not valid"
        raise PipelineError(
            f"Kaggle's credentials {kind}; {WHERE_CREDENTIALS_GO}"
        ) from None
    if found is None:
        raise PipelineError(
            f"ingest.source kaggle needs credentials: {WHERE_CREDENTIALS_GO}; or "
            "download the zip by hand and set ingest.source to folder"
        )
    with KaggleHttpClient(
        username=found.username,
        password=found.key,
        api_token=found.api_key,
        user_agent=f"kagglehub/{kagglehub.__version__}",
    ) as http:
        for scheme in ("https://", "http://"):
            http._session.mount(scheme, _Impatient())
        yield DatasetApiClient(http)


class _Impatient(HTTPAdapter):
    """Gives up on a silent server; Kaggle's client waits for ever."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        return super().send(*args, **{**kwargs, "timeout": TIMEOUT_S})


def _download(handle: DatasetHandle, client: DatasetApiClient) -> None:
    """Downloads the zip, going on from an earlier, broken download."""
    request = ApiDownloadDatasetRequest()
    request.owner_slug = handle.owner
    request.dataset_slug = handle.dataset
    request.dataset_version_number = handle.version
    archive = Path(get_cached_archive_path(handle))
    archive.parent.mkdir(parents=True, exist_ok=True)
    with client.download_dataset(request) as response:
        download_file(response, str(archive), handle)
    if not zipfile.is_zipfile(archive):
        archive.unlink()
        raise DataCorruptionError
    archive.replace(_zip_path(handle))


def _ask(handle: DatasetHandle, client: DatasetApiClient) -> Any:
    """What Kaggle knows of the data set: licence, newest version."""
    request = ApiGetDatasetRequest()
    request.owner_slug = handle.owner
    request.dataset_slug = handle.dataset
    return client.get_dataset(request)


def _note_licence(handle: DatasetHandle, client: DatasetApiClient) -> None:
    """Keeps the licence beside the zip, for runs that ask Kaggle nothing."""
    try:
        licence = _ask(handle, client).license_name
    except (requests.RequestException, ValueError, TypeError):
        licence = ""
    if not licence:
        logger.warning("Kaggle did not report a licence of %s", handle)
        return
    path = _reported_path(handle)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"licence": licence}), "utf-8")
    partial.replace(path)


def _persistently(
    handle: DatasetHandle, client: DatasetApiClient, call: Callable[[], Answer]
) -> Answer:
    """Calls, and calls again after a while if that can help."""
    for wait_s in (*WAITS_S, None):
        try:
            return call()
        except (requests.RequestException, DataCorruptionError) as error:
            if wait_s is None or not _may_pass(error):
                kind = NetworkError if _may_pass(error) else PipelineError
                raise kind(_sentence(error, handle, client)) from None
            wait_s = min(max(wait_s, _asked_wait_s(error)), LONGEST_WAIT_S)
            logger.warning(
                "Kaggle: %s; trying again in %.0f s", _in_short(error), wait_s
            )
            sleep(wait_s)
    raise AssertionError  # the last try returns or raises


def _status(error: Exception) -> int:
    """The HTTP status behind an error; 0 where there was no answer."""
    response = getattr(error, "response", None)
    return 0 if response is None else int(response.status_code)


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    return status < 400 or status == 429 or status >= 500


def _asked_wait_s(error: Exception) -> float:
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def _in_short(error: Exception) -> str:
    """What happened, without the URL: a signed one is a secret."""
    if isinstance(error, DataCorruptionError):
        return "what came is not what was sent"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if _status(error):
        return f"answered {_status(error)}"
    return f"the connection failed ({type(error).__name__})"


def _sentence(error: Exception, handle: DatasetHandle, client: DatasetApiClient) -> str:
    """What went wrong for good, and what to do."""
    page = f"https://www.kaggle.com/datasets/{handle.owner}/{handle.dataset}"
    match _status(error):
        case 401:
            return (
                f"Kaggle does not accept these credentials (401); make a new token at "
                f"https://www.kaggle.com/settings, then {WHERE_CREDENTIALS_GO}"
            )
        case 403:
            return (
                f"Kaggle does not let this user have {handle} (403); open {page}, "
                "accept its terms there (or correct ingest.kaggle.dataset, if there "
                "is no such page) and run the same command again"
            )
        case 404:
            return f"Kaggle has no {handle} (404); {_advice(handle, client, page)}"
        case 429:
            return (
                f"Kaggle still answers that it is asked too often (429) for {handle}; "
                "run the same command again in an hour"
            )
        case _:
            return (
                f"{handle} could not be downloaded: Kaggle: {_in_short(error)}, after "
                f"{len(WAITS_S) + 1} tries; see to the network (or to "
                "https://status.kaggle.com) and run the same command again: it goes "
                "on from what was downloaded"
            )


def _advice(handle: DatasetHandle, client: DatasetApiClient, page: str) -> str:
    """Whether it is the data set or its version that Kaggle lacks."""
    try:
        newest = _ask(handle, client).current_version_number
    except (requests.RequestException, ValueError, TypeError):
        return f"correct ingest.kaggle.dataset; its page would be {page}"
    return f"correct ingest.kaggle.version; the newest is {newest}"
