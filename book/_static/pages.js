// Folds open when an address points into them, and on paper.

(function () {
  "use strict";

  function unfold() {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (!target) return;
    let closed = false;
    for (let at = target.closest("details"); at; at = at.parentElement.closest("details")) {
      closed = closed || !at.open;
      at.open = true;
    }
    if (closed) target.scrollIntoView();
  }

  function print() {
    const closed = [];
    addEventListener("beforeprint", () => {
      document.querySelectorAll(".bd-article details:not([open])").forEach((fold) => {
        fold.open = true;
        closed.push(fold);
      });
    });
    addEventListener("afterprint", () => closed.splice(0).forEach((fold) => (fold.open = false)));
  }

  addEventListener("DOMContentLoaded", () => {
    unfold();
    print();
  });
  addEventListener("hashchange", unfold);
})();
