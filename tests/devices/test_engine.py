from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekit_devices.engine import TOOLCHAINS, VARIANTS, _choose_variants
from edgekit_devices.errors import BuildFailedError, MissingToolsError

CMAKE = """
function(ggml_add_cpu_backend_variant tag_name)
endfunction()
if (x)
    ggml_add_cpu_backend_variant(armv8.0_1)
    ggml_add_cpu_backend_variant(armv8.2_1    DOTPROD)
    ggml_add_cpu_backend_variant(armv8.2_2    DOTPROD FP16_VECTOR_ARITHMETIC)
endif()
"""


def test_only_the_wanted_kernels_are_compiled(tmp_path: Path) -> None:
    file = tmp_path / "CMakeLists.txt"
    file.write_text(CMAKE)
    _choose_variants(file, ("armv8.0_1", "armv8.2_2"))
    assert file.read_text() == CMAKE.replace("    ggml_add_cpu_backend_variant(armv8.2_1    DOTPROD)\n", "")


def test_a_llama_cpp_without_a_wanted_kernel_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "CMakeLists.txt"
    file.write_text(CMAKE)
    with pytest.raises(BuildFailedError, match=r"armv10"):
        _choose_variants(file, ("armv8.0_1", "armv10"))


@pytest.mark.parametrize("architecture", sorted(TOOLCHAINS))
def test_without_a_compiler_the_error_has_the_apt_line(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingToolsError, match=r"apt install crossbuild-essential-\w+ cmake"):
        TOOLCHAINS[architecture].check()
    assert architecture in VARIANTS
