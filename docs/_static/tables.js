// A wide table scrolls inside a frame that the keyboard can reach.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".bd-article table")) {
    if (table.closest(".table-frame, .pst-scrollable-table-container, .highlighttable")) continue;
    const frame = document.createElement("div");
    frame.className = "table-frame";
    table.replaceWith(frame);
    frame.append(table);
  }
  const mark = () => {
    for (const frame of document.querySelectorAll(".table-frame")) {
      if (frame.scrollWidth > frame.clientWidth) {
        frame.tabIndex = 0;
        frame.setAttribute("role", "region");
        frame.setAttribute("aria-label", "A wide table, scroll to see all of it");
      } else {
        frame.removeAttribute("tabindex");
        frame.removeAttribute("role");
        frame.removeAttribute("aria-label");
      }
    }
  };
  mark();
  addEventListener("resize", mark);
});
