"""The properties of the processor that decide the bits of a result."""

import platform
import re
import subprocess
import sys
from pathlib import Path

# Instruction sets for which TensorFlow, oneDNN and NumPy have kernels of their own.
_KERNELS = re.compile(r"sse4\w*|f16c|fma|avx\w*|amx\w*|asimd\w*|sve\w*|bf16|i8mm")

# Linux on x86, then on ARM.
_MODEL = (
    *("vendor_id", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU variant", "CPU part", "CPU revision"),
)


def describe() -> dict[str, str]:
    """Maker, family, model and stepping, and the instruction sets that matter.

    Two machines with the same record give the same weights. Brand names are not enough
    to tell machines apart.
    """
    facts = _cpuinfo(Path("/proc/cpuinfo"))
    if sys.platform == "darwin":
        brand = ["sysctl", "-n", "machdep.cpu.brand_string"]
        facts["model name"] = subprocess.run(
            brand, capture_output=True, text=True, check=True
        ).stdout.strip()
    words = (facts.get("flags") or facts.get("Features") or "").split()
    found = [f"{name} {facts[name]}" for name in _MODEL if name in facts]
    return {
        "architecture": platform.machine(),
        "model": ", ".join(found) or facts.get("model name", platform.processor()),
        "instructions": " ".join(sorted(w for w in words if _KERNELS.fullmatch(w))),
    }


def _cpuinfo(path: Path) -> dict[str, str]:
    """The first processor's facts, by Linux."""
    if not path.exists():
        return {}
    first = path.read_text("utf-8", errors="replace").strip().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
