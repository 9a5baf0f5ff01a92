"""A profile: measured iterations of a backend, as a Parquet file that says where it comes from."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from throttllem_env.types import BoolArray, FloatArray, IntArray

FORMAT_VERSION = 1
METADATA_KEY = b"throttllem.profile"

Kind = Literal["decode", "window"]
KINDS: tuple[Kind, ...] = ("decode", "window")


class ProfileError(ValueError):
    """A profile or model that cannot be used; the message names what, where, and what is accepted."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Measurement noise that was put on a simulator's figures: lognormal with median 1.

    Attributes:
        iteration_sigma: Sigma of an iteration's duration.
        counter_sigma: Sigma of the batch and of the KV blocks.
    """

    iteration_sigma: float = 0.0
    counter_sigma: float = 0.0


@dataclass(frozen=True, slots=True)
class ProfileInfo:
    """What was profiled, and how.

    Attributes:
        scenario: Its name.
        scenario_version: Its version.
        model: Model served.
        gpu: GPU.
        block_size: Tokens per KV block.
        max_num_seqs: Largest batch.
        kv_blocks: KV blocks that requests can hold, by size.
        clocks_mhz: All clocks of the backend, ascending.
        backend: What was measured.
        seed: Seed of load and noise.
        noise: Noise that was added; zero on a live backend, which has its own.
        package_version: Version of this package.
        command: Command that made it.
        date: When, ISO 8601.
        power_cap_w: Power limit that was set on every GPU; None for the board's own.
    """

    scenario: str
    scenario_version: int
    model: str
    gpu: str
    block_size: int
    max_num_seqs: int
    kv_blocks: dict[int, int]
    clocks_mhz: tuple[int, ...]
    backend: str
    seed: int
    noise: Noise
    package_version: str
    command: str
    date: str
    power_cap_w: float | None = None

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps({"format": FORMAT_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> "ProfileInfo":
        """Read back what `to_json` wrote.

        Raises:
            ProfileError: Another format.
        """
        try:
            data = json.loads(text)
            found = data.pop("format")
            if found != FORMAT_VERSION:
                raise ProfileError(f"format = {found}: this version reads {FORMAT_VERSION}")
            data["kv_blocks"] = {int(size): blocks for size, blocks in data["kv_blocks"].items()}
            data["clocks_mhz"] = tuple(data["clocks_mhz"])
            data["noise"] = Noise(**data["noise"])
            return cls(**data)
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ProfileError(f"{METADATA_KEY.decode()}: not what `throttllem profile` writes") from error

    def measured_alike(self, other: "ProfileInfo") -> bool:
        """Whether rows of both may stand in one file: all but command, date and version agree."""
        labels = {"command", "date", "package_version"}
        names = [f.name for f in fields(self) if f.name not in labels]
        return all(getattr(self, name) == getattr(other, name) for name in names)


@dataclass(frozen=True, slots=True)
class Samples:
    """Measurements as columns of equal length.

    Attributes:
        size: int64[n], tensor-parallel degree.
        frequency_mhz: int64[n].
        batch: float64[n], requests in the batch as counted; a mean for windows.
        kv_blocks: float64[n], KV blocks in use as counted; a mean for windows.
        duration_s: float64[n], as measured.
        iterations: int64[n], iterations in that time: 1, or those of a window.
        noise_free_duration_s: float64[n], for evaluation only, never a feature or a target; nan where
            the backend cannot know it.
        window: bool[n], a one-second window that may hold prefill, else one decode iteration.
    """

    size: IntArray
    frequency_mhz: IntArray
    batch: FloatArray
    kv_blocks: FloatArray
    duration_s: FloatArray
    iterations: IntArray
    noise_free_duration_s: FloatArray
    window: BoolArray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.size)

    def take(self, rows: IntArray | BoolArray) -> "Samples":
        """Some of the rows."""
        return Samples(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: "list[Samples]") -> "Samples":
        """Join in order; at least one part."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @property
    def rate_ips(self) -> FloatArray:
        """float64[n], measured iterations per second."""
        rate: FloatArray = self.iterations / self.duration_s
        return rate

    @property
    def noise_free_rate_ips(self) -> FloatArray:
        """float64[n], for evaluation only; nan where unknown."""
        rate: FloatArray = self.iterations / self.noise_free_duration_s
        return rate


@dataclass(frozen=True, slots=True)
class Profile:
    """Measurements and where they come from."""

    info: ProfileInfo
    samples: Samples

    @property
    def decode(self) -> Samples:
        """Decode iterations."""
        return self.samples.take(~self.samples.window)

    @property
    def windows(self) -> Samples:
        """One-second windows, prefill included."""
        return self.samples.take(self.samples.window)


INTEGERS = ("size", "frequency_mhz", "iterations")
NUMBERS = tuple(f.name for f in fields(Samples) if f.name != "window")


def write_profile(profile: Profile, path: Path) -> None:
    """Write as Parquet, all of it or nothing.

    Args:
        profile: What to write.
        path: The file; replaced when it is there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    samples = profile.samples
    columns: dict[str, Any] = {"kind": pa.array(np.where(samples.window, "window", "decode"))}
    columns |= {name: pa.array(getattr(samples, name)) for name in NUMBERS}
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: profile.info.to_json().encode()})
    unfinished = path.with_name(f".{path.name}.unfinished")
    pq.write_table(table, str(unfinished))
    unfinished.replace(path)


def read_profile(path: Path) -> Profile:
    """Read what `write_profile` wrote; whether it makes sense is for `check_profile` to say.

    Args:
        path: The file.

    Raises:
        ProfileError: There is no such file, or it is not a profile.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ProfileError(f"{path}: there is no such profile; make one with `throttllem profile`")
    try:
        table = pq.read_table(str(path))
    except (pa.ArrowException, OSError) as error:
        raise ProfileError(f"{path}: not a readable Parquet file: {error}") from error
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    if metadata is None:
        raise ProfileError(f"{path}: no profile: metadata {METADATA_KEY.decode()!r} is missing")
    missing = [name for name in ("kind", *NUMBERS) if name not in table.column_names]
    if missing:
        raise ProfileError(
            f"{path}: no column {', '.join(missing)}; here are {', '.join(table.column_names)}"
        )
    return Profile(ProfileInfo.from_json(metadata.decode()), _samples(table, path))


def _samples(table: Any, path: Path) -> Samples:
    kind = table.column("kind").to_pylist()
    for row, value in enumerate(kind, 1):
        if value not in KINDS:
            raise ProfileError(f"{path}: row {row}: kind = {value!r}: accepted: {', '.join(KINDS)}")
    columns = {name: _numbers(table, name, path) for name in NUMBERS}
    return Samples(window=np.array(kind) == "window", **columns)


def _numbers(table: Any, name: str, path: Path) -> Any:
    """A column as float64[n] or, where whole numbers are due, int64[n]."""
    values = table.column(name).to_numpy()
    if values.dtype.kind not in "fiu":
        raise ProfileError(f"{path}: {name}: column of {values.dtype}: accepted: numbers")
    if name not in INTEGERS:
        return values.astype(np.float64)
    broken = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)))
    if len(broken):
        row = int(broken[0])
        raise ProfileError(f"{path}: row {row + 1}: {name} = {values[row]}: accepted: a whole number")
    return values.astype(np.int64)
