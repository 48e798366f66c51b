// What scrolls by itself (code, tables, long formulas) can be reached with the keyboard: from when it is larger than its
// place, which for a folded solution is when it is opened.
const SCROLLERS =
  "pre, .math, mjx-container, .cell_output > .output, .text_html, .claim-card, .claim-map, .table-wrapper, " +
  ".pst-scrollable-table-container";
const watch = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    const { overflowX, overflowY } = getComputedStyle(target);
    const scrolls =
      (target.scrollWidth > target.clientWidth && /auto|scroll/.test(overflowX)) ||
      (target.scrollHeight > target.clientHeight && /auto|scroll/.test(overflowY));
    if (scrolls) target.tabIndex = 0;
    else if (target.tabIndex === 0) target.removeAttribute("tabindex");
  }
});
for (const element of document.querySelectorAll(SCROLLERS)) watch.observe(element);
