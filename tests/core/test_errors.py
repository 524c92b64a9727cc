import errno
import os

import pytest

from stages.core.errors import NetworkError, PipelineError, run


def ending(capsys, error):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    code = caught.value.code
    printed = capsys.readouterr().err
    return (1, f"{code}\n") if isinstance(code, str) else (code, printed)


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


def test_a_defect_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)
