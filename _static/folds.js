// What sphinx-togglebutton folds, exercises and solutions, opens for whoever is led into it, and its buttons are called
// what they open.
const unfold = (element) => {
  for (let e = element; e; e = e.parentElement) {
    if (e.localName === "details") e.open = true;
    if (!e.matches(".admonition.dropdown")) continue;
    const button = e.querySelector(".toggle-button");
    if (!button) e.classList.add("toggle-shown"); // it is not folded yet, and will not be
    else if (e.classList.contains("toggle-hidden")) button.click();
  }
};

(() => {
  const lead = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target?.closest(".admonition.dropdown")) return;
    unfold(target);
    target.scrollIntoView();
  };
  addEventListener("hashchange", lead);
  addEventListener("load", () => {
    for (const title of document.querySelectorAll(".admonition.dropdown > .admonition-title")) {
      const words = title.textContent.replace(/\s+/g, " ").replace(/#$/, "").trim();
      title.querySelector(".toggle-button")?.setAttribute("aria-label", words);
      // A click on a link in the title follows it; it folds nothing.
      for (const link of title.querySelectorAll("a")) link.addEventListener("click", (event) => event.stopPropagation());
    }
    lead();
  });
})();
