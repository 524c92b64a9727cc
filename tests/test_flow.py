"""The flows for real: a Prefect server, processes, and runs that are killed."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zc.lockfile
from ruamel.yaml import YAML

from stages.core import dvc_files, paths
from tests.conftest import ROOT, TINY, radiography_tree, with_overrides
from tests.kaggle_standin import KaggleStandIn
from tests.plan import Plan
from tests.served import Served, processes_in, wait_for

STAGES = ["ingest", "validate", "split", "train", "evaluate", "gate", "export"]
DATASET = "tawsifurrahman/covid19-radiography-database"


def assert_unlocked(root: Path) -> None:
    """Nobody holds DVC's lock, and nobody is written down as reading or writing."""
    zc.lockfile.LockFile(str(root / ".dvc/tmp/lock")).close()
    held = YAML(typ="safe").load((root / ".dvc/tmp/rwlock").read_text("utf-8"))
    assert not any(held.values()), held


# What needs no server.


def test_prefect_yaml_has_no_key_that_prefect_would_drop():
    from prefect.cli.deploy import _models as models
    from prefect.utilities.importtools import import_object

    from stages.flow import pipeline, refresh

    plan = YAML(typ="safe").load((ROOT / "prefect.yaml").read_text("utf-8"))

    def check(values: dict[str, Any], model: Any) -> None:
        known = {f.alias or name for name, f in model.model_fields.items()}
        assert set(values) <= known, model.__name__
        model.model_validate(values)

    check(plan, models.PrefectYamlModel)
    for step in plan["pull"]:
        for name, words in step.items():
            import_object(name)(**words | {"directory": str(ROOT)})
    flows = {"stages.flow.pipeline": pipeline, "stages.flow.refresh": refresh}
    for deployment in plan["deployments"]:
        check(deployment, models.DeploymentConfig)
        check(deployment["work_pool"], models.WorkPoolConfig)
        check(deployment["concurrency_limit"], models.ConcurrencyLimitSpec)
        for schedule in deployment["schedules"]:
            check(schedule, models.RawScheduleConfig)
        flows[deployment["entrypoint"]].validate_parameters(deployment["parameters"])


def test_an_unknown_study_fails_the_run_in_one_sentence():
    from stages.flow import flows

    assert flows._values(None, None) == {}
    for flow in (flows.pipeline, flows.refresh):
        state = flow.fn(study="nope")
        assert state.is_failed()
        assert state.message.startswith(
            "there is no study 'nope'; choose one of article"
        )


def test_metrics_artifact_has_the_headline_then_what_changed():
    from stages.flow.report import compare

    rows = compare(
        {"assd_px.mean": 3.0, "dice.mean": 0.96, "num_images": 3, "iou.mean": 0.9},
        {"assd_px.mean": 2.0, "dice.mean": 0.96, "num_images": 2, "iou.mean": 0.9},
    )
    assert [tuple(row.values()) for row in rows] == [
        ("dice.mean", "0.9600", "0.9600", "0.0000", ""),
        ("assd_px.mean", "3.00", "2.00", "+1.00", "worse"),
        ("num_images", "3", "2", "+1", ""),
    ]


def test_the_end_of_a_stage_is_one_sentence():
    from stages.flow.running import _failure

    dvc = "ERROR: failed to reproduce 's': failed to run: x, exited with {}\n"
    for printed, code, name, message in (
        (f"error: s: no\n a  b\n{dvc}", 1, "Failed", "s: no\n a  b"),
        (f"epoch 4 of 9\nafter epoch 3 of 9\n{dvc}", 130, "Interrupted",
         "s: interrupted; the next run goes on from epoch 3"),
        (f"KeyboardInterrupt\n{dvc}", -2, "Interrupted",
         "s: interrupted; the next run repeats it"),
        (f"error: offline\n{dvc}", 75, "Network failed", "s: offline"),
        ("ERROR: lock\n{}", 255, "Failed", "s: lock"),
        ("{}", 9, "Failed", "s: ended with 9"),
    ):  # fmt: skip
        state = _failure("s", printed.format(code), code)
        assert (state.name, state.message) == (name, message)


