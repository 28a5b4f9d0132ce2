"""Colours and the style sheet, for the light and the dark theme. Pure."""

from html import escape
from typing import Literal

from msgspec import Struct

Theme = Literal["light", "dark"]

VENUE_COLOURS = {"binance": ("#b7791f", "#f0b90b"), "okx": ("#0f766e", "#2dd4bf"), "kraken": ("#6d28d9", "#a78bfa")}
OTHER_VENUE = ("#475569", "#94a3b8")


class Palette(Struct, frozen=True):
    """The colours of one theme."""

    theme: Theme
    text: str
    muted: str
    panel: str
    line: str
    grid: str
    up: str
    down: str
    buy: str  # of buttons, under white letters
    sell: str
    accent: str
    warning: str
    warning_text: str

    def venue(self, name: str | None) -> str:
        """Return an exchange's colour."""
        return VENUE_COLOURS.get(name or "", OTHER_VENUE)[self.theme == "dark"]


LIGHT = Palette(
    theme="light", text="#141a24", muted="#5b6675", panel="#ffffff", line="#dfe3e9", grid="#eceff3",
    up="#0a8f5b", down="#d0314b", buy="#0a8f5b", sell="#d0314b", accent="#2563eb",
    warning="#fff1cc", warning_text="#6b4700",
)  # fmt: skip
DARK = Palette(
    theme="dark", text="#e4e9f0", muted="#93a0b2", panel="#161c26", line="#2a3341", grid="#222b37",
    up="#2fc98a", down="#ff6b7d", buy="#12804f", sell="#c2334b", accent="#4c8dff",
    warning="#3d2f0a", warning_text="#ffd666",
)  # fmt: skip


def palette(theme: str | None) -> Palette:
    return DARK if theme == "dark" else LIGHT


def venue_chip(name: str | None, colours: Palette) -> str:
    """Return an exchange's name in its colour."""
    colour = colours.venue(name)
    return f'<span class="sr-chip" style="color:{colour};background:{colour}22">{escape(name or "–")}</span>'


def sheet(colours: Palette) -> str:
    """Return the page's style sheet."""
    c = colours
    return f"""<style>
[data-testid="stMainBlockContainer"] {{ padding: 1rem 1.5rem 3rem; max-width: 1760px; }}
[data-testid="stHeader"] {{ background: transparent; height: 2.2rem; }}
[data-testid="stVerticalBlock"] {{ gap: .75rem; }}
[class*="st-key-panel-"], .st-key-login {{
  background: {c.panel}; border: 1px solid {c.line}; border-radius: 10px; padding: .85rem 1rem 1rem; }}
[class*="st-key-row-"] {{ border-bottom: 1px solid {c.line}; padding-bottom: .45rem; }}
[data-stale="true"] {{ opacity: 1 !important; }}
[class*="ticket-buy"] [data-testid="stFormSubmitButton"] button {{ background: {c.buy}; border-color: {c.buy}; }}
[class*="ticket-sell"] [data-testid="stFormSubmitButton"] button {{ background: {c.sell}; border-color: {c.sell}; }}
[data-testid="stAlertContainer"] {{ padding: .5rem .75rem; min-height: 0; }}
[data-testid="stAlertContainer"] p {{ font-size: .86rem; }}
.st-key-login {{ margin-top: 5vh; }}
.sr {{ color: {c.text}; font-size: .84rem; font-variant-numeric: tabular-nums; line-height: 1.35; }}
.sr-brand {{ font-size: 1.22rem; font-weight: 700; letter-spacing: -.01em; white-space: nowrap; }}
.sr-brand small {{ color: {c.muted}; font-weight: 500; font-size: .8rem; margin-left: .45rem; letter-spacing: 0; }}
.sr-title {{ font-weight: 650; font-size: .92rem; }}
.sr-title small {{ color: {c.muted}; font-weight: 400; margin-left: .4rem; font-size: .78rem; }}
.sr-muted {{ color: {c.muted}; }}
.sr-up {{ color: {c.up}; }} .sr-down {{ color: {c.down}; }}
.sr-chip {{ display: inline-block; padding: 0 .42em; border-radius: 5px; font-size: .74rem; font-weight: 600; }}
.sr-banner {{ border-radius: 8px; padding: .5rem .85rem; font-size: .88rem; border: 1px solid; }}
.sr-banner.warning {{ background: {c.warning}; color: {c.warning_text}; border-color: {c.warning_text}55; }}
.sr-banner.lost {{ background: {c.down}1f; color: {c.down}; border-color: {c.down}66; font-weight: 600; }}
.sr-strip {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .6rem; }}
.sr-card {{ background: {c.panel}; border: 1px solid {c.line}; border-radius: 10px; padding: .55rem .85rem;
  min-width: 0; }}
.sr-card h4 {{ margin: 0; padding: 0; font-size: .72rem; font-weight: 500; color: {c.muted}; letter-spacing: .02em; }}
.sr-card .big {{ font-size: 1.28rem; font-weight: 650; letter-spacing: -.01em; line-height: 1.5; white-space: nowrap; }}
.sr-card .sub {{ color: {c.muted}; font-size: .76rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
.sr-lights {{ display: grid; gap: .22rem; margin-top: .3rem; }}
.sr-light {{ display: grid; grid-template-columns: .7rem 1fr auto; gap: .4rem; align-items: center; font-size: .8rem; }}
.sr-dot {{ width: .58rem; height: .58rem; border-radius: 50%; }}
.sr table {{ width: 100%; border-collapse: collapse; border: 0; margin: 0; }}
.sr th {{ font-weight: 500; color: {c.muted}; font-size: .73rem; text-align: right; padding: .1rem .35rem .3rem;
  border: 0; white-space: nowrap; }}
.sr td {{ text-align: right; padding: .1rem .35rem; border: 0; white-space: nowrap; }}
.sr th:first-child, .sr td:first-child {{ text-align: left; }}
.sr .left {{ text-align: left; }}
.sr .lines td {{ border-top: 1px solid {c.line}; padding: .36rem .5rem; }}
.sr .lines th {{ padding: .1rem .5rem .35rem; }}
.sr .scroll {{ overflow-x: auto; }}
.sr .tall {{ max-height: 245px; overflow-y: auto; }}
.sr .middle td {{ padding: .32rem .35rem; border-top: 1px solid {c.line}; border-bottom: 1px solid {c.line}; }}
.sr summary {{ cursor: pointer; color: {c.muted}; }}
.sr-bar {{ height: .5rem; border-radius: 99px; background: {c.line}; overflow: hidden; }}
.sr-bar > div {{ height: 100%; background: {c.accent}; border-radius: 99px; }}
.sr-facts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: .5rem .9rem;
  margin-top: .6rem; }}
.sr-facts h5 {{ margin: 0; padding: 0; font-size: .72rem; font-weight: 500; color: {c.muted}; }}
.sr-facts div > span {{ font-weight: 600; font-size: .92rem; }}
.sr-facts div > small {{ color: {c.muted}; display: block; }}
@media (max-width: 640px) {{
  [data-testid="stMainBlockContainer"] {{ padding: .6rem .6rem 3rem; }}
  .sr-strip {{ grid-template-columns: 1fr 1fr; }}
  .sr-card .big {{ font-size: 1.08rem; }}
  .sr .lines td, .sr .lines th {{ padding-left: .3rem; padding-right: .3rem; }}
  .sr-card.wide {{ grid-column: 1 / -1; }}
}}
</style>"""
