/* Searching, on top of Sphinx's: numbers are found (the source's tags), snippets are made of what a reader sees, and the
   page that a result leads to marks the words. */
"use strict";

(() => {
  const HIDDEN = "script, style, svg, button, .headerlink, .bd-header-article, details.hide, .toggle-hidden, nav";
  const SYMBOLS = {
    alpha: "α", beta: "β", delta: "δ", Delta: "Δ", varepsilon: "ε", epsilon: "ε", eta: "η", theta: "θ", lambda: "λ",
    mu: "μ", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", ell: "ℓ", infty: "∞", approx: "≈", cdot: "·", times: "×", le: "≤",
    leq: "≤", ge: "≥", geq: "≥", sum: "Σ", sqrt: "√", pm: "±", to: "→", leftarrow: "←",
  };

  /* A formula as text; "…" for one that is more than a line of symbols. */
  const plain = (tex) => {
    const text = tex
      .replace(/\\[()[\]]/g, "")
      .replace(/\\([A-Za-z]+) ?/g, (_, name) => SYMBOLS[name] ?? "")
      .replace(/[\\{}$^_&~]/g, "");
    return text.length > 60 || /\\begin/.test(tex) ? "…" : text;
  };

  /* What a formula says, whether it is set already or not */
  const said = (formula) => {
    const read = formula.querySelector("mjx-assistive-mml");
    return read ? read.textContent : plain(formula.textContent);
  };

  const improve = () => {
    const parse = Search._parseQuery;
    Search._parseQuery = (query) => {
      const parsed = parse(query);
      for (const number of splitQuery(query.trim()).filter((word) => /^\d+$/.test(word))) {
        parsed[1].add(number);
        parsed[3].add(number);
      }
      localStorage.setItem("sphinx_highlight_terms", [...parsed[3]].join(" "));
      return parsed;
    };
    Search.htmlToText = (html, anchor) => {
      const page = new DOMParser().parseFromString(html, "text/html");
      const article = page.querySelector("article.bd-article") ?? page.querySelector("main") ?? page.body;
      const part = (anchor && page.getElementById(anchor.slice(1))) || article;
      part.querySelectorAll(HIDDEN).forEach((element) => element.remove());
      part.querySelectorAll(".math").forEach((formula) => (formula.textContent = said(formula)));
      return part.textContent.replace(/\s+/g, " ").trim();
    };
  };
  /* Whichever of the two scripts comes first, before the search begins */
  if (typeof Search !== "undefined") improve();
  else document.addEventListener("DOMContentLoaded", () => typeof Search !== "undefined" && improve());

  /* Marks the words that a search has led here with, opens what hides the first of them, and goes to it. */
  const mark = () => {
    const stored = localStorage.getItem("sphinx_highlight_terms");
    const article = document.querySelector("article.bd-article");
    if (!stored || !article || document.getElementById("search-results")) return;
    localStorage.removeItem("sphinx_highlight_terms");
    const words = stored.split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    if (!words.length) return;
    const pattern = new RegExp(`(${words.join("|")})`, "iu");
    const texts = [];
    const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode())
      if (pattern.test(text.data) && !text.parentElement.closest("script, style, svg, mjx-container, .math, button"))
        texts.push(text);
    for (const text of texts) {
      const parts = text.data.split(pattern).map((part, i) => {
        if (i % 2 === 0) return part;
        const marked = document.createElement("span");
        marked.className = "highlighted";
        marked.textContent = part;
        return marked;
      });
      text.replaceWith(...parts);
    }
    for (const formula of article.querySelectorAll(".math"))
      if (words.some((word) => new RegExp(word, "iu").test(said(formula)))) formula.classList.add("highlighted");
    const seen = (e) => e.checkVisibility() && !e.closest(".toggle-hidden, .dropdown:not(.toggle)"); // folded, or about to be
    const all = [...article.querySelectorAll(".highlighted")];
    const first = all.find(seen) ?? all[0];
    unfold(first); // folds.js
    if (first && !location.hash) first.scrollIntoView({ block: "center" });
  };
  if (typeof SphinxHighlight !== "undefined") SphinxHighlight.highlightSearchWords = mark;
  document.addEventListener("DOMContentLoaded", mark);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    document.querySelectorAll(".highlighted").forEach((element) => element.classList.remove("highlighted"));
  });
})();
