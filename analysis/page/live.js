// Loads the page again while its run goes on (<html data-live="seconds">): not while it is hidden or in use, and then
// back to the same place with the same parts open. The page of a run that has ended has no such mark and stays.
"use strict";
{
  const pause = 1000 * Number(document.documentElement.dataset.live || 0);
  const key = "place " + location.pathname;
  const parts = () => [...document.querySelectorAll("details")];
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(key)); sessionStorage.removeItem(key); } catch { /* no storage here */ }
  if (kept) {
    parts().forEach((part, n) => { part.open = kept.open.includes(n); });
    history.scrollRestoration = "manual";
    const back = () => window.scrollTo(0, kept.top);
    back();
    requestAnimationFrame(() => requestAnimationFrame(back));  // the figures have their heights by then
  }
  let used = 0;
  for (const kind of ["pointerdown", "pointermove", "keydown", "wheel"]) {
    addEventListener(kind, () => { used = Date.now(); }, { passive: true });
  }
  const again = () => {
    const busy = document.hidden || Date.now() - used < 3000 || String(getSelection());
    if (busy) return void setTimeout(again, 1000);
    try {
      const open = parts().flatMap((part, n) => part.open ? [n] : []);
      sessionStorage.setItem(key, JSON.stringify({ top: scrollY, open }));
    } catch { /* the browser keeps the place as well as it can */ }
    location.reload();
  };
  if (pause) setTimeout(again, pause);
}
