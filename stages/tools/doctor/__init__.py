"""Is this machine and this checkout fit to run the pipeline, and what to do if not.

`python -m stages.tools.doctor` asks no network and changes nothing. --online asks
Kaggle whether there is a newer version of the data, --gpu starts TensorFlow to see what
it sees, --cache reads every file of the DVC cache. Exit 1 if something is broken.
"""

from collections.abc import Iterator

from stages.core.errors import PipelineError
from stages.core.params import Params, load_params
from stages.tools.doctor import checkout, data, machine
from stages.tools.doctor.finding import BROKEN, OK, Finding


def examine(
    *, online: bool = False, gpu: bool = False, cache: bool = False
) -> Iterator[Finding]:
    """Runs the checks one after the other; none changes anything.

    Args:
        online: Ask Kaggle for its newest version.
        gpu: Start TensorFlow to list its devices.
        cache: Read and hash the whole DVC cache.
    """
    yield machine.python()
    yield machine.bytecode()
    yield machine.packages()
    yield machine.devices_by_tensorflow() if gpu else machine.devices()
    params: Params | None = None
    try:
        params = load_params()
        yield Finding(OK, "params", "every key is known and within its bounds")
    except PipelineError as error:
        yield Finding(BROKEN, "params", str(error), "correct params.yaml")
    if params is not None:
        yield machine.memory(params.train)
        yield machine.disk(data.bytes_needed(params.ingest))
        yield data.credentials(params.ingest)
        if online:
            yield data.newest(params.ingest)
    yield checkout.git()
    yield checkout.record()
    yield checkout.remote()
    yield from checkout.locks()
    yield checkout.leftovers()
    if cache:
        yield checkout.cache()
