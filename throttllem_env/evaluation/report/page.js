"use strict";
// What the page does by itself: choose runs, move along the time axis, hide agents, open tables for print.
(() => {
  const start = (doc) => {
    const find = (name) => doc.get_model_by_name(name);
    const all = (query) => document.querySelectorAll(query);

    const timelines = find("timelines");
    if (timelines) {
      const [zoom, line, marks, beside] = ["zoom", "shown-line", "shown-marks", "beside-line"].map(find);
      const end = zoom.end;
      const lines = timelines.tags.filter((_, i) => i % 2 === 0);
      const missed = timelines.tags.filter((_, i) => i % 2 === 1);
      const empty = Object.fromEntries(Object.keys(beside.data).map((name) => [name, []]));
      const [shownChoice, besideChoice] = ["run-shown", "run-beside"].map((id) => document.getElementById(id));
      const show = () => {
        line.data = lines[shownChoice.value].data;
        marks.data = missed[shownChoice.value].data;
      };
      const showBeside = () => {
        beside.data = besideChoice.value === "" ? empty : lines[besideChoice.value].data;
      };
      shownChoice.value = line.tags[0];
      besideChoice.value = beside.tags[0];
      shownChoice.addEventListener("change", show);
      besideChoice.addEventListener("change", showBeside);

      const span = document.getElementById("zoom-span");
      const tell = () => {
        span.textContent = `minutes ${zoom.start.toFixed(1)} to ${zoom.end.toFixed(1)}`;
      };
      const move = (from, to) => {
        const width = Math.min(to - from, end);
        const left = Math.min(Math.max(from, 0), end - width);
        zoom.setv({ start: left, end: left + width });
      };
      const moves = {
        in: (a, b) => move(a + (b - a) / 4, b - (b - a) / 4),
        out: (a, b) => move(a - (b - a) / 2, b + (b - a) / 2),
        earlier: (a, b) => move(a - (b - a) / 2, b - (b - a) / 2),
        later: (a, b) => move(a + (b - a) / 2, b + (b - a) / 2),
        all: () => move(0, end),
      };
      all("[data-zoom]").forEach((button) => {
        button.addEventListener("click", () => moves[button.dataset.zoom](zoom.start, zoom.end));
      });
      zoom.change.connect(tell);
      tell();
    }

    all("[data-agent]").forEach((box) => {
      box.addEventListener("change", () => {
        for (const drawn of doc.all_models) {
          if (drawn.name === box.dataset.agent) drawn.visible = box.checked;
        }
        all(`[data-agent="${box.dataset.agent}"]`).forEach((other) => {
          other.checked = box.checked;
        });
      });
    });

    addEventListener("beforeprint", () => all("details").forEach((part) => {
      part.open = true;
    }));
    document.body.dataset.ready = "yes";
  };

  // Bokeh makes its document when the page is loaded; wait for it.
  const wait = () => {
    const doc = globalThis.Bokeh && Bokeh.documents[0];
    if (doc) start(doc);
    else requestAnimationFrame(wait);
  };
  wait();
})();
