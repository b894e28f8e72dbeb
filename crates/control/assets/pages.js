// What the pages do beyond htmx: dragging, remembering what is folded out, asking before something
// is removed, and saying aloud what changed. All pages work without it.
(function () {
  "use strict";

  const open = new Set();

  function prepare(root) {
    for (const list of root.querySelectorAll("[data-sortable]")) {
      if (list.dataset.sortable === "ready") continue;
      list.dataset.sortable = "ready";
      Sortable.create(list, {
        handle: ".handle",
        draggable: ".member",
        animation: 120,
        ghostClass: "ghost",
        // The order of the fields is the order of the programs: the server gives the priorities.
        onEnd: function (event) {
          if (event.oldIndex !== event.newIndex) document.getElementById("order").click();
        },
      });
    }
    for (const details of root.querySelectorAll("details[id]")) {
      if (open.has(details.id)) details.open = true;
    }
  }

  function announce() {
    const said = document.getElementById("announcer");
    const news = document.querySelector("[data-announce]");
    if (said && news && said.textContent !== news.dataset.announce) {
      said.textContent = news.dataset.announce;
    }
  }

  document.addEventListener("toggle", function (event) {
    const details = event.target;
    if (!details.id || details.tagName !== "DETAILS" || !details.isConnected) return;
    if (details.open) open.add(details.id);
    else open.delete(details.id);
  }, true);

  document.addEventListener("submit", function (event) {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });

  document.addEventListener("DOMContentLoaded", function () {
    document.documentElement.classList.add("scripts");
    prepare(document);
    announce();
    document.body.addEventListener("htmx:afterSwap", function () {
      prepare(document);
      announce();
    });
  });
})();
