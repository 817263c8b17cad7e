"""A clock inside the page: from what a user does to the frame that shows the answer.

It looks only when something on the page has changed. A clock that looks at every frame keeps
Chromium drawing, on the very cores whose work is measured: of a release on the Merge page it took
0.2 s for itself (docs/performance.md).
"""

from collections.abc import Callable

from playwright.sync_api import Page

LOOK = 200  # ms between two questions to the page whether its clock has stopped
START = """([event, selector, pattern]) => {
  const seen = {};
  window.addEventListener(event, (e) => { seen.began = e.timeStamp; }, {once: true, capture: true});
  const roots = [document];
  for (const root of roots)
    for (const node of root.querySelectorAll('*')) if (node.shadowRoot) roots.push(node.shadowRoot);
  const wanted = new RegExp(pattern);
  const observer = new MutationObserver(() => {
    if (seen.began === undefined) return;
    const there = roots.some((root) => [...root.querySelectorAll(selector)]
      .some((node) => wanted.test(node.textContent)));
    if (!there) return;
    observer.disconnect();
    const painted = new MessageChannel();  // heard after the frame's layout and paint
    painted.port1.onmessage = () => { seen.ended = performance.now(); };
    requestAnimationFrame(() => painted.port2.postMessage(null));
  });
  for (const root of roots)
    observer.observe(root, {childList: true, characterData: true, subtree: true});
  return seen;
}"""


def timed(
    page: Page, act: Callable[[], None], event: str, selector: str, pattern: str, limit: float = 60
) -> float:
    """Do something and measure how long the page takes to show the answer.

    Args:
        page: Where.
        act: What is done: it makes the browser fire ``event``.
        event: "pointerdown" or "pointerup": the clock starts at its time stamp.
        selector: Elements that can hold the answer, those in components too.
        pattern: A regular expression of JavaScript that their text matches once it is there; not
            before.
        limit: Seconds to wait for it.

    Returns:
        Milliseconds to the end of the first frame with the answer: it is painted.

    Raises:
        TimeoutError: If no answer came.
    """
    clock = page.evaluate_handle(START, [event, selector, pattern])
    act()
    for _ in range(round(1000 * limit / LOOK)):
        page.wait_for_timeout(LOOK)
        found = clock.evaluate("seen => seen.ended === undefined ? null : seen.ended - seen.began")
        if found is not None:
            return found
    raise TimeoutError(f"no {selector} matched {pattern!r} within {limit:.0f} s")
