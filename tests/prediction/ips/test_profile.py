"""A profile comes back as it was written, and a wrong one is refused with row, field and value."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from throttllem_env.prediction.ips import (
    Profile,
    ProfileError,
    ProfileInfo,
    check_profile,
    read_profile,
    write_profile,
)

MakeProfile = Callable[..., Profile]


def test_a_profile_comes_back_as_it_was(make_profile: MakeProfile, tmp_path: Path) -> None:
    profile = make_profile()
    write_profile(profile, tmp_path / "p.parquet")
    back = read_profile(tmp_path / "p.parquet")
    assert back.info == profile.info
    for name in profile.samples.__slots__:
        np.testing.assert_array_equal(getattr(back.samples, name), getattr(profile.samples, name))
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_a_sound_profile_is_accepted(make_profile: MakeProfile) -> None:
    check_profile(make_profile((1, 2, 4)))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("duration_s", 0.0, "row 4: duration_s = 0.0: accepted: finite and above 0"),
        ("duration_s", -1.0, "row 4: duration_s = -1.0"),
        ("duration_s", np.nan, "row 4: duration_s = nan"),
        ("duration_s", np.inf, "row 4: duration_s = inf"),
        ("batch", 0.5, r"row 4: batch = 0.5: accepted: 1 to 256 \(counter noise of 1% allowed for\)"),
        ("batch", 300.0, "row 4: batch = 300.0"),
        ("batch", np.nan, "row 4: batch = nan"),
        ("kv_blocks", 1e6, "row 4: kv_blocks = 1000000.0: accepted: above 0, at most the size's capacity"),
        ("kv_blocks", 0.4, "row 4: kv_blocks = 0.4: accepted: at least a block per request"),
        ("kv_blocks", np.nan, "row 4: kv_blocks = nan"),
        ("frequency_mhz", 211, "row 4: frequency_mhz = 211: accepted: a clock of a100-40gb, 81 from 210"),
        ("size", 3, r"row 4: size = 3: accepted: one of \[1, 2, 4\]"),
        ("iterations", 0, "row 4: iterations = 0: accepted: at least 1"),
        ("noise_free_duration_s", -0.1, "row 4: noise_free_duration_s = -0.1: accepted: above 0, or nan"),
    ],
)
def test_an_unphysical_row_is_named(
    make_profile: MakeProfile, field: str, value: float, message: str
) -> None:
    profile = make_profile()
    column = getattr(profile.samples, field).copy()
    column[3] = value
    broken = Profile(profile.info, replace(profile.samples, **{field: column}))
    with pytest.raises(ProfileError, match=message):
        check_profile(broken)


def test_many_unphysical_rows_are_counted(make_profile: MakeProfile) -> None:
    profile = make_profile()
    column = profile.samples.duration_s.copy()
    column[:12] = 0
    with pytest.raises(ProfileError, match=r"row 5: .*; and 7 more"):
        check_profile(Profile(profile.info, replace(profile.samples, duration_s=column)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 40}, "size 2 has 200 decode iterations at 5 clocks; at least 300"),
        ({"rows": 400, "clocks": (1410,)}, "size 2 has 400 decode iterations at 1 clocks; at least 300 at 2"),
    ],
)
def test_a_small_profile_is_refused(
    make_profile: MakeProfile, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ProfileError, match=f"too small: {message}"):
        check_profile(make_profile(**change))


def test_a_profile_without_decode_is_refused(make_profile: MakeProfile) -> None:
    profile = make_profile()
    with pytest.raises(ProfileError, match="no decode iterations"):
        check_profile(Profile(profile.info, profile.windows))


def test_files_that_are_no_profiles_are_refused(make_profile: MakeProfile, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(ProfileError, match="no such profile; make one with `throttllem profile`"):
        read_profile(path)
    path.write_text("size,batch\n", encoding="utf-8")
    with pytest.raises(ProfileError, match="not a readable Parquet file"):
        read_profile(path)
    pq.write_table(pa.table({"size": [1]}), path)
    with pytest.raises(ProfileError, match=r"metadata 'throttllem\.profile' is missing"):
        read_profile(path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("batch", None, "no column batch"),
        ("kind", ["prefill"], "row 1: kind = 'prefill': accepted: decode, window"),
        ("size", [1.5], r"row 1: size = 1.5: accepted: a whole number"),
        ("batch", ["many"], "batch: column of object: accepted: numbers"),
    ],
)
def test_wrong_columns_are_named(
    make_profile: MakeProfile, tmp_path: Path, column: str, values: list[object] | None, message: str
) -> None:
    path = tmp_path / "p.parquet"
    profile = make_profile()
    write_profile(Profile(profile.info, profile.samples.take(np.array([0]))), path)
    table = pq.read_table(path)
    at = table.column_names.index(column)
    changed = table.remove_column(at) if values is None else table.set_column(at, column, pa.array(values))
    pq.write_table(changed, path)
    with pytest.raises(ProfileError, match=message):
        read_profile(path)


def test_another_format_is_refused(make_profile: MakeProfile) -> None:
    text = make_profile().info.to_json()
    with pytest.raises(ProfileError, match="format = 2: this version reads 1"):
        ProfileInfo.from_json(json.dumps(json.loads(text) | {"format": 2}))
    with pytest.raises(ProfileError, match="not what `throttllem profile` writes"):
        ProfileInfo.from_json("[]")
