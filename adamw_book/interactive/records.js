// A slider over the recorded decays; nothing is computed here, the record is shown.

function start(root, data) {
  wake(root);
  const [condition, arm] = root.querySelectorAll("select"), slider = root.querySelector("input");
  const svg = root.querySelector(".panel"), remark = root.querySelector(".remark"), say = voice(root.querySelector(".said"));
  const points = () => data.found[condition.value][arm.value];
  let at, group, cursor;

  // λ = 0 has its place left of the smallest decay that is none.
  const floor = () => Math.min(...points().map((p) => p.dose).filter(Boolean)) / 3;
  const spot = (point) => Math.max(point.dose, floor());
  const decades = (from, to) => {
    const found = [];
    for (let k = Math.ceil(Math.log10(from)); 10 ** k <= to * 1.001; k++) found.push(Number(`1e${k}`));
    return found.length > 4 ? found.filter((_, i) => i % 2 === 0) : found;
  };

  function draw() {
    const all = points(), symbol = data.symbols[arm.value];
    const means = Object.values(data.found[condition.value]).flat().flatMap((p) => p.values.map(([mean]) => mean));
    const low = Math.floor(10 * Math.min(...means)) / 10, high = Math.min(1, Math.ceil(10 * Math.max(...means)) / 10);
    const step = high - low > 0.45 ? 0.2 : 0.1, ticks = [];
    for (let tick = high; tick > low - 1e-9; tick -= step) ticks.push(Number(tick.toFixed(1)));
    const nothing = all.some((p) => p.dose === 0), from = floor() * (nothing ? 0.8 : 2.5), to = all.at(-1).dose * 1.25;
    const x = decades(floor() * 2.9, to);
    ({ at, group } = axes(
      svg,
      { from, to, log: true, label: `${symbol} of ${arm.value}`, ticks: nothing ? [floor(), ...x] : x, words: [...(nothing ? ["0"] : []), ...x.map((t) => spelled(t))] },
      { from: low - 0.02, to: high + 0.09, label: "accuracy (fraction)", ticks },
      root.clientWidth < 420 ? { width: 340, height: 190 } : { width: 360, height: 200 },
    ));
    cursor = drawn("path", { class: "cursor" });
    group.append(cursor);
    const fixed = new Set(all.map((p) => p.lr)).size === 1;
    const best = all.reduce((top, p) => (p.values[0][0] > top.values[0][0] ? p : top));
    data.labels.forEach((_, i) => {
      const line = all.map((p) => [spot(p), p.values[i][0]]);
      if (fixed) group.append(drawn("path", { class: "line", "data-metric": i, d: curve(at, line) }));
      for (const [j, point] of line.entries()) {
        const [a, b] = at(...point);
        const d = i ? `M${a - 3} ${b - 3}h6v6h-6z` : `M${a - 3.4} ${b}a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z`;
        group.append(drawn("path", { class: "mark", "data-metric": i, "data-point": j, d }));
      }
    });
    const [a, b] = at(spot(best), best.values[0][0]);
    group.append(drawn("text", { x: a, y: b - 6, "text-anchor": "middle", class: "star" }, "★"));
    slider.max = all.length - 1;
    slider.value = all.indexOf(best);
    const label = root.querySelector(`label[for="${slider.id}"]`);
    label.textContent = `${symbol} of ${arm.value}`;
    show();
  }

  function show() {
    const all = points(), point = all[slider.value], symbol = data.symbols[arm.value];
    const rates = new Set(all.map((p) => p.lr)).size > 1;
    slider.setAttribute("aria-valuetext", `${symbol} = ${spelled(point.dose, 3)}${rates ? `, lr = ${spelled(point.lr, 3)}` : ""}`);
    root.querySelector("output").replaceChildren(number(point.dose, 3));
    root.querySelector("caption").textContent =
      `${condition.value}, ${arm.value}, ${symbol} = ${spelled(point.dose, 3)}, lr = ${spelled(point.lr, 3)}, ${point.n} seeds`;
    const told = data.labels.map((label, i) => {
      const [mean, half] = point.values[i], cells = root.querySelector(`tr[data-metric="${i}"]`).cells;
      const digits = (value) => value.toFixed(3);
      const shown = document.createElement("data");
      shown.value = mean;
      shown.textContent = digits(mean);
      cells[1].replaceChildren(shown);
      cells[2].textContent = `[${digits(mean - half)}, ${digits(mean + half)}]`;
      return `${label} ${digits(mean)}`;
    });
    const [x] = at(spot(point), 0);
    cursor.setAttribute("d", `M${x} -999V999`);
    for (const mark of group.querySelectorAll(".mark")) mark.classList.toggle("chosen", mark.dataset.point === slider.value);
    remark.textContent = `★ best mean for ${data.labels[0]}. ${rates ? "Each dot is a configuration with a learning rate of its own. " : ""}${data.source}.`;
    const words = `${root.querySelector("caption").textContent}: ${told.join("; ")}`;
    svg.setAttribute("aria-label", `Accuracy against ${symbol}, ${all.length} configurations. At ${words}.`);
    say(words);
  }
  condition.addEventListener("change", draw);
  arm.addEventListener("change", draw);
  slider.addEventListener("input", show);
  draw();
}
