"""Is a file that is no model of this pipeline refused in one sentence?"""

import re

import pytest

from stages.core.errors import PipelineError
from stages.inference import segmenter
from tests.inference.onnx_models import dark_is_lung


def test_a_name_that_is_no_text_is_one_sentence(tmp_path):
    """Names of sizes are bytes in the file; the fuzzer made one that is no UTF-8."""
    path = dark_is_lung(tmp_path / "unet.onnx", 32)
    assert segmenter.load(path).image_size == 32
    found = path.read_bytes()
    spoilt, count = re.subn(rb"\x12\x01n", b"\x12\x01\xff", found)
    assert count == 2  # of the input and of the output
    path.write_bytes(spoilt)
    with pytest.raises(PipelineError, match=r"unet.onnx should be an exported .*utf-8"):
        segmenter.load(path)
