// Paper is light, whatever the screen is, and cannot be unfolded: what is folded is opened, all but code (see book.css).
addEventListener("beforeprint", () => {
  const root = document.documentElement;
  const { theme } = root.dataset;
  const folded = [...document.querySelectorAll(".bd-article details:not([open], .hide)")];
  root.dataset.theme = "light";
  for (const details of folded) details.open = true;
  const restore = () => {
    root.dataset.theme = theme;
    for (const details of folded) details.open = false;
  };
  addEventListener("afterprint", restore, { once: true });
});
