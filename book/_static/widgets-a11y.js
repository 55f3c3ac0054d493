// Sliders in a page without a kernel.
//
// 1. The bundle names no slider: each handle gets its description as a label, and what the readout
//    says as its value, so that a screen reader says "ε, 2 grey levels" and not "2.00".
// 2. The bundle speaks to MathJax 2; this site serves MathJax 3, which has no Hub.

(function () {
  "use strict";

  function name(handle) {
    const slider = handle.closest(".widget-slider, .jupyter-widgets");
    const label = slider && slider.querySelector(".widget-label");
    const readout = slider && slider.querySelector(".widget-readout");
    const said = label ? label.textContent.trim() : "";
    handle.setAttribute("aria-label", said || "slider");
    if (!readout) return;
    const follow = () => {
      const value = readout.textContent.trim();
      if (value && handle.getAttribute("aria-valuetext") !== value) {
        handle.setAttribute("aria-valuetext", value);
      }
    };
    follow();
    new MutationObserver(follow).observe(readout, { childList: true, characterData: true, subtree: true });
    new MutationObserver(follow).observe(handle, { attributeFilter: ["aria-valuetext"] });
  }

  function look() {
    document.querySelectorAll(".noUi-handle:not([data-named])").forEach((handle) => {
      handle.dataset.named = "";
      name(handle);
    });
  }

  function hub() {
    const mj = window.MathJax;
    if (!mj || mj.Hub) return;
    mj.Hub = {
      Queue: (call) => {
        const element = call[2];
        if (mj.startup && mj.typesetPromise && element) {
          mj.startup.promise.then(() => mj.typesetPromise([element]));
        }
      },
    };
  }

  document.addEventListener("DOMContentLoaded", () => {
    hub(); // MathJax is deferred: it is there now, and the widgets are drawn later
    look();
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
  });
})();
