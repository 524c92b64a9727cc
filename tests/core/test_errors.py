import errno
import os
import signal
import subprocess
import sys

import pytest

from stages.core.errors import NetworkError, PipelineError, run
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _signals_as_they_were():
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def ending(capsys, error):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    code = caught.value.code
    printed = capsys.readouterr().err
    return (1, f"{code}\n") if isinstance(code, str) else (code, printed)


def begun(code_text):
    """A process that has said it is there."""
    run = subprocess.Popen(
        [sys.executable, "-c", code_text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout.readline() == "there\n"
    return run


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (PipelineError("a is b"), 1, "error: a is b\n"),
        (NetworkError("no answer"), 75, "error: no answer\n"),
        (KeyboardInterrupt(), 130, "interrupted; the next run goes on from here\n"),
    ],
)
def test_a_mistake_is_a_sentence_and_an_exit_code(capsys, error, code, sentence):
    assert ending(capsys, error) == (code, sentence)


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EFBIG]
)
def test_what_the_machine_refuses_is_a_sentence_that_names_the_place(capsys, number):
    error = OSError(number, os.strerror(number), "data/x")
    code, printed = ending(capsys, error)
    assert code == 1
    assert printed.startswith("error: ")
    assert "data/x" in printed
    assert printed.count("\n") == 1


def test_a_foreign_line_break_is_none_but_a_table_keeps_its_own(capsys):
    error = PipelineError("a\nerror: b", details="c  d\ne  f")
    assert ending(capsys, error) == (1, "error: a error: b\nc  d\ne  f\n")


def test_a_full_disk_in_another_librarys_words(capsys):
    error = RuntimeError(f"SaveV2: variables; {os.strerror(errno.ENOSPC)}")
    code, printed = ending(capsys, error)
    assert code == 1
    assert printed.startswith("error: no space left on the disk")


# What a signal interrupts: Python code, a destructor, or native code that raises an
# error of its own then.
SLEEP = "time.sleep(60)"
DESTROY = "type('X', (), {'__del__': lambda _: time.sleep(60)})(); time.sleep(60)"
NATIVE = """
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            raise SystemError('bad argument') from None
"""


@pytest.mark.parametrize("waiting", [SLEEP, DESTROY, NATIVE])
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_is_one_sentence_and_removes_partial_files(
    tmp_path, number, code, word, waiting
):
    run = begun(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import time\n"
        "from stages.core import errors, files, paths\n"
        "def main():\n"
        "    with files.replacing(paths.INGESTED) as partial:\n"
        "        partial.mkdir()\n"
        "        print('there', flush=True)\n"
        f"        {waiting}\n"
        "errors.run(main)\n"
    )
    run.send_signal(number)
    printed = run.communicate()[1]
    assert run.returncode == code
    assert printed == f"{word}; the next run goes on from here\n"
    assert not list(tmp_path.glob("data/.work/partial/*"))


def test_ctrl_c_during_the_imports_is_one_sentence():
    done = subprocess.run(
        [sys.executable, "-c", "import stages; raise KeyboardInterrupt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr == "interrupted; the next run goes on from here\n"


def test_a_reader_that_leaves_early_gets_no_traceback():
    code = "from stages.core.errors import run; run(lambda: print('y\\n' * 10**6))"
    done = subprocess.run(
        f'{sys.executable} -c "{code}" | head -n 1',
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("y\n", "")
