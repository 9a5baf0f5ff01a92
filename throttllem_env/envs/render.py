"""How an episode is shown: a timeline as an image or as text."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from throttllem_env.envs.episodes import Episode
from throttllem_env.envs.options import EnvOptions
from throttllem_env.envs.timeline_text import timeline_text
from throttllem_env.scenario import Scenario
from throttllem_env.serving.timeline import SAMPLE_S, TimelineRecorder
from throttllem_env.slo import Slo
from throttllem_env.types import Telemetry

RENDER_MODES: Final = ("rgb_array", "ansi")


class EpisodeRenderer:
    """Keeps the timeline of one episode and draws it on demand.

    At each sample it keeps what is projected for the next control point, to be drawn against what
    happened then.
    """

    def __init__(self, scenario: Scenario, slo: Slo, episode: Episode, options: EnvOptions) -> None:
        """Begin an episode.

        Args:
            scenario: Names, top clock and reference power.
            slo: The targets.
            episode: Gives the forecaster and the trace's name.
            options: Give run-in, length and control period.
        """
        self._ahead_s = max(options.control_period_s, SAMPLE_S)
        self._recorder = TimelineRecorder(episode.forecaster, slo.e2e_s, self._ahead_s)
        self._scenario, self._options = scenario, options
        self._subject = f"{scenario.name} · {episode.trace.name} · load {options.load:g}"

    def record(self, telemetry: Telemetry) -> None:
        """Take note of a control point."""
        self._recorder.record(telemetry)

    def image(self) -> NDArray[np.uint8]:
        """The timeline as uint8[height, width, 3]; matplotlib is first imported here."""
        from throttllem_env.envs.timeline_figure import Frame, figure_pixels, timeline_figure

        frame = Frame(
            title=self._subject,
            start_s=self._options.run_in_s,
            end_s=self._options.run_in_s + self._options.episode_s,
            top_mhz=self._scenario.top_mhz,
            sizes=self._scenario.sizes,
            reference_power_w=self._scenario.reference_power_w,
            ahead_s=self._ahead_s,
        )
        return figure_pixels(timeline_figure(self._recorder.timeline, frame))

    def text(self) -> str:
        """The timeline as lines of text."""
        tops = {"frequency_mhz": self._scenario.top_mhz, "size": self._scenario.largest_size}
        return timeline_text(self._recorder.timeline, self._subject, self._options.run_in_s, tops)
