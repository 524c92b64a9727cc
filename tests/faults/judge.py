"""What must hold after a fault, and after the next `dvc repro`."""

import re
import signal

from ruamel.yaml import YAML

from stages.core import paths
from tests.faults import clones, watch
from tests.faults.clones import Run
from tests.faults.kinds import Scene

# One line that says what happened: ours, or DVC's where it refused by itself.
OURS = re.compile(r"^(error: \S.{20,}|interrupted; .+|terminated; .+)$", re.M)
DVCS = re.compile(r"^ERROR: (?!.*failed to run).+|^ERROR: .*exited with -\d+", re.M)
TRACEBACK = re.compile(r"^Traceback \(most recent call last\):\n(?:^ .*\n?)*.*", re.M)
BEGUN = re.compile(r"^[IWE] stages\.", re.M)
GONE_S = 60.0  # in which what the fault left running must have ended


def after_fault(scene: Scene) -> list[str]:
    """What is wrong with the disturbed run: its words, and what it left behind."""
    base, wrong = scene.base, []
    for run, code in zip(scene.runs, scene.codes, strict=True):
        text = run.output()
        wrong += [
            f"a traceback of ours:\n{found}"
            for found in TRACEBACK.findall(text)
            if "/stages/" in found
        ]
        said = OURS.search(text) or DVCS.search(text)
        # DVC dies of SIGTERM without a word, as does a stage before and after its work.
        worked = BEGUN.search(text) and not _is_done(scene)
        silent = scene.may_be_silent or (code == -signal.SIGTERM and not worked)
        if code and not said and not silent:
            wrong.append(f"ended with {code}, without a clear message:\n{text[-1500:]}")
        if code == -99:
            wrong.append("hung")
    for stage in base.costs:
        for out in base.outputs[stage]:
            if out in scene.damaged:
                continue
            found = clones.digest(scene.root / out)
            if found not in ("", base.hashes[out]):
                wrong.append(f"{out} is there, but not as the undisturbed run wrote it")
    return wrong


def _is_done(scene: Scene) -> bool:
    outputs = scene.base.outputs[scene.stage]
    return all(
        clones.digest(scene.root / out) == scene.base.hashes[out] for out in outputs
    )


def after_recovery(scene: Scene) -> list[str]:
    """What is wrong after the next `dvc repro`."""
    base, root = scene.base, scene.root
    run = Run(root, ["repro"], site=root.with_suffix(".site"))
    if code := run.end():
        return [f"the next dvc repro ended with {code}:\n{run.output()[-2500:]}"]
    wrong = [
        f"{out} differs from the undisturbed run's"
        for out, expected in base.hashes.items()
        if clones.digest(root / out) != expected
    ]
    lock = YAML(typ="safe", pure=True).load((root / "dvc.lock").read_text("utf-8"))
    if lock != base.lock:
        wrong.append("dvc.lock differs from the undisturbed run's")
    # The times of the stages and the curves of a training stay, to be looked at.
    left = [
        path
        for path in (root / paths.WORK).rglob("*.*")
        if path.name != paths.STAGE_TIMES.name and not path.name.startswith("events.")
    ]
    if left:
        wrong.append(f"left behind: {', '.join(p.name for p in left)}")
    for former in scene.runs:
        if not watch.wait_gone(former.process.pid, GONE_S):
            wrong.append("a process of the disturbed run is still at work")
    return wrong
