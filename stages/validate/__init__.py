"""Facts about every pair, judged by Great Expectations.

Reads:  data/ingested
Writes: data/quality/pairs.parquet, data/quality/report.json, data/quality/docs
Why:    a broken pair is rejected here, with a reason that a person can read, so that
        later stages can rely on their input.
"""

import logging
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.core.params import ValidateParams
from stages.validate import facts, pages, workers
from stages.validate.outcome import Outcome, judge_facts
from stages.validate.outcome import report as report_values

logger = logging.getLogger(__name__)

QUALITY_SCHEMA = pa.schema(
    [
        *facts.SCHEMA,
        pa.field("accepted", pa.bool_()),
        pa.field("reason", pa.string()),  # why it was rejected, "; " between reasons
        pa.field("note", pa.string()),  # unusual, but accepted
    ]
)


def validate(
    params: ValidateParams,
    *,
    ingested: Path = paths.INGESTED,
    pairs: Path = paths.QUALITY_PAIRS,
    report: Path = paths.QUALITY_REPORT,
    docs: Path = paths.QUALITY_DOCS,
) -> Path:
    """Measures every pair and has Great Expectations judge which are usable.

    Images of 16 bits, with transparency, with a palette or under another format's
    name are accepted with a note if they decode: training reads them as 8-bit grey.

    Returns:
        `pairs`, the table of facts with `accepted`, `reason` and `note`.

    Raises:
        PipelineError: If too many pairs are rejected or too few accepted; report and
            page are written, the table is not.
    """
    files.remove(pairs)
    table = workers.measure(ingested, max_image_pixels=params.max_image_pixels)
    outcome = judge_facts(table, params)
    values = report_values(outcome)
    files.write_json(report, values)
    with files.replacing(docs) as partial:
        pages.write(partial, outcome, values, params=params, ingested=ingested)
    page = docs / "index.html"
    if outcome.failed:
        raise PipelineError(_sentence(outcome, page))
    with files.replacing(pairs) as partial:
        pq.write_table(
            pa.Table.from_pandas(
                outcome.table, schema=QUALITY_SCHEMA, preserve_index=False
            ),
            partial,
        )
    logger.info(
        "%d of %d pairs accepted, %d rejected; look at %s",
        values["num_accepted"],
        values["num_pairs"],
        values["num_rejected"],
        page,
    )
    return pairs


def _sentence(outcome: Outcome, page: Path) -> str:
    """The missed bounds, the most frequent reasons, and the page to look at."""
    short = " and ".join(
        f"{check.found(outcome.totals)}, expected {check.expected}"
        for check in outcome.failed
    )
    counts = Counter(
        {
            check.name: len(verdict.rows)
            for check, verdict in outcome.pairs
            if check.severity == "critical" and verdict.rows
        }
    )
    reasons = ", ".join(f"{name} {count}" for name, count in counts.most_common(3))
    why = f" (rejected by {reasons})" if reasons else ""
    rejected = outcome.table[~outcome.table["accepted"]]
    for pair in rejected.head(1).itertuples():
        why += f", such as {pair.pair_id}: {pair.reason}"
    names = [check.name for check in outcome.failed]
    if counts["shapes"]:
        names.insert(0, "image_mask_shapes")
    known = [f"validate.{n}" for n in names if n in ValidateParams.model_fields]
    change = f" or change {' or '.join(known)}" if known else ""
    return f"{short}{why}; look at {page}, then mend the data{change}"
