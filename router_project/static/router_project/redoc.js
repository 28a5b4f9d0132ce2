// Starts Redoc with what the page says, so that no script stands in the page itself.
"use strict";
{
  const container = document.getElementById("redoc-container");
  const settings = JSON.parse(document.getElementById("redoc-settings").textContent);
  Redoc.init(container.dataset.schema, settings, container);
}
