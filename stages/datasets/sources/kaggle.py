"""Kaggle, through kagglehub: credentials, cache and resumed downloads.

The version is pinned. A cached version needs no request. Another one is downloaded once
and read as a zip, without unpacking 42,000 small files.
"""

import dataclasses
import errno
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

WAITS_S = (1.0, 4.0, 16.0)  # before each further try
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
        PipelineError: If it cannot be downloaded or has another layout.
    """
    return pairs_in(fetch(params.kaggle), params)


def describe(params: IngestParams) -> layouts.Facts:
    """The facts of the layout's data set; of another one, its page on Kaggle."""
    about = layouts.load(params.layout).ABOUT
    facts = dataclasses.replace(
        about.facts(params.target), layout=params.layout, version=params.kaggle.version
    )
    page = _page(_handle(params.kaggle))
    if page == about.page:
        return facts
    return dataclasses.replace(
        facts,
        dataset=params.kaggle.dataset,
        page=page,
        licence="see the data set's page",
        citation="",
    )


def fetch(kaggle: KaggleParams) -> Path:
    """The local path of the pinned version, which is downloaded if it is missing.

    It is a zip, or the directory to which kagglehub itself unpacked it earlier.

    Raises:
        NetworkError: If the network or Kaggle failed and may work later.
        PipelineError: If credentials are missing or refused, the data set does not
            exist or the disk is full.
    """
    handle = _handle(kaggle)
    unpacked = Cache().load_from_cache(handle)
    archive = Path(get_cached_archive_path(handle))
    target = archive.with_name(f"{handle.version}.zip")
    if unpacked or target.is_file():
        logger.info("%s is cached; no request to Kaggle", handle)
        return Path(unpacked) if unpacked else target
    with _client() as client:
        try:
            _persistently(handle, lambda: _download(handle, client, archive))
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise PipelineError(
                f"no space left in {get_cache_folder()} for {handle}; free some, or "
                "set KAGGLEHUB_CACHE to a folder on a larger disk; the next run "
                "continues the download"
            ) from None
    archive.replace(target)
    return target


def newest_version(kaggle: KaggleParams) -> int:
    """The newest version that Kaggle has of the data set; errors as in `fetch`."""
    handle = _handle(kaggle)
    request = ApiGetDatasetRequest()
    request.owner_slug, request.dataset_slug = handle.owner, handle.dataset
    with _client() as client:
        facts = _persistently(handle, lambda: client.get_dataset(request))
    return int(facts.current_version_number)


def _handle(kaggle: KaggleParams) -> DatasetHandle:
    owner, dataset = kaggle.dataset.split("/")
    return DatasetHandle(owner=owner, dataset=dataset, version=kaggle.version)


def _page(handle: DatasetHandle) -> str:
    return f"https://www.kaggle.com/datasets/{handle.owner}/{handle.dataset}"


@contextmanager
def _client() -> Iterator[DatasetApiClient]:
    """Kaggle's client for data sets, with the user's credentials.

    It must not be verbose, because that prints every request with its token.
    """
    # Its debug lines hold whole URLs, and a signed one is a secret.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    try:
        found = get_kaggle_credentials()
    except (ValueError, OSError) as error:
        # The text of the error may quote the token.
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
    """Adds a timeout, which Kaggle's client lacks."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        return super().send(*args, **{**kwargs, "timeout": TIMEOUT_S})


def _download(handle: DatasetHandle, client: DatasetApiClient, archive: Path) -> None:
    """Downloads the zip; continues an interrupted download."""
    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = handle.owner, handle.dataset
    request.dataset_version_number = handle.version
    archive.parent.mkdir(parents=True, exist_ok=True)
    with client.download_dataset(request) as response:
        download_file(response, str(archive), handle)
    if not zipfile.is_zipfile(archive):
        archive.unlink()
        raise DataCorruptionError


def _persistently(handle: DatasetHandle, call: Callable[[], Answer]) -> Answer:
    """Calls a function, and tries again after errors that may be temporary."""
    for wait_s in (*WAITS_S, None):
        try:
            return call()
        except (requests.RequestException, DataCorruptionError) as error:
            status = _status(error)
            may_pass = status < 400 or status == 429 or status >= 500
            if wait_s is None or not may_pass:
                kind = NetworkError if may_pass else PipelineError
                raise kind(_sentence(error, handle)) from None
            logger.warning(
                "Kaggle: %s; trying again in %.0f s", _in_short(error), wait_s
            )
            sleep(wait_s)
    raise AssertionError  # the last try returns or raises


def _status(error: Exception) -> int:
    """The HTTP status of an error; 0 without a response."""
    response = getattr(error, "response", None)
    return 0 if response is None else int(response.status_code)


def _in_short(error: Exception) -> str:
    """The kind of the error, without the URL: a signed one is a secret."""
    if isinstance(error, DataCorruptionError):
        return "the download is damaged"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if _status(error):
        return f"answered {_status(error)}"
    return f"the connection failed ({type(error).__name__})"


def _sentence(error: Exception, handle: DatasetHandle) -> str:
    """The final error, and its remedy."""
    match _status(error):
        case 401:
            return (
                f"Kaggle does not accept these credentials (401); make a new token at "
                f"https://www.kaggle.com/settings, then {WHERE_CREDENTIALS_GO}"
            )
        case 403:
            return (
                f"Kaggle does not let this user download {handle} (403); open "
                f"{_page(handle)} and accept its terms there, then run the same "
                "command again"
            )
        case 404:
            return (
                f"Kaggle has no {handle} (404); correct ingest.kaggle.dataset or "
                f"ingest.kaggle.version, see {_page(handle)}"
            )
        case _:
            return (
                f"{handle} could not be downloaded: Kaggle: {_in_short(error)}, after "
                f"{len(WAITS_S) + 1} tries; check the network and "
                "https://status.kaggle.com, then run the same command again: it "
                "continues the download"
            )
