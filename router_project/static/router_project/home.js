// Keeps the front page's prices and venues up to date.
"use strict";
async function refresh() {
  try {
    const status = await (await fetch("/status")).json();
    for (const row of document.querySelectorAll("#touch tr")) {
      const touch = status.symbols[row.dataset.symbol];
      const shown = [touch.best_bid, touch.best_bid_exchange ?? "", touch.best_ask, touch.best_ask_exchange ?? "", touch.spread];
      shown.forEach((value, column) => { row.cells[column + 1].textContent = value ?? "–"; });
    }
    const venues = Object.entries(status.exchanges).map(([name, venue]) => {
      const shown = document.createElement("span");
      const dot = document.createElement("span");
      dot.className = venue.live ? "dot live" : "dot";
      shown.append(dot, `${name}: ${venue.state} \u00a0 `);
      shown.title = venue.reason;
      return shown;
    });
    document.getElementById("venues").replaceChildren(...venues);
  } catch { /* the next try may reach the server again */ }
  setTimeout(refresh, 1000);
}
refresh();