def test_a_command_is_heard_line_by_line_and_ends_with_its_block(tmp_path):
    from stages.core import processes

    heard, codes = [], []
    script = "import time; print('a\\rb', flush=True); time.sleep(600)"

    def run() -> None:
        words = [sys.executable, "-c", script]
        codes.append(processes.run(words, cwd=tmp_path, on_line=heard.append))

    thread = threading.Thread(target=run)
    with processes.end_with_block():
        thread.start()
        wait_for(lambda: heard[:2] == ["a", "b"], "lines of a progress bar")
    thread.join()
    assert codes == [128 + signal.SIGINT]
    assert not processes_in(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("PREFECT_SERVER_API_PORT", "abc", "settings are wrong .*port.* valid integer"),
        ("PREFECT_API_URL", "http://127.0.0.1:9/api", "variable PREFECT_API_URL"),
        ("profile", "http://127.0.0.1:9/api", "Prefect's profile x. does not answer"),
        ("profile", "\n", "settings are wrong .*Illegal character"),
    ],
)
def test_a_server_port_or_profile_that_is_wrong_is_one_sentence(
    name, text, words, tmp_path
):
    (tmp_path / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    env = os.environ | {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    if name == "profile":
        profile = f'active = "x"\n[profiles.x]\nPREFECT_API_URL = "{text}"\n'
        (tmp_path / "profiles.toml").write_text(profile)
    else:
        env[name] = text
    done = subprocess.run(
        [sys.executable, "-m", "stages.cli", "schedule"],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (1, 75)
    assert "Traceback" not in done.stderr
    assert re.search(words, done.stderr.splitlines()[-1])


# What needs one; it is started once, as `make schedule` starts it.


@pytest.fixture(scope="session")
def served(
    finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A finished plan whose flows are served."""
    folder = tmp_path_factory.mktemp("served")
    served = Served(Plan.at(finished).copy(folder / "plan"))
    try:
        served.start()
        yield served
    finally:
        served.stop()


@pytest.fixture
def api(served: Served) -> Iterator[Any]:
    """Prefect's client, and flows that are called here, on that server."""
    from prefect.logging.handlers import APILogHandler

    with served.api() as client:
        yield client
        APILogHandler().flush()


def task_states(api: Any, flow_run_id: Any) -> dict[str, str]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))

    def read() -> dict[str, str]:
        runs = api.read_task_runs(flow_run_filter=chosen)
        return {run.name: run.state.name if run.state else "Pending" for run in runs}

    # Task states reach the server as events, a moment after the run has ended.
    unfinished = {"Pending", "Running", "Scheduled"}
    wait_for(
        lambda: read() and not unfinished & set(read().values()),
        what="task states",
        seconds=20,
    )
    return read()


def log_of(api: Any, flow_run_id: Any) -> dict[Any, list[Any]]:
    """The lines of a run's log that the server holds, by the id of their task's run."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    lines: dict[Any, list[Any]] = {}
    for entry in api.read_logs(
        log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])),
        limit=200,
        sort=LogSort.TIMESTAMP_ASC,
    ):
        lines.setdefault(entry.task_run_id, []).append(entry)
    return lines


def artifacts(api: Any, flow_run_id: Any) -> dict[str, Any]:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    return {a.key: a.data for a in api.read_artifacts(artifact_filter=chosen)}


def run_flow(flow: Any, **parameters: Any) -> Any:
    """Runs a flow in this process, in this folder; its final state."""
    return flow(**parameters, return_state=True)


@pytest.mark.slow
def test_pipeline_is_scheduled_cancelled_in_train_goes_on_and_is_judged(
    served, api, monkeypatch
):
    from prefect import flow
    from prefect.states import Cancelling

    from stages.core import files, paths
    from stages.flow import flows, pipeline

    plan = served.plan
    found = [c.laddr for c in psutil.net_connections() if c.laddr.port == served.port]
    assert {address.ip for address in found} == {"127.0.0.1"}

    # Both are served as prefect.yaml says, and the scheduler schedules them.
    nightly = api.read_deployment_by_name("pipeline/nightly")
    weekly = api.read_deployment_by_name("refresh/weekly-refresh")
    for deployment in (nightly, weekly):
        (schedule,) = deployment.schedules
        assert schedule.active
        assert schedule.schedule.timezone == "Etc/UTC"
        assert deployment.global_concurrency_limit.limit == 1
    assert nightly.schedules[0].schedule.cron == "30 1 * * *"
    assert weekly.schedules[0].schedule.cron == "0 3 * * 0"
    wait_for(
        lambda: (
            {r.deployment_id for r in api.read_flow_runs()} >= {nightly.id, weekly.id}
        ),
        what="scheduled runs",
        seconds=60,
    )

    # A run, cancelled in the middle of train: nothing of it is left. So many epochs
    # that there is time for it.
    values = YAML(typ="safe").load((plan.root / "params.yaml").read_text("utf-8"))
    endless = {"train.epochs": 100_000, "train.gradient_log_interval": 0}
    plan.write_params(with_overrides(values, endless))
    run = api.create_flow_run_from_deployment(nightly.id)
    checkpoint = plan.root / paths.CHECKPOINTS / "checkpoint.npz"
    wait_for(checkpoint.exists, what="an epoch trained")
    assert processes_in(plan.root, "-m stages.train")
    api.set_flow_run_state(run.id, Cancelling())
    wait_for(
        lambda: api.read_flow_run(run.id).state.name == "Cancelled",
        what="cancelled",
        seconds=60,
    )
    wait_for(
        lambda: not processes_in(plan.root, "dvc"), what="processes ended", seconds=30
    )
    assert not processes_in(plan.root, "-m stages.train")
    states = task_states(api, run.id)
    assert [states[name] for name in STAGES[3:]] == ["Interrupted", *["Skipped"] * 3]
    said = "train: interrupted; the next run goes on from epoch "
    assert said in served.log.read_text()
    assert_unlocked(plan.root)

    # The next restores what was made before with as few epochs.
    plan.write_params(values)
    monkeypatch.chdir(plan.root)
    monkeypatch.setenv("PYTHONPATH", "")
    state = run_flow(pipeline)
    flow_run_id = state.state_details.flow_run_id
    assert state.name == "Completed", state.message
    assert state.message.startswith("7 stages up to date: 6 cached, 1 restored; ")
    expected = dict.fromkeys(STAGES, "Cached") | {"train": "Restored"}
    assert task_states(api, flow_run_id) == expected
    assert_unlocked(plan.root)
    found = artifacts(api, flow_run_id)
    metrics = files.read_json(paths.METRICS)
    rows = {row["metric"]: row for row in YAML(typ="safe").load(found["metrics"])}
    assert rows["dice.mean"]["value"] == f"{metrics['dice']['mean']:.4f}"
    assert rows["dice.mean"]["last commit"] == rows["dice.mean"]["value"]
    assert found["verdict"].splitlines()[1] == "gate passed: 1 of 1 bounds are met"
    pictures = len(list(paths.OVERLAYS.glob("*.png")))
    assert found["worst-overlays"].count("data:image/jpeg;base64,") == min(pictures, 4)
    worst = files.read_json(paths.METRICS)["dice"]["min"]
    assert f"Dice {worst:.4f}" in found["worst-overlays"].splitlines()[0]

    # Restored without dvc.lock; a bound that is not met fails the run with the table.
    (plan.root / "dvc.lock").unlink()
    values = YAML(typ="safe").load((plan.root / "params.yaml").read_text())
    plan.write_params(with_overrides(values, {"gate.min": {"dice.mean": 1.1}}))
    state = run_flow(pipeline)
    flow_run_id = state.state_details.flow_run_id
    assert state.name == "Failed"
    head, *table = state.message.splitlines()
    assert head.startswith("gate: 1 of 1 bounds in params.yaml are not met")
    assert [line.split()[0] for line in table] == ["metric", "dice.mean"]
    assert table[1].endswith("FAILED")
    expected = dict.fromkeys(STAGES[:5], "Restored")
    expected |= {"gate": "Failed", "export": "Skipped"}
    assert {**task_states(api, flow_run_id)} == expected
    found = artifacts(api, flow_run_id)
    rows = {row["metric"]: row for row in YAML(typ="safe").load(found["metrics"])}
    assert rows["dice.mean"]["difference"] == "0.0000"
    assert "gate FAILED" in found["verdict"]

    # What refresh adds to a branch that it keeps.
    plan.commit("another bound")
    reviewed = flow(lambda: flows._review(plan.root), name="reviewed")
    state = run_flow(reviewed)
    text = artifacts(api, state.state_details.flow_run_id)["review"]
    assert "The gate failed: dice.mean" in text
    assert "gate.min.dice.mean" in text
    picture = "data:image/png;base64," in text.split("\n\n")[1]
    assert picture == (plan.root / "review.png").exists()


STEP = """
import sys, time
from pathlib import Path
name, *read = sys.argv[1:]
if name == "ingest" and Path("spoilt").exists():
    print("error: the source is spoilt", file=sys.stderr)
    sys.exit(1)
if name == "ingest" and not Path("tried").exists():
    Path("tried").touch()
    sys.exit(75)
print(name, "begins")
if name in ("left", "right"):
    time.sleep(2)
print(name, "ends", file=sys.stderr)
while Path("hold").exists():
    time.sleep(0.05)
if name == "join" and Path("broken").exists():
    print("error: join fell apart", file=sys.stderr)
    sys.exit(1)
texts = [Path(other + ".txt").read_text() for other in read]
Path(name + ".txt").write_text("".join([*texts, name]))
"""


@pytest.fixture
def diamond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan of four quick stages, two of which could run at once."""
    graph = {"ingest": [], "left": ["ingest"], "right": ["ingest"]}
    graph |= {"join": ["left", "right"]}
    stages = {
        name: {
            "cmd": f"python step.py {' '.join([name, *read])}",
            "deps": [f"{other}.txt" for other in read],
            "outs": [f"{name}.txt"],
        }
        for name, read in reversed(graph.items())
    }
    (tmp_path / "step.py").write_text(STEP)
    Plan.small(tmp_path, stages)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_killed_run_leaves_no_lock_and_the_next_goes_on(diamond):
    (diamond / "tried").touch()
    (diamond / "hold").touch()
    code = """
        from pathlib import Path
        from stages.core import processes
        words = processes.dvc("repro", "--single-item", "ingest")
        processes.run(words, cwd=Path.cwd(), on_line=print)
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: processes_in(diamond, "step.py ingest"), what="begun")
    run.send_signal(signal.SIGKILL)
    run.wait()
    wait_for(lambda: not processes_in(diamond), what="all ended", seconds=60)
    assert not (diamond / "ingest.txt").exists()
    assert_unlocked(diamond)
    (diamond / "hold").unlink()
    stages = ("ingest", "left", "right", "join")
    assert Plan.at(diamond).repro() == dict.fromkeys(stages, "run")


@pytest.mark.slow
def test_stages_run_at_once_where_they_can_and_only_the_network_is_tried_again(
    diamond, api, monkeypatch
):
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    from stages.flow import pipeline, running

    monkeypatch.setattr(running, "RETRY_DELAYS", [0.1])
    (diamond / "broken").touch()
    state = run_flow(pipeline)
    assert (state.name, state.message) == ("Failed", "join: join fell apart")
    flow_run_id = state.state_details.flow_run_id
    assert task_states(api, flow_run_id) == {
        "ingest": "Executed",
        "left": "Executed",
        "right": "Executed",
        "join": "Failed",
    }

    def task_runs(flow_run_id):
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        return {r.name: r for r in api.read_task_runs(flow_run_filter=chosen)}

    runs = task_runs(flow_run_id)
    assert {name: r.run_count for name, r in runs.items()} == {
        "ingest": 2,
        "left": 1,
        "right": 1,
        "join": 1,
    }
    assert runs["left"].start_time < runs["right"].end_time
    assert runs["right"].start_time < runs["left"].end_time
    assert runs["ingest"].end_time <= runs["left"].start_time
    assert_unlocked(diamond)

    # What a stage prints, to either stream, is its task's log, as it is printed.
    logged = log_of(api, flow_run_id)
    for name in ("left", "right"):
        said = {entry.message: entry for entry in logged[runs[name].id]}
        begun, ended = said[f"{name} begins"], said[f"{name} ends"]
        assert (ended.timestamp - begun.timestamp).total_seconds() > 1
    words = [entry.message for entry in logged[runs["join"].id]]
    assert "error: join fell apart" in words
    assert not any(f"{name} begins" in words for name in ("ingest", "left", "right"))

    # What no second try mends is not tried twice, in ingest either.
    (diamond / "spoilt").touch()
    (diamond / "ingest.txt").unlink()
    (diamond / "dvc.lock").unlink()
    shutil.rmtree(diamond / ".dvc" / "cache")
    state = run_flow(pipeline)
    assert state.message == "ingest: the source is spoilt"
    flow_run_id = state.state_details.flow_run_id
    assert task_states(api, flow_run_id)["ingest"] == "Failed"
    assert task_runs(flow_run_id)["ingest"].run_count == 1


def radiography_zip(folder: Path, pairs: int) -> bytes:
    top = radiography_tree(folder, {"COVID": pairs})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(top.rglob("*.png")):
            target.write(path, path.relative_to(folder).as_posix())
    return archive.getvalue()


def ingest_alone(
    root: Path, tiny_values: dict[str, Any], values: dict[str, Any]
) -> Plan:
    """A plan of one stage: the others are pipeline's to show, not refresh's."""
    from stages.core.params import text_with_values

    plan = Plan(root, tiny_values)
    # With the comments and the indents of the shipped file, so that a diff is one line.
    text = (ROOT / "params.yaml").read_text("utf-8")
    changed = TINY | {"train.initial_weights": "data/initial_weights"} | values
    (root / "params.yaml").write_text(text_with_values(text, changed), "utf-8")
    stages = YAML(typ="safe").load((root / "dvc.yaml").read_text("utf-8"))["stages"]
    with (root / "dvc.yaml").open("w", encoding="utf-8") as file:
        YAML().dump({"stages": {"ingest": stages["ingest"]}}, file)
    return plan


def ingested(plan: Plan, revision: str) -> dict[str, Any]:
    """What ingest wrote at a revision: its lock names it, the cache holds it."""
    lock = YAML(typ="safe").load(plan.git("show", f"{revision}:dvc.lock"))
    name = dvc_files.recorded_outs(lock["stages"])[str(paths.INGESTED_SUMMARY)]
    cache = plan.root / ".dvc" / "cache" / "files" / "md5"
    return json.loads(dvc_files.stored(cache, name).read_text())


def kept_branch(plan: Plan, api: Any, base: str, *, num_pairs: int) -> str:
    """The branch of a refresh that found newer data; the working tree is as it was."""
    from stages.flow import refresh

    state = run_flow(refresh)
    assert state.name == "Completed", state.message
    assert task_states(api, state.state_details.flow_run_id) == {"ingest": "Executed"}
    branch = re.search("branch (refresh/[a-z0-9-]+) holds the", state.message)[1]
    assert ingested(plan, branch)["num_pairs"] == num_pairs
    assert run_flow(refresh).message == f"nothing new: branch {branch} exists already"
    assert plan.git("rev-parse", "HEAD") == base
    assert plan.git("status", "--porcelain") == ""
    return branch


@pytest.mark.slow
def test_refresh_keeps_newer_data_as_a_branch(tmp_path, tiny_values, api, monkeypatch):
    from stages.flow import pipeline, refresh

    source = {"ingest.source": "kaggle", "ingest.kaggle.version": 1}
    plan = ingest_alone(tmp_path / "plan", tiny_values, source)
    root = plan.root
    plan.run("dvc", "remote", "add", "--default", "store", "../store")
    base = plan.commit("ingest alone")
    monkeypatch.chdir(root)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    versions = {(DATASET, 1): radiography_zip(tmp_path / "one", 4)}
    with KaggleStandIn(versions) as kaggle:
        for name, value in kaggle.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        state = run_flow(refresh)
        assert state.name == "Nothing new"
        assert state.message == f"nothing new: {DATASET} is still at version 1"
        assert not kaggle.asked("DownloadDataset")

        kaggle.archives[DATASET, 2] = radiography_zip(tmp_path / "two", 6)
        assert kept_branch(plan, api, base, num_pairs=6) == "refresh/v2"

        # Overrides: the pipeline beside the working tree, kept as an experiment.
        state = run_flow(pipeline, params={"ingest.limits": 2})
        assert (state.name, state.message) == (
            "Failed",
            "params.yaml: ingest.limits is not a known key; remove it or correct its "
            "spelling",
        )
        state = run_flow(pipeline, params={"ingest.limit": 2})
        assert state.name == "Completed", state.message
        name = re.match("`dvc exp apply ([a-z-]+)`", state.message)[1]

    # The working tree is as it was; the branch has params, lock and metrics.
    assert plan.git("status", "--porcelain") == ""
    assert not (root / "dvc.lock").exists()
    assert len(plan.git("worktree", "list").splitlines()) == 1
    assert not list((root / "data/.work/worktrees").glob("*/"))
    changed = plan.git("diff", "--name-only", base, "refresh/v2").splitlines()
    assert {"params.yaml", "dvc.lock"} <= set(changed)
    assert not [name for name in changed if name.startswith((".dvc/", "data/.work"))]
    lines = plan.git("diff", "-U0", base, "refresh/v2", "--", "params.yaml")
    assert [line.split()[:3] for line in lines.splitlines() if line[:2] == "+ "] == [
        ["+", "version:", "2"]
    ]
    experiment = f"refs/exps/{base[:2]}/{base[2:]}/{name}"
    assert ingested(plan, experiment)["num_pairs"] == 2
    assert [p for p in (tmp_path / "store").rglob("*") if p.is_file()]

    # A merged branch is up to date without running anything.
    plan.git("merge", "-q", "refresh/v2")
    assert plan.repro() == {"ingest": "cached"}


@pytest.mark.slow
def test_refresh_trains_on_a_folder_that_changed(
    tmp_path, tiny_values, api, monkeypatch
):
    from stages.flow import refresh

    folder = "data/incoming"
    source = {"ingest.source": "folder", "ingest.folder": folder}
    plan = ingest_alone(tmp_path / "plan", tiny_values, source)
    monkeypatch.chdir(plan.root)

    radiography_tree(Path(folder), {"COVID": 4})
    assert plan.repro() == {"ingest": "run"}
    base = plan.commit("four pairs")
    assert run_flow(refresh).message == f"nothing new: {folder} is unchanged"

    radiography_tree(Path(folder), {"COVID": 6})
    branch = kept_branch(plan, api, base, num_pairs=6)

    # Merged, the same folder is what the last commit was trained on.
    plan.git("merge", "-q", branch)
    assert run_flow(refresh).message == f"nothing new: {folder} is unchanged"


@pytest.mark.nightly
def test_prefect_deploys_what_prefect_yaml_says(served, api):
    """Last: it gives the deployments that were served to a work pool."""
    from prefect.client.schemas.actions import WorkPoolCreate

    plan = served.plan
    api.create_work_pool(WorkPoolCreate(name="lungfield", type="process"))
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=plan.root,
        env=plan.environment() | {"PREFECT_API_URL": served.url, "PWD": str(plan.root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name, cron in (
        ("pipeline/nightly", "30 1 * * *"),
        ("refresh/weekly-refresh", "0 3 * * 0"),
    ):
        deployment = api.read_deployment_by_name(name)
        (schedule,) = deployment.schedules
        assert schedule.schedule.cron == cron
        assert schedule.schedule.timezone == "Etc/UTC"
        assert deployment.global_concurrency_limit.limit == 1
        assert deployment.concurrency_options.collision_strategy == "ENQUEUE"
        assert deployment.work_pool_name == "lungfield"
        (step,) = deployment.pull_steps
        assert [*step.values()] == [{"directory": str(plan.root)}]
