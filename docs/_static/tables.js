// A table that is wider than the page scrolls in a frame, and says so.
document.addEventListener("DOMContentLoaded", () => {
  const frames = ".table-frame, .pst-scrollable-table-container";
  for (const table of document.querySelectorAll(".bd-article table")) {
    if (table.closest(`${frames}, .highlighttable`)) continue;
    const frame = document.createElement("div");
    frame.className = "table-frame";
    table.replaceWith(frame);
    frame.append(table);
  }
  // What names the links of the gallery is hidden under its pictures.
  for (const link of document.querySelectorAll(".sphx-glr-thumbcontainer a.internal")) {
    link.setAttribute("aria-label", link.textContent);
  }
  const mark = () => {
    for (const frame of document.querySelectorAll(frames)) {
      const wide = frame.scrollWidth > frame.clientWidth + 1;
      frame.classList.toggle("wide", wide);
      if (wide) frame.tabIndex = 0;
      else frame.removeAttribute("tabindex");
    }
  };
  mark();
  addEventListener("resize", mark);
});
