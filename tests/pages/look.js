// The faults of a page, each a line as a reader would say it.
(() => {
  const found = [];
  const say = (what, node) => found.push(what + ": " + (node.textContent || node.outerHTML).trim().slice(0, 80));
  const article = document.querySelector(".bd-article") || document.body;
  const width = document.documentElement.clientWidth;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const box = heading.getBoundingClientRect();
    if (!box.width || !heading.checkVisibility()) continue;
    if (box.right > width + 1 || box.left < -1 || heading.scrollWidth > heading.clientWidth + 1)
      say("a heading is cut off", heading);
  }
  for (const link of document.querySelectorAll(".bd-sidebar a, nav a")) {
    const range = document.createRange();
    range.selectNodeContents(link);
    const side = link.closest(".bd-sidebar") || document.documentElement;
    const text = range.getBoundingClientRect();
    if (link.checkVisibility() && text.width && text.right > side.getBoundingClientRect().right + 1)
      say("a link beside the text is cut off", link);
  }
  if (document.documentElement.scrollWidth > width + 1)
    found.push(`the page is ${document.documentElement.scrollWidth} pixels wide, the window ${width}`);
  for (const table of article.querySelectorAll("table")) {
    const frame = table.parentElement;
    if (table.getBoundingClientRect().right > width + 1 && getComputedStyle(frame).overflowX === "visible")
      say("a table is cut off and does not scroll", table);
  }
  for (const image of document.querySelectorAll("img")) {
    if (!(image.getAttribute("alt") || "").trim() && image.getAttribute("role") !== "presentation")
      found.push("a picture without a text: " + image.getAttribute("src"));
    if (image.complete && !image.naturalWidth && image.checkVisibility())
      found.push("a picture that does not load: " + image.getAttribute("src"));
  }
  for (const node of article.querySelectorAll("p, dt, figcaption")) {
    if (!node.checkVisibility() || node.closest("pre, table, .sd-tab-content, .sphx-glr-thumbnails")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    if (range.getBoundingClientRect().right > width + 1 && node.textContent.trim())
      say("a text is cut off", node);
  }
  let rank = 0;
  const sizes = {};
  for (const heading of article.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const next = Number(heading.tagName[1]);
    if (next > rank + 1) say(`a heading of rank ${next} after one of rank ${rank}`, heading);
    rank = next;
    if (heading.checkVisibility()) sizes[next] = parseFloat(getComputedStyle(heading).fontSize);
  }
  for (const [each, size] of Object.entries(sizes))
    if (size >= sizes[each - 1])
      found.push(`headings of rank ${each} are not smaller than those of rank ${each - 1}: ${size} pixels`);
  const tops = article.querySelectorAll("h1").length;
  if (tops !== 1) found.push(`${tops} headings of rank 1`);
  if (!document.documentElement.lang) found.push("the page has no language");
  return found;
})()
