// Keeps the page's sections fresh. The page is complete without it.
"use strict";

(() => {
  const REFRESH_MS = 2000;
  const main = document.getElementById("sections");
  const offline = document.getElementById("offline");
  let seen = new Date();

  // Which details are open is the reader's choice, not the server's.
  const opened = new Map();
  main.addEventListener("toggle", (event) => opened.set(event.target.id, event.target.open), true);

  const inUse = (section) => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && section.contains(selection.anchorNode);
  };

  const replace = (old, fresh) => {
    for (const details of fresh.querySelectorAll("details")) {
      if (opened.has(details.id)) details.open = opened.get(details.id);
    }
    if (old.isEqualNode(fresh) || inUse(old)) return;
    const scrolled = [...old.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    const focused = old.contains(document.activeElement) ? [...old.querySelectorAll("[tabindex], summary, a")].indexOf(document.activeElement) : -1;
    old.replaceChildren(...fresh.childNodes);
    old.querySelectorAll(".scroll").forEach((box, index) => { box.scrollLeft = scrolled[index] || 0; });
    if (focused >= 0) old.querySelectorAll("[tabindex], summary, a")[focused]?.focus({ preventScroll: true });
  };

  const refresh = async () => {
    const response = await fetch(main.dataset.src + location.search, { headers: { Accept: "text/html" } });
    if (!response.ok) throw new Error(String(response.status));
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    const sections = [...fresh.querySelectorAll("section[id]")];
    for (const section of sections) {
      const old = document.getElementById(section.id);
      // A section that came or went (after a reload of the configuration) changes the layout: begin anew.
      if (!old) return location.reload();
      replace(old, section);
    }
    seen = new Date();
  };

  const tick = async () => {
    if (!document.hidden) {
      try {
        await refresh();
        offline.hidden = true;
      } catch {
        document.getElementById("last-seen").textContent = seen.toLocaleTimeString();
        offline.hidden = false;
      }
    }
    setTimeout(tick, REFRESH_MS);
  };
  setTimeout(tick, REFRESH_MS);

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && zone !== document.getElementById("tz").value) {
    const link = document.getElementById("my-zone");
    link.href = "/?tz=" + encodeURIComponent(zone);
    link.textContent = "in " + zone;
    link.hidden = false;
  }
})();
