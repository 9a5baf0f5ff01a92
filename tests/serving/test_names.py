"""Backends are found by name, those of other rooms and packages too."""

import re

import pytest

from throttllem_env.envs.options import EnvOptions, OptionError
from throttllem_env.evaluation.settings import Settings
from throttllem_env.serving import BACKENDS, backend_names, is_real_time, require_backend
from throttllem_env.serving.names import split_backend


def test_real_servers_are_among_the_names_and_run_in_real_time() -> None:
    assert backend_names() == (*BACKENDS, "vllm")
    assert is_real_time("vllm:gpus=nvml")
    assert not any(is_real_time(name) for name in BACKENDS)


def test_parameters_stand_behind_the_name() -> None:
    assert split_backend("vllm:gpus=nvml,model=/m/x") == ("vllm", {"gpus": "nvml", "model": "/m/x"})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("vlm", "backend = 'vlm': unknown; did you mean 'vllm'? Valid: simulator, reference,"),
        ("vllm:gpu=nvml", "no parameter 'gpu'"),
        ("vllm:nvml", "'nvml' is no key=value"),
        ("simulator:speed=2", "no parameter 'speed'; it takes no parameters"),
    ],
)
def test_what_cannot_be_had_is_refused(spec: str, words: str) -> None:
    for refused in (split_backend, require_backend, lambda name: EnvOptions(backend=name)):
        with pytest.raises((ValueError, OptionError), match=re.escape(words)):
            refused(spec)


def test_real_time_runs_are_made_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throttllem_env.evaluation.settings.require_backend", lambda name: None)
    with pytest.raises(ValueError, match="runs in real time, one at a time"):
        Settings(agents=("max-frequency",), backend="vllm", jobs=2).check()
