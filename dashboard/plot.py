"""Draws figures in place: a new one changes the chart that is there, whose zoom stays.

`st.plotly_chart` makes a new chart for each change of its data, which forgets the zoom and blinks.
Here Plotly's own script, which comes with its Python package, is given a place to draw in.
"""

from pathlib import Path

import plotly
import plotly.graph_objects as go
import streamlit as st
from streamlit.components.v1 import declare_component

# Only to have the script served: /component/<its name>/plotly.min.js
_SERVED = declare_component("plotly_script", path=Path(plotly.__file__).parent / "package_data")
_DRAW = """
const load = (source) => window.plotlyLoads ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = source;
    script.onload = resolve;
    script.onerror = reject;
    document.head.append(script);
});

export default async function ({ data, parentElement }) {
    const place = parentElement.querySelector(".sr-plot");
    place.wanted = data;
    place.setAttribute("aria-label", data.label);
    await load(new URL(data.script, document.baseURI).href);
    if (place.wanted !== data) return;  // a newer figure came meanwhile
    const figure = JSON.parse(data.figure);
    await Plotly.react(place, figure.data, figure.layout, { displayModeBar: false, responsive: true });
}
"""


def plot(figure: go.Figure, *, key: str, label: str) -> None:
    """Show a figure; with the same key again, change it. `label` says to who cannot see it what it is."""
    component = st.components.v2.component(
        "sr_plot", html='<div class="sr-plot js-plotly-plot" role="img"></div>', js=_DRAW, isolate_styles=False
    )
    script = f"component/{_SERVED.name}/plotly.min.js"
    height = figure.layout.height
    component(key=key, data={"figure": figure.to_json(), "script": script, "label": label}, height=height)
